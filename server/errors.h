// Errors as clients see them: a status code, a sentence, and google.rpc details that programs can act on.
//
// Inside the server an error is an absl::Status that carries its details as a payload, so that it passes through
// StatusOr; ToWireStatus turns it into what travels.
#ifndef CADRE_SERVER_ERRORS_H_
#define CADRE_SERVER_ERRORS_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace google::rpc {
class Status;
}

namespace cadre {

// Values of google.rpc.ErrorInfo.reason. The domain is kErrorDomain.
inline constexpr std::string_view kErrorDomain = "cadre";
namespace reason {
inline constexpr std::string_view kInvalidField = "INVALID_FIELD";
inline constexpr std::string_view kMalformedRequest = "MALFORMED_REQUEST";
inline constexpr std::string_view kContextLengthExceeded = "CONTEXT_LENGTH_EXCEEDED";
inline constexpr std::string_view kNoChatTemplate = "NO_CHAT_TEMPLATE";
inline constexpr std::string_view kNoTokenizerFiles = "NO_TOKENIZER_FILES";
inline constexpr std::string_view kUnsupportedField = "UNSUPPORTED_FIELD";
inline constexpr std::string_view kUnsupportedMethod = "UNSUPPORTED_METHOD";
inline constexpr std::string_view kModelNotFound = "MODEL_NOT_FOUND";
inline constexpr std::string_view kModelLoading = "MODEL_LOADING";
inline constexpr std::string_view kDraining = "DRAINING";
inline constexpr std::string_view kQueueFull = "QUEUE_FULL";
inline constexpr std::string_view kTenantQueueFull = "TENANT_QUEUE_FULL";
inline constexpr std::string_view kTooManyWatchers = "TOO_MANY_WATCHERS";
inline constexpr std::string_view kTooManyProfileCalls = "TOO_MANY_PROFILE_CALLS";
inline constexpr std::string_view kTooManyTokenizerCalls = "TOO_MANY_TOKENIZER_CALLS";
inline constexpr std::string_view kTooManyWhatIfCalls = "TOO_MANY_WHAT_IF_CALLS";
inline constexpr std::string_view kMemoryPressure = "MEMORY_PRESSURE";
inline constexpr std::string_view kDeadlineUnreachable = "DEADLINE_UNREACHABLE";
inline constexpr std::string_view kDeadlineExceeded = "DEADLINE_EXCEEDED";
inline constexpr std::string_view kRequestTimeout = "REQUEST_TIMEOUT";
inline constexpr std::string_view kCancelled = "CANCELLED";
inline constexpr std::string_view kSlowReader = "SLOW_READER";
inline constexpr std::string_view kConstraintTooCostly = "CONSTRAINT_TOO_COSTLY";
inline constexpr std::string_view kCapacityPolicyRefused = "CAPACITY_POLICY_REFUSED";
inline constexpr std::string_view kRoutingSchemeRefused = "ROUTING_SCHEME_REFUSED";
inline constexpr std::string_view kExpertUnavailable = "EXPERT_UNAVAILABLE";
inline constexpr std::string_view kExpertsResident = "EXPERTS_RESIDENT";
inline constexpr std::string_view kNotSimulated = "NOT_SIMULATED";
inline constexpr std::string_view kEngineFailure = "ENGINE_FAILURE";
inline constexpr std::string_view kNotANumber = "NOT_A_NUMBER";
inline constexpr std::string_view kUnauthenticated = "UNAUTHENTICATED";
inline constexpr std::string_view kRoleMissing = "ROLE_MISSING";
inline constexpr std::string_view kOperatorsOff = "OPERATORS_OFF";
inline constexpr std::string_view kTenantRefused = "TENANT_REFUSED";
inline constexpr std::string_view kTenantRateLimit = "TENANT_RATE_LIMIT";
inline constexpr std::string_view kTenantConcurrencyLimit = "TENANT_CONCURRENCY_LIMIT";
}  // namespace reason

struct FieldViolation {
  std::string field;        // "sampling.temperature", "stopping.stop_strings[2]"
  std::string description;  // the value and the limit
};

struct ErrorSpec {
  absl::StatusCode code = absl::StatusCode::kInternal;
  std::string_view reason = {};
  std::string message = {};
  std::vector<std::pair<std::string, std::string>> metadata = {};  // ErrorInfo: every changing part of the message
  std::vector<FieldViolation> violations = {};                     // BadRequest
  std::optional<absl::Duration> retry_delay = {};                  // RetryInfo
  std::string resource_type = {};                                  // ResourceInfo, when not empty
  std::string resource_name = {};
};

// The details together stay below kMaxErrorDetailBytes: violations beyond that are left out, and the message says so.
inline constexpr size_t kMaxErrorDetailBytes = 4096;
inline constexpr size_t kMaxErrorMessageBytes = 1024;
absl::Status MakeError(ErrorSpec spec);

// INVALID_ARGUMENT for one field; the message is "field: description".
absl::Status InvalidField(std::string field, std::string description, std::string_view reason = reason::kInvalidField);

// The same error in the words of another API: `rename` says what it calls the field.
absl::Status RenameFields(const absl::Status& status, const std::function<std::string(std::string_view)>& rename);

// UNIMPLEMENTED for a method of a later release.
absl::Status UnsupportedMethod(std::string_view method);

// The ErrorInfo.reason of an error made here; empty for any other status.
std::string ErrorReason(const absl::Status& status);
// The delay of its RetryInfo.
std::optional<absl::Duration> ErrorRetryDelay(const absl::Status& status);

// Code, message and details, for grpc_status.h. A status without details gets an ErrorInfo that repeats its code.
// INTERNAL and UNKNOWN without details lose their message, which may name what only the log should.
google::rpc::Status ToWireStatus(const absl::Status& status);

// At most 64 bytes of a value that a client sent, with everything but printable ASCII escaped.
std::string Excerpt(std::string_view value);

}  // namespace cadre

#endif  // CADRE_SERVER_ERRORS_H_
