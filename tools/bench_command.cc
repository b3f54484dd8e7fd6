// cadre bench: sends load to a server and measures what users would see.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "cadre/v1/model_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/loadgen/load_plot.h"
#include "tools/loadgen/load_run.h"
#include "tools/loadgen/load_text.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

constexpr size_t kMaxInputBytes = size_t{1} << 30;

struct BenchOptions {
  LoadRunOptions run;
  WorkloadOptions workload;
  std::vector<double> rates;
  std::string arrivals = "poisson";
  std::string trace_file;
  std::string trace_unit = "s";
  std::string prompt_tokens = "128";
  std::string output_tokens = "64";
  std::string prompt_file;
  std::string targets;
  std::string json_file;
  std::string plot_file;
  std::string plot_kind = "time";
  std::string model;
  std::optional<float> temperature;
  std::optional<int32_t> priority;
  bool stop_at_eos = false;
  bool quiet = false;
  int connections = 1;
};

// Set by the first Ctrl-C; the second ends the process.
std::atomic<bool> stop_requested{false};

void StopOnInterrupt() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_requested = true; };
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
}

template <typename Value>
void ParseInto(const char* option, const absl::StatusOr<Value>& parsed, Value* value) {
  if (!parsed.ok()) throw CLI::ValidationError(option, std::string(parsed.status().message()));
  *value = *parsed;
}

double UnitNanoseconds(const std::string& unit) { return unit == "us" ? 1e3 : unit == "ms" ? 1e6 : 1e9; }

// What the flags say, but for what only the server knows. Throws CLI::ValidationError.
void Complete(BenchOptions& options) {
  ParseInto("--prompt-tokens", LengthDistribution::Parse(options.prompt_tokens), &options.workload.prompt_tokens);
  ParseInto("--output-tokens", LengthDistribution::Parse(options.output_tokens), &options.workload.output_tokens);
  if (!options.targets.empty()) ParseInto("--goodput", LatencyTargets::Parse(options.targets), &options.run.targets);
  const int ways =
      (options.rates.empty() ? 0 : 1) + (options.run.concurrency > 0 ? 1 : 0) + (options.trace_file.empty() ? 0 : 1);
  if (ways != 1) {
    throw CLI::ValidationError("bench", "takes exactly one of --rate, --concurrency and --trace");
  }
  for (double rate : options.rates) {
    if (!(rate > 0.0 && rate <= 1e6)) {
      throw CLI::ValidationError("--rate", absl::StrCat(rate, " is not in (0, 1e6] requests per second"));
    }
  }
  const bool has_end = options.run.requests > 0 || options.run.duration > absl::ZeroDuration();
  if (!has_end && options.trace_file.empty()) options.run.duration = absl::Seconds(30);
  options.run.arrivals = options.arrivals == "constant" ? ArrivalKind::kConstant : ArrivalKind::kPoisson;
  options.workload.seed = options.run.seed;
}

absl::Status LoadPrompts(const std::string& path, std::vector<std::string>* prompts) {
  const auto text = ReadFile(path, kMaxInputBytes);
  if (!text.ok()) return text.status();
  int64_t number = 0;
  for (const absl::string_view whole : absl::StrSplit(*text, '\n')) {
    std::string_view line(whole.data(), whole.size());
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    if (!IsValidUtf8(line)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": line ", number, " is not valid UTF-8"));
    }
    prompts->emplace_back(line);
  }
  if (prompts->empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": has no prompts"));
  return absl::OkStatus();
}

absl::Status LoadTrace(const BenchOptions& options, std::vector<TraceRequest>* trace) {
  const auto text = ReadFile(options.trace_file, kMaxInputBytes);
  if (!text.ok()) return text.status();
  auto parsed = ParseTrace(*text, UnitNanoseconds(options.trace_unit));
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(options.trace_file, ": ", parsed.status().message()));
  }
  *trace = *std::move(parsed);
  return absl::OkStatus();
}

v1::GenerateRequest MakeBase(const BenchOptions& options) {
  v1::GenerateRequest base;
  base.set_model(options.model);
  if (options.temperature) base.mutable_sampling()->set_temperature(*options.temperature);
  if (options.priority) base.mutable_scheduling()->set_priority(*options.priority);
  if (!options.stop_at_eos) base.mutable_stopping()->set_ignore_eos(true);
  return base;
}

void ShowProgress(const LoadProgress& progress) {
  const char* const phase = progress.draining ? "draining" : progress.warming_up ? "warm-up" : "";
  std::cerr << absl::StreamFormat(
                   "\r%7.1f s  sent %d  in flight %d  completed %d  rejected %d  failed %d  tokens %d  %s"
                   "\x1b[K",
                   progress.seconds, progress.total.sent, progress.in_flight, progress.total.completed,
                   progress.total.rejected, progress.total.failed, progress.output_tokens, phase)
            << std::flush;
}

