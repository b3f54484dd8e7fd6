#include "engine/request/nan_error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

constexpr char kPayload[] = "cadre/nan";

}  // namespace

absl::Status MakeNanError(const std::string& message) {
  absl::Status status = absl::InternalError(absl::StrCat(message, " (reason: nan)"));
  status.SetPayload(kPayload, absl::Cord());
  return status;
}

bool IsNanError(const absl::Status& status) { return status.GetPayload(kPayload).has_value(); }

}  // namespace cadre
