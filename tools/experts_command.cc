// cadre experts: what every expert of the served model does, once or again and again.

#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "cadre/v1/expert_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/expert_table.h"
#include "tools/text_io.h"
#include "tools/what_if_table.h"

namespace cadre {
namespace {

struct ExpertsOptions {
  std::string model;
  std::optional<int32_t> layer;
  bool total = false;
  bool watch = false;
  bool what_if = false;
  absl::Duration interval = absl::Seconds(1);
  int count = 0;
  absl::Duration timeout = absl::Seconds(10);
};

// The fields that asking once and asking again and again have in common.
template <typename Request>
Request MakeRequest(const ExpertsOptions& options) {
  Request request;
  request.set_model(options.model);
  request.set_scope(options.total ? v1::STATS_SCOPE_TOTAL : v1::STATS_SCOPE_WINDOW);
  if (options.layer) request.add_layers(*options.layer);
  return request;
}

template <typename Response>
void Print(const Response& response, const ExpertsOptions& options, const ClientOptions& client) {
  if (client.json) {
    std::cout << ToJsonLine(response) << std::flush;
    return;
  }
  const v1::ExpertStats& stats = response.stats();
  const auto& layers = options.total ? stats.total() : stats.window();
  const int columns = StdoutColumns();
  if (options.layer && layers.size() == 1) {
    std::cout << FormatLayerTable(stats, layers[0], options.total, columns) << std::flush;
  } else {
    std::cout << FormatExpertTable(stats, options.total, columns) << std::flush;
  }
}

int ShowOnce(const ExpertsOptions& options, const ClientOptions& client) {
  const auto stub = v1::ExpertService::NewStub(OpenChannel(client));
  const auto request = MakeRequest<v1::GetExpertStatsRequest>(options);
  v1::GetExpertStatsResponse response;
  const grpc::Status status = stub->GetExpertStats(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  Print(response, options, client);
  return kExitOk;
}

int ShowWhatIf(const ExpertsOptions& options, const ClientOptions& client) {
  const auto stub = v1::ExpertService::NewStub(OpenChannel(client));
  v1::GetWhatIfRequest request;
  request.set_model(options.model);
  v1::GetWhatIfResponse response;
  const grpc::Status status = stub->GetWhatIf(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  std::cout << (client.json ? ToJsonLine(response) : FormatWhatIf(response)) << std::flush;
  return kExitOk;
}

int Watch(const ExpertsOptions& options, const ClientOptions& client) {
  constexpr char kClearScreen[] = "\x1b[H\x1b[2J";
  const auto stub = v1::ExpertService::NewStub(OpenChannel(client));
  auto request = MakeRequest<v1::WatchExpertStatsRequest>(options);
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(options.interval);
  request.mutable_interval()->set_seconds(nanoseconds / 1'000'000'000);
  request.mutable_interval()->set_nanos(static_cast<int32_t>(nanoseconds % 1'000'000'000));
  const auto context = MakeContext(absl::ZeroDuration());
  const auto stream = stub->WatchExpertStats(context.get(), request);
  int shown = 0;
  for (v1::WatchExpertStatsResponse response; stream->Read(&response);) {
    if (!client.json && StdoutIsTerminal()) std::cout << kClearScreen;
    Print(response, options, client);
    if (++shown == options.count) {
      context->TryCancel();
      stream->Finish();
      return kExitOk;
    }
  }
  const grpc::Status status = stream->Finish();
  return status.ok() ? int{kExitOk} : ReportError(status, client.address);
}

}  // namespace

void AddExpertsCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<ExpertsOptions>();
  CLI::App* command = app.add_subcommand("experts", "Show the load of every expert and the health of every router");
  CLI::Option* layer = command->add_option("--layer", options->layer, "Only this layer, with a line for each expert");
  CLI::Option* total = command->add_flag("--total", options->total, "Since the start, not over the sliding window");
  command->add_option("--model", options->model, "Model name; default: the one that is served");
  CLI::Option* watch = command->add_flag("-w,--watch", options->watch, "Again and again, until interrupted");
  AddDurationOption(*command, "--interval", &options->interval, "Time between updates")->needs(watch);
  command->add_option("--count", options->count, "End after so many updates")->needs(watch)->check(CLI::PositiveNumber);
  command->add_flag("--what-if", options->what_if, "What expert caches of other policies and sizes would have done")
      ->excludes(layer)
      ->excludes(total)
      ->excludes(watch);
  AddTimeoutOption(*command, &options->timeout);
  command->callback([options, &client, exit_code] {
    if (options->what_if) {
      *exit_code = ShowWhatIf(*options, client);
      return;
    }
    *exit_code = options->watch ? Watch(*options, client) : ShowOnce(*options, client);
  });
}

}  // namespace cadre
