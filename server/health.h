// What grpc.health.v1 answers. Names: "" and "readiness" and each service tell whether requests are accepted;
// "liveness" is SERVING as long as there is an answer: a long step or a drain is no reason for a restart.
#ifndef CADRE_SERVER_HEALTH_H_
#define CADRE_SERVER_HEALTH_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace grpc {
class HealthCheckServiceInterface;
}

namespace cadre {

// Thread-safe.
class Health {
 public:
  // Starts as not ready and live. `service` outlives this. `more_services` are served beside those of cadre.v1;
  // `is_ready` is told what clients are.
  Health(grpc::HealthCheckServiceInterface* service, std::vector<std::string> more_services,
         std::shared_ptr<std::atomic<bool>> is_ready);

  void SetReady(bool ready);

 private:
  grpc::HealthCheckServiceInterface* const service_;
  const std::vector<std::string> more_services_;
  const std::shared_ptr<std::atomic<bool>> is_ready_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_HEALTH_H_
