// Why the engine does not take a request, beside the status code.
#ifndef CADRE_ENGINE_REQUEST_REFUSAL_H_
#define CADRE_ENGINE_REQUEST_REFUSAL_H_

#include <string>

#include "absl/status/status.h"

namespace cadre {

enum class Refusal {
  kNone,                 // another error
  kQueueFull,            // of requests or tokens
  kTenantShare,          // the tenant has its share of the queue
  kDeadlineUnreachable,  // could not be answered in time
  kMemoryPressure,       // the host is short of memory
  kExpertUnavailable,    // it was taken, and then an expert that it needs could not be read
};

absl::Status MakeRefusal(Refusal refusal, absl::StatusCode code, const std::string& message);
// kNone for a status that MakeRefusal did not make.
Refusal RefusalOf(const absl::Status& status);

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_REFUSAL_H_
