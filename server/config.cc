#include "server/config.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/model/simulated_runner.h"
#include "engine/text/utf8.h"
#include "server/capacity_flags.h"
#include "server/duration_flag.h"
#include "server/exit_codes.h"
#include "server/expert_flags.h"
#include "server/routing_flags.h"
#include "server/security_flags.h"
#include "server/version.h"

namespace cadre {
namespace {

constexpr char kEnvPrefix[] = "CADRE_";
constexpr int kMaxTypingMistakes = 3;
constexpr size_t kMaxModelNameBytes = 256;
// gRPC counts it in int milliseconds, which end after 24.8 days.
constexpr absl::Duration kMaxConnectionAge = absl::Hours(24 * 24);

constexpr char kDescription[] =
    "cadre-server: serves one Mixture-of-Experts language model over gRPC.\n"
    "Each option may also be given as CADRE_<NAME> in the environment, or as name=value in a config file.\n"
    "Exit codes: 0 ended by SIGTERM or SIGINT, 64 wrong option, 66 model not found, 69 port taken, 70 internal error,\n"
    "71 no device that can be used, 74 device lost while serving, 75 not enough memory, 78 model damaged or not\n"
    "supported, 130 or 143 ended at once by a second signal.";

// Values as they are typed, before they are given their types.
struct Typed {
  ServerConfig config;
  WeightFlags weights;
  std::string prefix_cache = "on";
  std::string prefix_cache_scope = "tenant";
  std::string deadline_admission = "on";
  std::string overlap_steps = "on";
  CapacityFlags capacity;
  RoutingFlags routing;
  ExpertFlags experts;
  std::string max_queue_wait = "0s";
  std::string log_format = "text";
  std::string drain_delay = "0s";
  std::string drain_timeout = "30s";
  std::string stall_timeout = "60s";
  std::string slow_reader_timeout = "10s";
  std::string request_timeout = "30s";
  std::string stream_interval = "auto";
  std::string max_connection_age = "0s";
};

// Option names are their long flags; environment names follow from them.
std::string EnvName(const std::string& flag) {
  return kEnvPrefix + absl::AsciiStrToUpper(absl::StrReplaceAll(flag.substr(2), {{"-", "_"}}));
}

void AddModelOptions(CLI::App& app, Typed* typed) {
  ServerConfig& c = typed->config;
  app.add_option("--model", c.model, "Folder of a Hugging Face checkpoint, or sim:key=value,...");
  app.add_option("--served-model-name", c.served_model_name, "What requests call it; the folder's name if not given");
  typed->weights.AddTo(app);
  app.add_option("--max-model-len", c.max_model_len, "Tokens of prompt and output together; 0: the model's own")
      ->check(CLI::Range(0, 1 << 24));
  app.add_option("--max-num-seqs", c.max_num_seqs, "Sequences in a step")->check(CLI::Range(1, 4096));
  app.add_option("--max-num-batched-tokens", c.max_num_batched_tokens, "Tokens in a step")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--kv-cache-gb", c.kv_cache_gb, "Size of the KV cache in GiB; 0: what is left and can be used")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--kv-block-size", c.kv_block_size, "Tokens in a block of the KV cache")->check(CLI::Range(1, 1024));
  app.add_option("--chat-template", c.chat_template,
                 "How conversations become prompts: auto (the model's own template, else what its vocabulary tells), "
                 "chatml, mistral, llama3, deepseek, or the path of a template file");
  app.add_option("--threads", c.threads, "Compute threads; 0: one for each CPU of the process")
      ->check(CLI::Range(0, 4096));
  app.add_option("--device", c.device, "auto (a GPU if there is one that can be used, else the CPU), cuda or cpu")
      ->check(CLI::IsMember({"auto", "cuda", "cpu"}));
  app.add_option("--gpu-memory-utilization", c.gpu_memory_utilization,
                 "Of the GPU memory that is free at the start, the share that may be used")
      ->check(CLI::Range(0.01, 1.0));
  app.add_flag("--enforce-eager", c.enforce_eager,
               "On a GPU, order every step kernel by kernel: no CUDA graphs for decode steps");
  app.add_option("--overlap-steps", typed->overlap_steps,
                 "On a GPU, order decode steps before the tokens of the step in front have come to the host")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_option("--cpu-isa", c.cpu_isa, "Kernels: auto (the best that this machine runs) or a name told by the log");
}

void AddSchedulingOptions(CLI::App& app, Typed* typed) {
  ServerConfig& c = typed->config;
  app.add_option("--max-prefill-chunk", c.max_prefill_chunk,
                 "Prompt tokens in a step that also decodes: bounds the gap between tokens; 0: no limit of its own")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--priority-tokens", c.priority_tokens,
                 "Tokens of service by which one level of priority is ahead of the next")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32));
  app.add_option("--prefix-cache", typed->prefix_cache, "Keep KV blocks of prompts for later requests")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_option("--prefix-cache-scope", typed->prefix_cache_scope,
                 "Who finds whose blocks: tenant keeps tenants apart, shared lets them measure each other's prompts")
      ->check(CLI::IsMember({"tenant", "shared"}));
  app.add_option("--max-queue-requests", c.max_queue_requests, "Requests that may wait; one more is refused")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--max-queue-prompt-tokens", c.max_queue_prompt_tokens, "Prompt tokens of waiting requests")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--max-queue-total-tokens", c.max_queue_total_tokens,
                 "Prompt tokens and n x max_tokens of waiting requests")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--max-tenant-queue-share", c.max_tenant_queue_share,
                 "Share of the queue that one named tenant may take")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--max-queue-wait", typed->max_queue_wait,
                 "Refuse at once who is expected to wait longer for others; 0: no limit")
      ->check(DurationIn(absl::ZeroDuration(), absl::Hours(24)));
  app.add_option("--deadline-admission", typed->deadline_admission,
                 "Refuse at once who is not expected to be answered before its deadline")
      ->check(CLI::IsMember({"on", "off"}));
}

