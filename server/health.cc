#include "server/health.h"

#include <grpcpp/health_check_service_interface.h>

namespace cadre {
namespace {

constexpr const char* kReadinessNames[] = {
    "", "readiness", "cadre.v1.GenerationService", "cadre.v1.ExpertService", "cadre.v1.ModelService",
};

}  // namespace

Health::Health(grpc::HealthCheckServiceInterface* service) : service_(service) {
  SetReady(false);
  service_->SetServingStatus("liveness", true);
}

void Health::SetReady(bool ready) {
  for (const char* name : kReadinessNames) service_->SetServingStatus(name, ready);
}

}  // namespace cadre
