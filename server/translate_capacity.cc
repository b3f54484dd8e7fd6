#include "server/translate_capacity.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "server/errors.h"

namespace cadre {
namespace {

std::string Path(std::string_view field, const char* name) { return absl::StrCat(ToAbsl(field), ".", name); }

absl::Status TranslateScope(const v1::CapacityPolicy& wire, std::string_view field, CapacityScope* scope) {
  switch (wire.scope()) {
    case v1::CAPACITY_SCOPE_UNSPECIFIED:
      return absl::OkStatus();
    case v1::CAPACITY_SCOPE_OFF:
      *scope = CapacityScope::kOff;
      return absl::OkStatus();
    case v1::CAPACITY_SCOPE_REQUEST:
      *scope = CapacityScope::kRequest;
      return absl::OkStatus();
    case v1::CAPACITY_SCOPE_BATCH:
      *scope = CapacityScope::kBatch;
      return absl::OkStatus();
    default:
      return InvalidField(Path(field, "scope"), absl::StrCat(static_cast<int>(wire.scope()), " is no CapacityScope"));
  }
}

absl::Status TranslateOverflow(const v1::CapacityPolicy& wire, std::string_view field, Overflow* overflow) {
  switch (wire.overflow()) {
    case v1::OVERFLOW_POLICY_UNSPECIFIED:
      return absl::OkStatus();
    case v1::OVERFLOW_POLICY_DROP:
      *overflow = Overflow::kDrop;
      return absl::OkStatus();
    case v1::OVERFLOW_POLICY_REWEIGHT:
      *overflow = Overflow::kReweight;
      return absl::OkStatus();
    case v1::OVERFLOW_POLICY_REROUTE:
      *overflow = Overflow::kReroute;
      return absl::OkStatus();
    default:
      return InvalidField(Path(field, "overflow"),
                          absl::StrCat(static_cast<int>(wire.overflow()), " is no OverflowPolicy"));
  }
}

// Fields that would be without effect.
absl::Status CheckMeaning(const v1::CapacityPolicy& wire, const CapacityPolicy& policy, std::string_view field) {
  const char* const scope = policy.is_on() ? "batch" : "off";
  const auto refuse = [&](const char* name) {
    return InvalidField(Path(field, name), absl::StrCat("means nothing while the scope is ", scope));
  };
  if (wire.has_group_tokens() && policy.scope != CapacityScope::kRequest) return refuse("group_tokens");
  if (policy.is_on()) return absl::OkStatus();
  if (wire.has_capacity_factor()) return refuse("capacity_factor");
  if (wire.has_min_capacity()) return refuse("min_capacity");
  if (wire.overflow() != v1::OVERFLOW_POLICY_UNSPECIFIED) return refuse("overflow");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CapacityPolicy> TranslateCapacity(const v1::CapacityPolicy& wire, const CapacityPolicy& own,
                                                 std::string_view field) {
  CapacityPolicy policy = own;
  CADRE_RETURN_IF_ERROR(TranslateScope(wire, field, &policy.scope));
  CADRE_RETURN_IF_ERROR(CheckMeaning(wire, policy, field));
  if (!policy.is_on()) return CapacityPolicy();
  CADRE_RETURN_IF_ERROR(TranslateOverflow(wire, field, &policy.overflow));
  if (wire.has_capacity_factor()) policy.factor = wire.capacity_factor();
  if (wire.has_min_capacity()) policy.min_places = wire.min_capacity();
  if (wire.has_group_tokens()) policy.group_tokens = wire.group_tokens();
  if (const std::optional<CapacityFault> fault = FindCapacityFault(policy)) {
    return InvalidField(Path(field, fault->field), fault->problem);
  }
  return policy;
}

void FillCapacity(const CapacityPolicy& policy, v1::CapacityPolicy* wire) {
  switch (policy.scope) {
    case CapacityScope::kOff:
      wire->set_scope(v1::CAPACITY_SCOPE_OFF);
      return;
    case CapacityScope::kRequest:
      wire->set_scope(v1::CAPACITY_SCOPE_REQUEST);
      wire->set_group_tokens(policy.group_tokens);
      break;
    case CapacityScope::kBatch:
      wire->set_scope(v1::CAPACITY_SCOPE_BATCH);
      break;
  }
  switch (policy.overflow) {
    case Overflow::kDrop:
      wire->set_overflow(v1::OVERFLOW_POLICY_DROP);
      break;
    case Overflow::kReweight:
      wire->set_overflow(v1::OVERFLOW_POLICY_REWEIGHT);
      break;
    case Overflow::kReroute:
      wire->set_overflow(v1::OVERFLOW_POLICY_REROUTE);
      break;
  }
  wire->set_capacity_factor(policy.factor);
  wire->set_min_capacity(policy.min_places);
}

}  // namespace cadre
