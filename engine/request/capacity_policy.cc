#include "engine/request/capacity_policy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {
namespace {

std::optional<CapacityFault> CheckRange(const char* field, int32_t value, int32_t smallest, int32_t largest) {
  if (value >= smallest && value <= largest) return std::nullopt;
  return CapacityFault{field, absl::StrCat("is ", value, ", must be ", smallest, " to ", largest)};
}

const char* OverflowName(Overflow overflow) {
  switch (overflow) {
    case Overflow::kDrop:
      return "drop";
    case Overflow::kReweight:
      return "reweight";
    case Overflow::kReroute:
      return "reroute";
  }
  return "unknown";
}

}  // namespace

std::optional<CapacityFault> FindCapacityFault(const CapacityPolicy& policy) {
  if (!policy.is_on()) return std::nullopt;
  // Not a number is not in the range either.
  if (!(policy.factor > 0.0 && policy.factor <= CapacityPolicy::kMaxFactor)) {
    return CapacityFault{"capacity_factor", absl::StrCat("is ", policy.factor, ", must be more than 0 and at most ",
                                                         CapacityPolicy::kMaxFactor)};
  }
  if (auto fault = CheckRange("min_capacity", policy.min_places, 0, CapacityPolicy::kMaxMinPlaces)) return fault;
  if (policy.scope == CapacityScope::kBatch) return std::nullopt;
  return CheckRange("group_tokens", policy.group_tokens, 1, CapacityPolicy::kMaxGroupTokens);
}

absl::Status CheckCapacityPolicy(const CapacityPolicy& policy) {
  const std::optional<CapacityFault> fault = FindCapacityFault(policy);
  if (!fault) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(fault->field, " ", fault->problem));
}

int32_t CapacityPlaces(double factor, int32_t min_places, int64_t group, int64_t top_k, int64_t num_experts) {
  CADRE_CHECK_GE(num_experts, int64_t{1});
  const double assignments = static_cast<double>(group) * static_cast<double>(top_k);
  // Infinity times nothing is not a number.
  const double places = assignments > 0.0 ? std::ceil(factor * assignments / static_cast<double>(num_experts)) : 0.0;
  constexpr double kMost = std::numeric_limits<int32_t>::max();
  return std::max(min_places, static_cast<int32_t>(std::min(places, kMost)));
}

std::string DescribeCapacityPolicy(const CapacityPolicy& policy) {
  if (!policy.is_on()) return "off";
  const bool is_request = policy.scope == CapacityScope::kRequest;
  std::array<char, 32> factor = {};  // the shortest that reads back as the same number
  const std::to_chars_result end = std::to_chars(factor.data(), factor.data() + factor.size(), policy.factor);
  std::string text =
      absl::StrCat("scope=", is_request ? "request" : "batch", " overflow=", OverflowName(policy.overflow),
                   " factor=", std::string(factor.data(), end.ptr), " min=", policy.min_places);
  if (is_request) absl::StrAppend(&text, " group=", policy.group_tokens);
  return text;
}

}  // namespace cadre
