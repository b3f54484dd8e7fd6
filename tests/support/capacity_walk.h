// Random worlds for LimitCapacity: sequences that begin, go on in chunks and begin again, limited in every way,
// compared with the reference assignment by assignment.
#ifndef CADRE_TESTS_SUPPORT_CAPACITY_WALK_H_
#define CADRE_TESTS_SUPPORT_CAPACITY_WALK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cadre {

// Largest sizes of a world; the device's ops must be reserved for them.
struct CapacityWalkLimits {
  int32_t max_experts = 128;
  int32_t max_top_k = 8;
  int32_t max_rows = 64;  // of a call
  int32_t max_calls = 8;
};

// Assignments by state.
using CapacityCounts = std::array<int64_t, static_cast<size_t>(kNumAssignmentStates)>;

// Runs one world. `draw(n)` is a number in [0, n). Returns what became of all assignments that were routed in it.
// INTERNAL says what was not as it must be: the state, the expert or the weight of an assignment, a counter, or the
// identity processed + rerouted + reweighted + dropped = rows x K, of the layer, of an expert's demand, or of a
// sequence.
absl::StatusOr<CapacityCounts> WalkCapacity(Device& device, const CapacityWalkLimits& limits,
                                            const std::function<uint32_t(uint32_t)>& draw);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_CAPACITY_WALK_H_
