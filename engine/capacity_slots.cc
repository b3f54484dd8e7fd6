#include "engine/capacity_slots.h"

#include <algorithm>
#include <numeric>

#include "engine/base/check.h"

namespace cadre {

CapacitySlots::CapacitySlots(int32_t num_slots) : free_(static_cast<size_t>(num_slots)) {
  std::iota(free_.rbegin(), free_.rend(), 0);  // the lowest is taken first
}

int32_t CapacitySlots::Take(const ScheduledChunk& chunk, int32_t group) {
  const auto [it, is_new] = slots_.try_emplace(chunk.sequence);
  Slot& slot = it->second;
  if (is_new) {
    CADRE_CHECK(!free_.empty());
    CADRE_CHECK_EQ(chunk.begin % group, 0);
    slot.index = free_.back();
    free_.pop_back();
  } else {
    CADRE_CHECK_EQ(chunk.begin, slot.next_position);
  }
  slot.next_position = chunk.begin + chunk.count;
  return slot.index;
}

void CapacitySlots::Release(SequenceId id) {
  const auto it = slots_.find(id);
  if (it == slots_.end()) return;
  free_.push_back(it->second.index);
  slots_.erase(it);
}

void BuildCapacity(const StepPlan& plan, std::span<const CapacityPolicy> policies, const RunnerLimits& limits,
                   CapacitySlots* slots, ForwardBatch* batch) {
  CADRE_CHECK_EQ(policies.size(), plan.chunks.size());
  batch->capacity.clear();
  int64_t num_batch_rows = 0;
  for (size_t i = 0; i < policies.size(); ++i) {
    if (policies[i].scope == CapacityScope::kBatch) num_batch_rows += plan.chunks[i].count;
  }
  const auto group_of = [&](const CapacityPolicy& policy) {
    return policy.scope == CapacityScope::kBatch ? num_batch_rows : policy.group_tokens;
  };
  const auto places_of = [&](const CapacityPolicy& policy) {
    return CapacityPlaces(policy.factor, policy.min_places, group_of(policy), limits.top_k, limits.num_experts);
  };
  // A row takes one place of an expert at most: where there are as many as rows, nobody misses one.
  const auto can_bind = [&](const CapacityPolicy& policy) {
    return policy.is_on() && places_of(policy) < group_of(policy);
  };
  if (std::ranges::none_of(policies, can_bind)) return;
  // Those that compete with others do so whether or not their own limit can bind.
  const bool batch_binds = std::ranges::any_of(policies, [&](const CapacityPolicy& policy) {
    return policy.scope == CapacityScope::kBatch && can_bind(policy);
  });
  for (size_t i = 0; i < policies.size(); ++i) {
    const CapacityPolicy& policy = policies[i];
    SequenceCapacity& capacity = batch->capacity.emplace_back();
    const bool is_batch = policy.scope == CapacityScope::kBatch;
    if (is_batch ? !batch_binds : !can_bind(policy)) continue;
    capacity.scope = policy.scope;
    capacity.overflow = policy.overflow;
    capacity.places = places_of(policy);
    if (is_batch) continue;
    capacity.group = policy.group_tokens;
    capacity.slot = slots->Take(plan.chunks[i], policy.group_tokens);
  }
}

}  // namespace cadre