void AddNetworkOptions(CLI::App& app, Typed* typed) {
  ServerConfig& c = typed->config;
  app.add_option("--host", c.host, "Address to listen on; 0.0.0.0 for every one");
  app.add_option("--port", c.port, "gRPC; 0: any free port")->check(CLI::Range(0, 65535));
  app.add_option("--metrics-port", c.metrics_port, "HTTP: /metrics, /healthz, /readyz; 0: any free port")
      ->check(CLI::Range(0, 65535));
  app.add_option("--metrics-host", c.metrics_host, "Address that HTTP listens on; that of --host if not given");
  app.add_option("--max-concurrent-streams", c.max_concurrent_streams, "Calls of one connection")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--grpc-memory-mb", c.grpc_memory_mb, "Bound on the memory of gRPC's own buffers, MiB")
      ->check(CLI::Range(16, 1 << 20));
  app.add_option("--max-connection-age", typed->max_connection_age,
                 "Then a connection is asked to reconnect, maybe elsewhere; 0: never")
      ->check(DurationIn(absl::ZeroDuration(), kMaxConnectionAge));
  app.add_option("--slow-reader-timeout", typed->slow_reader_timeout,
                 "A client that lets more than 64 KiB wait for so long has its request ended")
      ->check(DurationIn(absl::Milliseconds(100), absl::Hours(1)));
  app.add_option("--request-timeout", typed->request_timeout,
                 "A request that has not come whole after so long is refused")
      ->check(DurationIn(absl::Milliseconds(100), absl::Hours(1)));
  app.add_option("--stream-interval", typed->stream_interval,
                 "Tokens of a stream that come sooner than this after the last message travel together; 0: never; "
                 "auto: 5ms, and more when many streams share few CPUs")
      ->check(AutoOr(DurationIn(absl::ZeroDuration(), absl::Seconds(1))));
  app.add_flag("--reflection,!--no-reflection", c.reflection, "Answer gRPC server reflection");
  app.add_flag(
      "--enable-vllm-engine-api", c.vllm_engine_api,
      "Serve vllm.grpc.engine.VllmEngine, too: what gateways with an OpenAI-compatible front speak to engines");
}

