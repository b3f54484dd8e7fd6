// How a request fails for which the model computed values that are not numbers: it alone, whatever is beside it.
#ifndef CADRE_ENGINE_REQUEST_NAN_ERROR_H_
#define CADRE_ENGINE_REQUEST_NAN_ERROR_H_

#include <string>

#include "absl/status/status.h"

namespace cadre {

// INTERNAL; the message says what was computed.
absl::Status MakeNanError(const std::string& message);
// Whether MakeNanError made it.
bool IsNanError(const absl::Status& status);

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_NAN_ERROR_H_
