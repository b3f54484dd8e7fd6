// The services, ready to be registered with a server.
#ifndef CADRE_SERVER_SERVICES_H_
#define CADRE_SERVER_SERVICES_H_

#include <atomic>
#include <memory>

#include "server/access_control.h"
#include "server/errors.h"
#include "server/memory_guard.h"
#include "server/metrics.h"
#include "server/model_host.h"
#include "server/tenant_limiter.h"
#include "server/token_stream.h"
#include "server/work_queue.h"

namespace grpc {
class Service;
}

namespace cadre {

class Tracer;

// What services work with; all of it outlives them.

struct ServiceContext {
  ModelHost* host = nullptr;
  Metrics* metrics = nullptr;  // may be null
  WorkQueue* work_queue = nullptr;
  TokenStreamOptions stream;
  MemoryGuard* memory = nullptr;  // may be null
  // A request that has not come whole after so long is refused.
  absl::Duration request_timeout = absl::Seconds(30);
  Tracer* tracer = nullptr;  // may be null
  // Who may call, and whose key a call shows; may be null.
  AccessControl* access = nullptr;
  TenantLimiter* tenants = nullptr;  // may be null
};

// MemoryGuard::TryCharge, where there is a guard; else null.
inline absl::StatusOr<std::shared_ptr<MemoryGuard::Charge>> ChargeReading(const ServiceContext& context,
                                                                          size_t message_bytes) {
  if (context.memory == nullptr) return nullptr;
  return context.memory->TryCharge(message_bytes);
}

// RESOURCE_EXHAUSTED (QUEUE_FULL), of a call that the work queue has no room for.
inline absl::Status WorkQueueFull(const ServiceContext& context) {
  return MakeError({.code = absl::StatusCode::kResourceExhausted,
                    .reason = reason::kQueueFull,
                    .message = "too many long texts and profiles wait to be worked on",
                    .retry_delay = context.host->RetryDelay()});
}

std::unique_ptr<grpc::Service> CreateGenerationService(const ServiceContext& context);
std::unique_ptr<grpc::Service> CreateExpertService(const ServiceContext& context);
std::unique_ptr<grpc::Service> CreateModelService(const ServiceContext& context);
// Of the package vllm.grpc.engine. `is_ready`: what it says of its health.
std::unique_ptr<grpc::Service> CreateVllmService(const ServiceContext& context,
                                                 std::shared_ptr<const std::atomic<bool>> is_ready);

}  // namespace cadre

#endif  // CADRE_SERVER_SERVICES_H_