void AddOperationOptions(CLI::App& app, Typed* typed) {
  ServerConfig& c = typed->config;
  app.add_option("--drain-delay", typed->drain_delay,
                 "After SIGTERM, requests are still accepted for so long while readiness is off already")
      ->check(DurationIn(absl::ZeroDuration(), absl::Hours(1)));
  app.add_option("--drain-timeout", typed->drain_timeout, "So long may running requests go on after that")
      ->check(DurationIn(absl::ZeroDuration(), absl::Hours(24)));
  app.add_option("--stall-timeout", typed->stall_timeout,
                 "With requests to work on and no step finished for so long, readiness goes off")
      ->check(DurationIn(absl::Seconds(1), absl::Hours(24)));
  app.add_option("--stats-window-tokens", c.stats_window_tokens, "Sliding window of the expert statistics")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--routing-sample-steps", c.routing_sample_steps,
                 "The choices of one step in so many are looked at token by token, for profiles; 0: of none, -1: of "
                 "16, on a GPU of none")
      ->check(CLI::Range(-1, 1 << 20));
  app.add_option("--metrics-experts", c.metrics_experts, "Where the layer x expert matrix stands on /metrics")
      ->check(CLI::IsMember({"auto", "full", "ranked"}));
  c.trace.AddTo(app);
  app.add_option("--log-level", c.log_level)->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  app.add_option("--log-format", typed->log_format)->check(CLI::IsMember({"text", "json"}));
}

// Without the values of negated flags: the library itself would write "--no-reflection{false}".
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    return absl::StrReplaceAll(CLI::Formatter::make_option_name(option, is_positional), {{"{false}", ""}});
  }
};

std::vector<std::string> LongFlags(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

// A Kubernetes Service called "cadre" puts CADRE_PORT=tcp://10.0.0.1:50051 and the like into every pod of its
// namespace.
bool IsServiceLink(const std::string& name, const std::string& value) {
  return absl::StrContains(value, "://") || absl::StartsWith(name, "CADRE_SERVICE_") ||
         absl::StartsWith(name, "CADRE_PORT_");
}

// Of the command line client, which runs in the server's container as its health check.
bool IsOfClient(const std::string& name) {
  static constexpr const char* kNames[] = {"CADRE_ADDRESS", "CADRE_API_KEY", "CADRE_API_KEY_FILE", "CADRE_TLS_CA",
                                           "CADRE_TLS_SERVER_NAME"};
  return std::ranges::find(kNames, name) != std::end(kNames);
}

void CheckEnvironment(const std::vector<std::string>& known, std::vector<std::string>* warnings) {
  std::vector<std::string> service_links;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string line = *entry;
    const size_t equals = line.find('=');
    if (!absl::StartsWith(line, kEnvPrefix) || equals == std::string::npos) continue;
    const std::string name = line.substr(0, equals);
    const bool is_known = std::find(known.begin(), known.end(), name) != known.end();
    if (IsServiceLink(name, line.substr(equals + 1))) {
      if (is_known) service_links.push_back(name);
      continue;
    }
    if (is_known || IsOfClient(name)) continue;
    if (const auto closest = ClosestName(name, known); closest.has_value()) {
      warnings->push_back(
          absl::StrCat("the environment variable ", name, " is no setting; did you mean ", *closest, "?"));
    }
  }
  for (const std::string& name : service_links) {
    unsetenv(name.c_str());
    warnings->push_back(absl::StrCat(name, " is ignored: it comes from a Kubernetes service link, not from you"));
  }
}

bool IsOnCommandLine(const CLI::Option& option, int argc, const char* const* argv) {
  for (const std::string& name : option.get_lnames()) {
    const std::string flag = "--" + name;
    for (int i = 1; i < argc; ++i) {
      if (argv[i] == flag || absl::StartsWith(argv[i], flag + "=")) return true;
    }
  }
  return false;
}

