#include "engine/text/jinja/runtime.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre::jinja {

absl::Status Runtime::Charge(std::size_t steps) {
  if (steps <= static_cast<std::size_t>(steps_left_)) {
    steps_left_ -= static_cast<std::int64_t>(steps);
    return absl::OkStatus();
  }
  steps_left_ = 0;
  return absl::ResourceExhaustedError(absl::StrCat("more than ", limits_.steps, " steps, the limit"));
}

absl::Status Runtime::ChargeWalk(const Value& value) {
  const Extent extent = value.extent();
  return Charge(extent.values + extent.bytes / kBytesPerStep);
}

absl::Status Runtime::ChargeComparison(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return Charge(1);
  if (a.is_string()) return ChargeBytes(std::min(a.text().size(), b.text().size()));
  return ChargeWalk(a);
}

absl::Status Runtime::CheckSize(std::size_t bytes) const {
  if (bytes <= limits_.output_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("a text of ", bytes, " bytes, the limit is ", limits_.output_bytes));
}

absl::StatusOr<Value> Runtime::NewString(Text text) {
  CADRE_RETURN_IF_ERROR(CheckSize(text.size()));
  CADRE_RETURN_IF_ERROR(ChargeBytes(text.size()));
  return Value::String(std::move(text));
}

absl::Status Runtime::EnterLevel() {
  if (++depth_ > limits_.depth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("evaluation nested deeper than ", limits_.depth, " levels, the limit"));
  }
  return Charge(1);
}

absl::Status Fail(const std::string& message) { return absl::FailedPreconditionError(message); }

absl::Status UndefinedError(const Value& value) { return Fail(value.undefined_reason()); }

}  // namespace cadre::jinja
