#include "server/health.h"

#include <grpcpp/health_check_service_interface.h>

#include <utility>

namespace cadre {
namespace {

constexpr const char* kReadinessNames[] = {
    "", "readiness", "cadre.v1.GenerationService", "cadre.v1.ExpertService", "cadre.v1.ModelService",
};

}  // namespace

Health::Health(grpc::HealthCheckServiceInterface* service, std::vector<std::string> more_services,
               std::shared_ptr<std::atomic<bool>> is_ready)
    : service_(service), more_services_(std::move(more_services)), is_ready_(std::move(is_ready)) {
  SetReady(false);
  service_->SetServingStatus("liveness", true);
}

void Health::SetReady(bool ready) {
  is_ready_->store(ready);
  for (const char* name : kReadinessNames) service_->SetServingStatus(name, ready);
  for (const std::string& name : more_services_) service_->SetServingStatus(name, ready);
}

}  // namespace cadre
