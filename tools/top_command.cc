// cadre top: a live view of a server, until interrupted.

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "cadre/v1/expert_service.grpc.pb.h"
#include "cadre/v1/model_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/load_view.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

// The alternate screen keeps what the terminal showed before.
constexpr char kEnterScreen[] = "\x1b[?1049h\x1b[?25l";
constexpr char kLeaveScreen[] = "\x1b[?25h\x1b[?1049l";
constexpr char kHome[] = "\x1b[H";
constexpr char kClearToEndOfLine[] = "\x1b[K";
constexpr char kClearBelow[] = "\x1b[J";

struct TopOptions {
  std::string model;
  bool once = false;
  int count = 0;
  absl::Duration interval = absl::Seconds(1);
  absl::Duration timeout = absl::Seconds(5);
};

std::atomic<bool> stop_requested{false};
std::atomic<bool> size_changed{false};

void HandleSignals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_requested = true; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
  action.sa_handler = [](int) { size_changed = true; };
  sigaction(SIGWINCH, &action, nullptr);
}

// Shows the alternate screen while it lives.
class Screen {
 public:
  explicit Screen(bool is_active) : is_active_(is_active) {
    if (is_active_) std::cout << kEnterScreen << std::flush;
  }
  ~Screen() {
    if (is_active_) std::cout << kLeaveScreen << std::flush;
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // Replaces what is shown, line by line, so that nothing flickers.
  void Show(const std::string& text) const {
    if (!is_active_) {
      std::cout << text << std::flush;
      return;
    }
    std::string drawn = kHome;
    for (char c : text) {
      if (c == '\n') drawn += kClearToEndOfLine;
      drawn += c;
    }
    std::cout << drawn << kClearBelow << std::flush;
  }

 private:
  const bool is_active_;
};

class Sampler {
 public:
  Sampler(const TopOptions& options, const ClientOptions& client)
      : options_(options),
        models_(v1::ModelService::NewStub(OpenChannel(client))),
        experts_(v1::ExpertService::NewStub(OpenChannel(client))) {}

  grpc::Status Sample(LoadSample* sample) {
    v1::GetModelRequest model_request;
    model_request.set_model(options_.model);
    v1::GetModelResponse model;
    grpc::Status status = models_->GetModel(Context().get(), model_request, &model);
    if (!status.ok()) return status;
    sample->model = std::move(*model.mutable_model());

    v1::GetLoadRequest load_request;
    load_request.set_model(options_.model);
    v1::GetLoadResponse load;
    status = models_->GetLoad(Context().get(), load_request, &load);
    if (!status.ok()) return status;
    sample->load = std::move(*load.mutable_load());
    if (sample->load.state() == v1::MODEL_STATE_LOADING) return grpc::Status::OK;

    v1::GetExpertStatsRequest stats_request;
    stats_request.set_model(options_.model);
    stats_request.set_scope(v1::STATS_SCOPE_WINDOW);
    v1::GetExpertStatsResponse stats;
    status = experts_->GetExpertStats(Context().get(), stats_request, &stats);
    if (!status.ok()) return status;
    sample->experts = std::move(*stats.mutable_stats());

    v1::GetPlacementRequest placement_request;
    placement_request.set_model(options_.model);
    v1::GetPlacementResponse placement;
    status = experts_->GetPlacement(Context().get(), placement_request, &placement);
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) return grpc::Status::OK;
    if (status.ok()) sample->placement = std::move(placement);
    return status;
  }

 private:
  std::unique_ptr<grpc::ClientContext> Context() const { return MakeContext(options_.timeout); }

  const TopOptions& options_;
  const std::unique_ptr<v1::ModelService::Stub> models_;
  const std::unique_ptr<v1::ExpertService::Stub> experts_;
};

// {"model": ..., "load": ..., "experts": ..., "placement": ...} on one line.
std::string ToJson(const LoadSample& sample) {
  const auto line = [](const google::protobuf::Message& message) {
    std::string json = ToJsonLine(message);
    json.pop_back();
    return json;
  };
  std::string json = "{\"model\": " + line(sample.model) + ", \"load\": " + line(sample.load);
  if (sample.experts) json += ", \"experts\": " + line(*sample.experts);
  if (sample.placement) json += ", \"placement\": " + line(*sample.placement);
  return json + "}\n";
}

ViewSize CurrentSize(bool is_live) {
  constexpr int kMany = 10000;
  const bool color = StdoutIsTerminal() && std::getenv("NO_COLOR") == nullptr;
  // One row is left for the cursor. Files and pipes have no edge.
  return {.columns = StdoutIsTerminal() ? StdoutColumns() : kMany,
          .rows = is_live ? std::max(1, StdoutRows() - 1) : kMany,
          .color = color};
}

void Sleep(absl::Duration interval) {
  const auto end = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(interval);
  while (!stop_requested && !size_changed.exchange(false) && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

int RunTop(const TopOptions& options, const ClientOptions& client) {
  const bool is_live = !options.once && !client.json && StdoutIsTerminal();
  Sampler sampler(options, client);
  LoadSample before;
  LoadSample sample;
  grpc::Status status = sampler.Sample(&before);
  if (!status.ok()) return ReportError(status, client.address);
  HandleSignals();
  {
    const Screen screen(is_live);
    // Rates need two samples: the first is shown only where there are none.
    for (int shown = 0; !stop_requested;) {
      if (is_live && shown == 0) screen.Show(FormatLoadView(before, LoadRates(), CurrentSize(is_live)));
      Sleep(options.interval);
      if (stop_requested) break;
      status = sampler.Sample(&sample);
      if (!status.ok()) break;
      screen.Show(client.json ? ToJson(sample)
                              : FormatLoadView(sample, RatesBetween(before.load, sample.load), CurrentSize(is_live)));
      before = sample;
      sample = LoadSample();
      ++shown;
      if (options.once || shown == options.count) break;
    }
  }
  return status.ok() ? int{kExitOk} : ReportError(status, client.address);
}

}  // namespace

void AddTopCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* command = app.add_subcommand("top", "Watch load, queue, KV cache and experts live");
  command->add_option("--model", options->model, "Model name; default: the one that is served");
  CLI::Option* once = command->add_flag("--once", options->once, "One look, over one interval, then end");
  command->add_option("--count", options->count, "End after so many updates")
      ->excludes(once)
      ->check(CLI::PositiveNumber);
  AddDurationOption(*command, "--interval", &options->interval, "Time between updates");
  AddTimeoutOption(*command, &options->timeout);
  command->callback([options, &client, exit_code] {
    if (options->interval < absl::Milliseconds(50)) {
      throw CLI::ValidationError("--interval", "is less than 50ms");
    }
    *exit_code = RunTop(*options, client);
  });
}

}  // namespace cadre
