// What other policies and sizes would have made of the same accesses, and what the best possible choice would have.
#ifndef CADRE_ENGINE_EXPERTS_SHADOW_CACHE_H_
#define CADRE_ENGINE_EXPERTS_SHADOW_CACHE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/experts/access_trace.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/expert_id.h"

namespace cadre {

// All caches here begin empty, and none loads ahead. The experts of a group are looked up together, then those that are
// there stay while missing ones take slots, as many as there are and MaxMissesInFlight says; then these while the next
// do. Every expert that is needed gets a slot: none is passed by.
struct ShadowOptions {
  EvictionPolicyKind policy = EvictionPolicyKind::kLru;
  int64_t num_slots = 1;
  int num_threads = 4;  // of MaxMissesInFlight
  int64_t half_life_steps = EvictionPolicyOptions{}.half_life_steps;
  // That never give way once they are in, the most important first. All but one slot are at their disposal.
  std::vector<ExpertId> kept = {};
};

struct ShadowResult {
  int64_t lookups = 0;
  int64_t hits = 0;

  bool operator==(const ShadowResult&) const = default;
};

// What a SlotTable counts. Each group with misses takes O(slots), and again for every kMaxVictims misses.
// REQUIRES: num_slots >= 1.
ShadowResult SimulatePolicy(const AccessLog& log, const ShadowOptions& options);

// At least the hits of any cache without kept experts, even of one that knew the future: who is needed farthest in the
// future gives way (Belady 1966), be it one of the group that has been computed, as if there were one slot more that
// experts pass through. O(lookups log slots). REQUIRES: num_slots >= 1.
ShadowResult SimulateBelady(const AccessLog& log, int64_t num_slots);

// EvictionPolicyNames, and the choice of somebody who knew the future.
inline constexpr std::string_view kBeladyName = "belady";
inline constexpr std::string_view kWhatIfPolicies[] = {"lru", "lfu", "lfru", "least-stale", "next-use", kBeladyName};

struct WhatIfRow {
  std::string_view policy;  // one of kWhatIfPolicies
  int64_t num_slots = 0;
  ShadowResult result;
};

// Half of `num_slots`, as many, and twice as many, but at least one and at most as many as there are experts.
std::array<int64_t, 3> WhatIfSizes(int64_t num_slots, int64_t num_experts);

// Every policy, then Belady's choice, at the WhatIfSizes of `live.num_slots`; sizes that come out equal are there once.
// `live.policy` does not matter. Ends early, with fewer rows, once `must_stop` is set, which may be null.
std::vector<WhatIfRow> SimulateWhatIf(const AccessLog& log, const ShadowOptions& live,
                                      const std::atomic<bool>* must_stop = nullptr);

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_SHADOW_CACHE_H_
