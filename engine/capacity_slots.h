// Where the device counts the places that running sequences have taken, and what a step is told of their limits.
#ifndef CADRE_ENGINE_CAPACITY_SLOTS_H_
#define CADRE_ENGINE_CAPACITY_SLOTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/model/forward_batch.h"
#include "engine/model/model_runner.h"
#include "engine/request/capacity_policy.h"
#include "engine/request/sequence.h"
#include "engine/schedule/step_plan.h"

namespace cadre {

// A sequence keeps its slot for as long as it runs: from its first step on, to its end or until it is preempted. What a
// slot counted for the last sequence does not matter to the next, which begins with a group.
class CapacitySlots {
 public:
  explicit CapacitySlots(int32_t num_slots);

  // The slot of the chunk's sequence; takes one when it has none. REQUIRES: one is free; the chunk begins where the
  // last one with this slot ended, or, with a new slot, where a group of `group` tokens begins: otherwise places would
  // be counted that others have taken, or none where some are.
  int32_t Take(const ScheduledChunk& chunk, int32_t group);
  // Nothing when it has none.
  void Release(SequenceId id);
  bool Has(SequenceId id) const { return slots_.contains(id); }
  int32_t num_in_use() const { return static_cast<int32_t>(slots_.size()); }

 private:
  struct Slot {
    int32_t index = 0;
    int32_t next_position = 0;  // of its sequence
  };

  std::vector<int32_t> free_;
  absl::flat_hash_map<SequenceId, Slot> slots_;
};

// Fills batch->capacity. `policies[i]` is that of plan.chunks[i]; when all are off, or none can bind
// because an expert has as many places as a group has rows, nothing is limited. The group of a
// batch policy are the rows of the step whose policies are of that scope.
void BuildCapacity(const StepPlan& plan, std::span<const CapacityPolicy> policies, const RunnerLimits& limits,
                   CapacitySlots* slots, ForwardBatch* batch);

}  // namespace cadre

#endif  // CADRE_ENGINE_CAPACITY_SLOTS_H_
