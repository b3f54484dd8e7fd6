// cadre health: for people and for container probes.

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

struct HealthOptions {
  std::string service = "readiness";
  absl::Duration timeout = absl::Seconds(2);
};

int RunHealth(const HealthOptions& options, const ClientOptions& client) {
  namespace health = grpc::health::v1;
  const auto stub = health::Health::NewStub(OpenChannel(client));
  health::HealthCheckRequest request;
  request.set_service(options.service);
  health::HealthCheckResponse response;
  const grpc::Status status = stub->Check(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) {
    const int exit_code = ReportError(status, client.address);
    return status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? int{kExitUnreachable} : exit_code;
  }
  std::cout << (client.json ? ToJsonLine(response)
                            : health::HealthCheckResponse::ServingStatus_Name(response.status()) + "\n");
  return response.status() == health::HealthCheckResponse::SERVING ? kExitOk : kExitFailed;
}

}  // namespace

void AddHealthCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<HealthOptions>();
  CLI::App* command = app.add_subcommand("health", "Ask whether the server takes requests; exit code 0 when it does");
  command->add_option("--service", options->service, "readiness, liveness, or empty for the server as a whole")
      ->capture_default_str();
  AddTimeoutOption(*command, &options->timeout);
  command->callback([options, &client, exit_code] { *exit_code = RunHealth(*options, client); });
}

}  // namespace cadre