std::string Describe(const BenchOptions& options, const LoadRunOptions& run) {
  std::string how;
  if (run.concurrency > 0) {
    how = absl::StrCat(run.concurrency, " in flight");
  } else if (run.trace != nullptr) {
    how = absl::StrCat("trace of ", run.trace->size(), " requests, speed ", run.trace_speed);
  } else {
    how = absl::StrCat(options.arrivals == "constant" ? "constant " : "Poisson ", run.rate, " requests/s");
  }
  if (run.trace == nullptr) {
    absl::StrAppend(&how, ", prompt ", options.prompt_file.empty() ? options.prompt_tokens : options.prompt_file,
                    ", output ", options.output_tokens);
  }
  return absl::StrCat(how, ", seed ", run.seed);
}

nlohmann::ordered_json ResultJson(const BenchOptions& options, const ClientOptions& client,
                                  const v1::GetModelResponse& served, const std::vector<LoadReport>& reports) {
  nlohmann::ordered_json json;
  json["address"] = client.address;
  json["model"] = served.model().name();
  json["server_version"] = served.server_version();
  json["seed"] = options.run.seed;
  json["concurrency"] = options.run.concurrency;
  json["arrivals"] = options.run.concurrency > 0  ? "closed loop"
                     : options.trace_file.empty() ? options.arrivals
                                                  : "trace";
  json["trace"] = options.trace_file;
  json["prompt_tokens"] = options.prompt_tokens;
  json["output_tokens"] = options.output_tokens;
  json["shared_prefix_tokens"] = options.workload.shared_prefix_tokens;
  json["targets"] = options.run.targets.Describe();
  json["warmup_seconds"] = absl::ToDoubleSeconds(options.run.warmup);
  json["runs"] = nlohmann::ordered_json::array();
  for (const LoadReport& report : reports) json["runs"].push_back(LoadReportJson(report));
  return json;
}

std::string Plot(const BenchOptions& options, const std::string& model, const std::vector<LoadReport>& reports) {
  const std::string title = absl::StrCat("cadre bench: ", model);
  if (reports.size() > 1) return PlotSweep(reports, title);
  return options.plot_kind == "cdf" ? PlotDistribution(reports[0], title) : PlotOverTime(reports[0], title);
}

int Fail(const absl::Status& status) {
  std::cerr << "cadre: " << WithoutControlCharacters(std::string(status.message())) << "\n";
  return kExitUsage;
}

// Runs at each rate, or once, and prints each report.
std::vector<LoadReport> RunAll(const BenchOptions& options, const ClientOptions& client, LoadRunOptions run) {
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  channels.reserve(static_cast<size_t>(options.connections));
  for (int i = 0; i < options.connections; ++i) channels.push_back(OpenSeparateChannel(client));
  const bool shows_progress = !options.quiet && StderrIsTerminal();
  const bool prints = !client.json && options.json_file != "-";
  std::vector<LoadReport> reports;
  for (double rate : options.rates.empty() ? std::vector<double>{0.0} : options.rates) {
    run.rate = rate;
    Workload workload(options.workload);
    if (prints) std::cout << (reports.empty() ? "" : "\n") << Describe(options, run) << std::endl;
    reports.push_back(RunLoad(run, workload, channels, stop_requested,
                              shows_progress ? ShowProgress : std::function<void(const LoadProgress&)>()));
    if (shows_progress) std::cerr << "\r\x1b[K" << std::flush;
    if (prints) std::cout << FormatLoadReport(reports.back(), run.targets, StdoutColumns()) << std::flush;
    if (stop_requested) break;
  }
  if (prints && reports.size() > 1) std::cout << "\n" << FormatSweep(reports) << std::flush;
  return reports;
}

int RunBench(BenchOptions& options, const ClientOptions& client) {
  std::vector<TraceRequest> trace;
  if (!options.trace_file.empty()) {
    if (const absl::Status status = LoadTrace(options, &trace); !status.ok()) return Fail(status);
    options.run.trace = &trace;
  }
  if (!options.prompt_file.empty()) {
    const absl::Status status = LoadPrompts(options.prompt_file, &options.workload.prompts);
    if (!status.ok()) return Fail(status);
  }
  for (const std::string& path : {options.json_file, options.plot_file}) {
    if (path.empty() || path == "-") continue;
    if (const absl::Status status = CheckWritable(path); !status.ok()) return Fail(status);
  }
  const auto stub = v1::ModelService::NewStub(OpenChannel(client));
  v1::GetModelRequest request;
  request.set_model(options.model);
  v1::GetModelResponse served;
  const grpc::Status status = stub->GetModel(MakeContext(absl::Seconds(10)).get(), request, &served);
  if (!status.ok()) return ReportError(status, client.address);
  options.workload.vocab_size = served.model().architecture().vocab_size();
  if (options.workload.vocab_size <= 0 && options.workload.prompts.empty()) {
    return Fail(absl::UnavailableError("the model is still loading: its vocabulary is not known yet"));
  }
  options.workload.base = MakeBase(options);

  StopOnInterrupt();
  const std::vector<LoadReport> reports = RunAll(options, client, options.run);
  const std::string json =
      ResultJson(options, client, served, reports).dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (client.json || options.json_file == "-") std::cout << json << std::flush;
  absl::Status written;
  if (!options.json_file.empty() && options.json_file != "-") written.Update(WriteFile(options.json_file, json));
  if (!options.plot_file.empty()) {
    written.Update(WriteFile(options.plot_file, Plot(options, served.model().name(), reports)));
  }
  if (!written.ok()) {
    std::cerr << "cadre: " << written.message() << "\n";
    return kExitFailed;
  }
  const bool any_completed =
      std::any_of(reports.begin(), reports.end(), [](const LoadReport& report) { return report.total.completed > 0; });
  if (!any_completed) std::cerr << "cadre: no request was completed\n";
  return any_completed ? kExitOk : kExitFailed;
}