// "--name=value" for every variable of the environment that no flag overrides. The library itself would read the
// environment after the config file, and let the file win.
std::vector<std::string> FlagsOfEnvironment(const CLI::App& app, int argc, const char* const* argv) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_envname().empty() || IsOnCommandLine(*option, argc, argv)) continue;
    const char* value = getenv(option->get_envname().c_str());
    if (value == nullptr || *value == '\0') continue;
    flags.push_back(absl::StrCat("--", option->get_lnames().front(), "=", value));
  }
  return flags;
}

// Says of an error about a flag of the environment where the flag came from.
std::string DescribeError(const std::string& error, const std::vector<std::string>& flags_of_environment) {
  for (const std::string& argument : flags_of_environment) {
    const std::string flag = argument.substr(0, argument.find('='));
    if (absl::StartsWith(error, flag + ":")) return absl::StrCat(error, " (set by ", EnvName(flag), ")");
  }
  return error;
}

std::string DescribeUnknown(const std::string& what, const std::string& flag, const CLI::App& app) {
  const auto closest = ClosestName(flag, LongFlags(app));
  return absl::StrCat("unknown ", what, closest ? absl::StrCat("; did you mean ", *closest, "?") : "",
                      " (--help lists all)");
}

std::string DescribeExtras(const CLI::App& app) {
  const std::string extra = app.remaining().empty() ? "" : app.remaining().front();
  const std::string flag = extra.substr(0, extra.find('='));
  return DescribeUnknown("option " + flag, flag, app);
}

// The library's message for a name that it does not know, "INI was not able to parse NAME", says neither.
std::string DescribeConfigError(const std::string& error, const CLI::App& app) {
  constexpr std::string_view kUnknown = "INI was not able to parse ";
  if (!error.starts_with(kUnknown)) return error;
  const std::string name = error.substr(kUnknown.size());
  return DescribeUnknown("setting " + name + " in the file of --config", "--" + name, app);
}

ServerConfig Finish(const Typed& typed) {
  ServerConfig config = typed.config;
  config.weights = typed.weights.Config();
  if (const absl::Duration wait = *ToDuration(typed.max_queue_wait); wait > absl::ZeroDuration()) {
    config.max_queue_wait = wait;
  }
  config.capacity = typed.capacity.Policy();
  config.routing_override = typed.routing.scheme;
  config.bias_balancing = typed.routing.bias;
  config.expert_cache = typed.experts.Config();
  config.allow_capacity_override = typed.capacity.overrides == "allow";
  config.deadline_admission = typed.deadline_admission == "on";
  config.overlap_steps = typed.overlap_steps == "on";
  config.prefix_cache = typed.prefix_cache == "off"            ? PrefixCacheScope::kOff
                        : typed.prefix_cache_scope == "shared" ? PrefixCacheScope::kShared
                                                               : PrefixCacheScope::kTenant;
  config.log_json = typed.log_format == "json";
  config.drain_delay = *ToDuration(typed.drain_delay);
  config.drain_timeout = *ToDuration(typed.drain_timeout);
  config.stall_timeout = *ToDuration(typed.stall_timeout);
  config.slow_reader_timeout = *ToDuration(typed.slow_reader_timeout);
  config.request_timeout = *ToDuration(typed.request_timeout);
  if (typed.stream_interval != "auto") config.stream_interval = *ToDuration(typed.stream_interval);
  if (const absl::Duration age = *ToDuration(typed.max_connection_age); age > absl::ZeroDuration()) {
    config.max_connection_age = age;
  }
  if (config.metrics_host.empty()) config.metrics_host = config.host;
  if (config.served_model_name.empty()) {
    // "models/demo/" ends with an empty file name.
    const std::filesystem::path path = std::filesystem::path(config.model).lexically_normal();
    config.served_model_name = (path.has_filename() ? path : path.parent_path()).filename().string();
    if (IsSimulatedSpec(config.model)) config.served_model_name = "sim";
  }
  return config;
}

}  // namespace

