// The listening socket, its limits, and the services behind it.
#ifndef CADRE_SERVER_GRPC_SERVER_H_
#define CADRE_SERVER_GRPC_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/access_control.h"
#include "server/health.h"
#include "server/services.h"
#include "server/tls_files.h"

namespace cadre {

struct GrpcServerOptions {
  std::string host = "127.0.0.1";                                // a name or an address; without brackets
  uint16_t port = 0;                                             // 0: any free port
  int max_concurrent_streams = 1024;                             // of one connection
  int64_t memory_quota_bytes = int64_t{256} << 20;               // for gRPC's own buffers
  absl::Duration max_connection_age = absl::InfiniteDuration();  // then clients connect again, maybe elsewhere
  bool reflection = true;
  bool vllm_engine_api = false;                           // serve vllm.grpc.engine.VllmEngine beside cadre.v1
  std::shared_ptr<const AccessControl> access = nullptr;  // who may call what; never null
  std::shared_ptr<const TlsIdentity> tls = nullptr;       // null: plaintext
};

// "host:port", with brackets around an IPv6 address.
std::string HostPort(const std::string& host, uint16_t port);

// OK when a server could listen there now. UNAVAILABLE names address and reason: in use, not allowed, not our address.
absl::Status CheckPortFree(const std::string& host, uint16_t port);

class GrpcServer {
 public:
  // Listens from now on; health says NOT_SERVING until SetReady. UNAVAILABLE as CheckPortFree.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           const ServiceContext& context);
  // Ends at once what Shutdown did not.
  ~GrpcServer();

  uint16_t port() const;
  Health& health();
  // As GrpcServerOptions::memory_quota_bytes, from now on. Any thread.
  void SetMemoryQuota(int64_t bytes);
  // Refuses new calls, sends GOAWAY, and waits for the calls that are open; those still open after `patience` (a health
  // watcher never ends by itself) end with UNAVAILABLE. Returns when no call is left.
  void Shutdown(absl::Duration patience);

 private:
  struct State;
  explicit GrpcServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_GRPC_SERVER_H_