void AddArrivalOptions(CLI::App& command, BenchOptions& options) {
  command
      .add_option("-r,--rate,--rates", options.rates, "Open loop: requests per second; several run one after the other")
      ->delimiter(',');
  command.add_option("-c,--concurrency", options.run.concurrency, "Closed loop: so many requests always in flight")
      ->check(CLI::Range(1, 100000));
  command.add_option("--trace", options.trace_file,
                     "Send the requests of this file (CSV or JSON lines) at their times");
  command.add_option("--trace-unit", options.trace_unit, "Unit of the trace's times")
      ->check(CLI::IsMember({"s", "ms", "us"}))
      ->capture_default_str();
  command.add_option("--trace-speed", options.run.trace_speed, "So many times as fast as recorded")
      ->check(CLI::Range(1e-6, 1e6))
      ->capture_default_str();
  command.add_option("--arrivals", options.arrivals, "Gaps between requests of an open loop")
      ->check(CLI::IsMember({"poisson", "constant"}))
      ->capture_default_str();
  AddDurationOption(command, "--duration", &options.run.duration,
                    "Measure for so long (30s unless --requests or --trace)");
  command.add_option("--requests", options.run.requests, "Measure so many requests")->check(CLI::PositiveNumber);
  AddDurationOption(command, "--warmup", &options.run.warmup, "Send for so long before measuring");
  command.add_option("--warmup-requests", options.run.warmup_requests, "Send so many requests before measuring")
      ->check(CLI::NonNegativeNumber);
  AddDurationOption(command, "--drain-timeout", &options.run.drain_timeout, "Wait so long for the last answers");
  command.add_option("--seed", options.run.seed, "The same seed sends the same requests at the same times")
      ->capture_default_str();
  command.add_option("--connections", options.connections, "Spread the requests over so many connections")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command.add_option("--max-in-flight", options.run.max_in_flight, "Give up requests beyond so many unanswered ones")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
}

void AddWorkloadOptions(CLI::App& command, BenchOptions& options) {
  const char* const lengths = "LENGTH, uniform:LOW-HIGH or lognormal:MEDIAN,SIGMA[,LIMIT]";
  command.add_option("--prompt-tokens", options.prompt_tokens, absl::StrCat("Random prompts of ", lengths))
      ->capture_default_str();
  command.add_option("--output-tokens", options.output_tokens, absl::StrCat("Tokens to generate: ", lengths))
      ->capture_default_str();
  command.add_option("--prompt-file", options.prompt_file, "Send the lines of this file in turn instead");
  command
      .add_option("--shared-prefix", options.workload.shared_prefix_tokens, "Prompts begin with so many equal tokens")
      ->check(CLI::Range(0, LengthDistribution::kMaxLength));
  command.add_option("--prefix-groups", options.workload.prefix_groups, "So many different shared prefixes, in turn")
      ->check(CLI::Range(1, 10000));
  command.add_option("--tenant", options.workload.tenants, "Tenants of the requests, in turn; may be given again")
      ->take_all()
      ->allow_extra_args(false);
  command.add_option("--priority", options.priority, "Priority of the requests");
  command.add_option("-t,--temperature", options.temperature, "0 always takes the most likely token");
  command.add_flag("--stop-at-eos", options.stop_at_eos, "Let the model end its text before the output's length");
  AddDurationOption(command, "--timeout", &options.run.deadline, "Deadline of each request");
  command.add_option("--model", options.model, "Model name; default: the one that is served");
}

void AddResultOptions(CLI::App& command, BenchOptions& options) {
  command.add_option("--goodput", options.targets, "What a good request keeps, such as ttft:200ms,itl:50ms,e2e:2s");
  command.add_option("--json", options.json_file, "Write all results to this file; - for stdout");
  command.add_option("--plot", options.plot_file, "Write charts to this file (SVG)");
  command
      .add_option("--plot-kind", options.plot_kind, "Charts of one run: over time, or the distribution of latencies")
      ->check(CLI::IsMember({"time", "cdf"}))
      ->capture_default_str();
  command.add_flag("-q,--quiet", options.quiet, "No progress line");
}

}  // namespace

void AddBenchCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "Send load and measure latencies, throughput and goodput");
  AddArrivalOptions(*command, *options);
  AddWorkloadOptions(*command, *options);
  AddResultOptions(*command, *options);
  command->callback([options, &client, exit_code] {
    Complete(*options);
    *exit_code = RunBench(*options, client);
  });
}

}  // namespace cadre