std::optional<std::string> ClosestName(const std::string& name, const std::vector<std::string>& candidates) {
  std::optional<std::string> closest;
  // Half of a short name differs from everything.
  int best = std::min(kMaxTypingMistakes, static_cast<int>(name.size()) / 3) + 1;
  for (const std::string& candidate : candidates) {
    // Levenshtein distance, one row at a time.
    std::vector<int> row(candidate.size() + 1);
    for (size_t j = 0; j <= candidate.size(); ++j) row[j] = static_cast<int>(j);
    for (size_t i = 1; i <= name.size(); ++i) {
      int diagonal = row[0];
      row[0] = static_cast<int>(i);
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const int replaced = diagonal + (name[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best) {
      best = row.back();
      closest = candidate;
    }
  }
  return closest;
}

ParsedConfig ParseConfig(int argc, const char* const* argv) {
  Typed typed;
  CLI::App app(kDescription, "cadre-server");
  app.formatter(std::make_shared<HelpFormatter>());
  AddModelOptions(app, &typed);
  AddSchedulingOptions(app, &typed);
  typed.capacity.AddTo(app);
  typed.routing.AddTo(app);
  typed.experts.AddTo(app);
  AddNetworkOptions(app, &typed);
  AddSecurityOptions(app, &typed.config.security);
  AddOperationOptions(app, &typed);
  app.set_config("--config", "", "TOML or INI file with settings by their long names");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_version_flag("--version", absl::StrCat("cadre-server ", ServerVersion(), " (", ServerRevision(), ")"));

  std::vector<std::string> env_names;
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() || option == app.get_help_ptr() || option == app.get_version_ptr()) continue;
    const std::string name = EnvName("--" + option->get_lnames().front());
    option->envname(name)->capture_default_str();
    env_names.push_back(name);
  }

  ParsedConfig parsed;
  CheckEnvironment(env_names, &parsed.warnings);
  const std::vector<std::string> env_flags = FlagsOfEnvironment(app, argc, argv);
  std::vector<const char*> arguments(argv, argv + argc);
  for (const std::string& flag : env_flags) arguments.push_back(flag.c_str());
  try {
    app.parse(static_cast<int>(arguments.size()), const_cast<char**>(arguments.data()));
    if (typed.config.model.empty()) {
      parsed.exit_code = kExitUsage;
      parsed.output = "--model is required: the folder of a checkpoint, or sim for a simulated one (--help lists all)";
      return parsed;
    }
    std::string fault = typed.capacity.FindFault();
    if (fault.empty()) {
      fault = typed.experts.FindFault(typed.prefix_cache == "on", typed.config.routing_sample_steps,
                                      typed.config.kv_cache_gb);
    }
    if (fault.empty()) fault = typed.weights.FindFault();
    if (fault.empty()) fault = FindSecurityFault(typed.config.security);
    if (!fault.empty()) {
      parsed.exit_code = kExitUsage;
      parsed.output = DescribeError(fault, env_flags);
      return parsed;
    }
    parsed.config = Finish(typed);
    const std::string& name = parsed.config->served_model_name;
    if (name.empty() || name.size() > kMaxModelNameBytes || !IsValidUtf8(name)) {
      parsed.config.reset();
      parsed.exit_code = kExitUsage;
      parsed.output = absl::StrCat("--served-model-name: ", absl::CHexEscape(name), " is not 1 to ", kMaxModelNameBytes,
                                   " bytes of UTF-8");
    }
  } catch (const CLI::CallForHelp&) {
    parsed.output = app.help();
  } catch (const CLI::CallForVersion&) {
    parsed.output = absl::StrCat(app.version(), "\n");
  } catch (const CLI::ExtrasError&) {
    parsed.exit_code = kExitUsage;
    parsed.output = DescribeExtras(app);
  } catch (const CLI::ConfigError& error) {
    parsed.exit_code = kExitUsage;
    parsed.output = DescribeConfigError(error.what(), app);
  } catch (const CLI::Error& error) {
    parsed.exit_code = kExitUsage;
    parsed.output = DescribeError(error.what(), env_flags);
  }
  return parsed;
}

}  // namespace cadre
