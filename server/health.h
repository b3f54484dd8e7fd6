// What grpc.health.v1 answers. Names: "" and "readiness" and each service of cadre.v1 tell whether requests are
// accepted; "liveness" is SERVING as long as there is an answer: a long step or a drain is no reason for a restart.
#ifndef CADRE_SERVER_HEALTH_H_
#define CADRE_SERVER_HEALTH_H_

namespace grpc {
class HealthCheckServiceInterface;
}

namespace cadre {

// Thread-safe.
class Health {
 public:
  // Starts as not ready and live. `service` outlives this.
  explicit Health(grpc::HealthCheckServiceInterface* service);

  void SetReady(bool ready);

 private:
  grpc::HealthCheckServiceInterface* const service_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_HEALTH_H_
