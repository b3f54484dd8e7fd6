// How many tokens an expert takes of a group, and what becomes of the rest: a value, chosen by the operator.
#ifndef CADRE_ENGINE_REQUEST_CAPACITY_POLICY_H_
#define CADRE_ENGINE_REQUEST_CAPACITY_POLICY_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "kernels/capacity.h"

namespace cadre {

struct CapacityPolicy {
  static constexpr double kMaxFactor = 1000.0;
  static constexpr int32_t kMaxGroupTokens = 1 << 20;
  static constexpr int32_t kMaxMinPlaces = 1 << 20;

  CapacityScope scope = CapacityScope::kOff;
  Overflow overflow = Overflow::kDrop;
  double factor = 1.0;         // (0, kMaxFactor]; 1 gives exactly as many places as assignments
  int32_t min_places = 1;      // of each expert, [0, kMaxMinPlaces]
  int32_t group_tokens = 256;  // of kRequest: consecutive positions that share places, [1, kMaxGroupTokens]

  bool is_on() const { return scope != CapacityScope::kOff; }
  friend bool operator==(const CapacityPolicy&, const CapacityPolicy&) = default;
};

struct CapacityFault {
  const char* field = "";  // as on the wire
  std::string problem;     // the value and its limits
};
// What is wrong; nothing in a policy that is off.
std::optional<CapacityFault> FindCapacityFault(const CapacityPolicy& policy);
// INVALID_ARGUMENT tells the fault.
absl::Status CheckCapacityPolicy(const CapacityPolicy& policy);

// Places of each expert of a layer: max(min_places, ceil(factor * group * K / E)) (Lepikhin et al., "GShard", 2020, and
// Fedus et al., "Switch Transformers", 2021, whose group are the tokens of a batch). Saturates. `factor` may be any
// that is not negative, infinity included. REQUIRES: E >= 1.
int32_t CapacityPlaces(double factor, int32_t min_places, int64_t group, int64_t top_k, int64_t num_experts);

// "off", or "scope=request overflow=drop factor=1.25 min=4 group=256": for logs, and as a name that no other policy
// has.
std::string DescribeCapacityPolicy(const CapacityPolicy& policy);

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_CAPACITY_POLICY_H_
