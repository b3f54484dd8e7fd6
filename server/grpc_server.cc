#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/poll_heartbeat.h"
#include "server/request_limits.h"
#include "server/server_credentials.h"

namespace cadre {
namespace {

// A gateway pings its idle connections every 10 to 30 s; the library's default would end them as an attack.
constexpr int kMinPingIntervalMs = 10'000;
// Finds clients that vanished without a word.
constexpr int kKeepaliveTimeMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 5'000;
constexpr char kVllmServiceName[] = "vllm.grpc.engine.VllmEngine";
// After its age, a connection has so long to finish its calls.
constexpr absl::Duration kConnectionAgeGrace = absl::Minutes(10);

void SetLimits(const GrpcServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  // Two servers on one port would each get some of the calls, and neither would notice.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  if (options.max_connection_age != absl::InfiniteDuration()) {
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                                static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                                static_cast<int>(absl::ToInt64Milliseconds(kConnectionAgeGrace)));
  }
}

absl::Status CannotListen(const std::string& host, uint16_t port, std::string_view why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", HostPort(host, port), ": ", std::string(why)));
}

// 0, or errno of the step that failed.
int TryBind(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const absl::Cleanup close_fd = [fd] { close(fd); };
  const int on = 1;  // as gRPC does: connections of an earlier server that still linger are no obstacle
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) return errno;
  if (bind(fd, address.ai_addr, address.ai_addrlen) != 0) return errno;
  return listen(fd, 1) == 0 ? 0 : errno;
}

}  // namespace

std::string HostPort(const std::string& host, uint16_t port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::Status CheckPortFree(const std::string& host, uint16_t port) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* addresses = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &addresses); error != 0) {
    return CannotListen(host, port, gai_strerror(error));
  }
  const absl::Cleanup free_addresses = [addresses] { freeaddrinfo(addresses); };
  for (const addrinfo* address = addresses; address != nullptr; address = address->ai_next) {
    if (const int error = TryBind(*address); error != 0) {
      return CannotListen(host, port, error == EADDRINUSE ? "the port is in use by another process" : strerror(error));
    }
  }
  return absl::OkStatus();
}

struct GrpcServer::State {
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<Health> health;
  std::unique_ptr<PollHeartbeat> heartbeat;
  grpc::ResourceQuota quota{"cadre"};
  int port = 0;
};

GrpcServer::GrpcServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              const ServiceContext& context) {
  // The library reports a port that it cannot have on its own log only.
  CADRE_RETURN_IF_ERROR(CheckPortFree(options.host, options.port));
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  auto state = std::make_unique<State>();
  grpc::ServerBuilder builder;
  SetLimits(options, &builder);
  state->quota.Resize(static_cast<size_t>(options.memory_quota_bytes));
  builder.SetResourceQuota(state->quota);
  builder.AddListeningPort(HostPort(options.host, options.port), MakeServerCredentials(options.access, options.tls),
                           &state->port);
  state->services.push_back(CreateGenerationService(context));
  state->services.push_back(CreateExpertService(context));
  state->services.push_back(CreateModelService(context));
  const auto is_ready = std::make_shared<std::atomic<bool>>(false);
  std::vector<std::string> more_services;
  if (options.vllm_engine_api) {
    state->services.push_back(CreateVllmService(context, is_ready));
    more_services.emplace_back(kVllmServiceName);
  }
  for (const auto& service : state->services) builder.RegisterService(service.get());
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || state->port == 0) return CannotListen(options.host, options.port, "gRPC refused it");
  state->health = std::make_unique<Health>(state->server->GetHealthCheckService(), std::move(more_services), is_ready);
  state->heartbeat = std::make_unique<PollHeartbeat>(state->server->InProcessChannel({}), kPollHeartbeatInterval);
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(state)));
}

uint16_t GrpcServer::port() const { return static_cast<uint16_t>(state_->port); }

Health& GrpcServer::health() { return *state_->health; }

void GrpcServer::SetMemoryQuota(int64_t bytes) { state_->quota.Resize(static_cast<size_t>(bytes)); }

void GrpcServer::Shutdown(absl::Duration patience) {
  state_->heartbeat.reset();
  state_->server->Shutdown(absl::ToChronoTime(absl::Now() + patience));
  state_->server->Wait();
}

}  // namespace cadre
