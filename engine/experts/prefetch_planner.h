// Which experts to load before anybody asks for them, so that nobody who asks waits longer for it.
#ifndef CADRE_ENGINE_EXPERTS_PREFETCH_PLANNER_H_
#define CADRE_ENGINE_EXPERTS_PREFETCH_PLANNER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/expert_id.h"
#include "engine/experts/slot_table.h"

namespace cadre {

struct PredictedExpert {
  ExpertId expert = 0;
  double score = 0.0;  // higher: likelier, or wanted by more tokens; NaN: not wanted
};

// What loads travel on, disk or bus: one after the other, in the order in which they were begun.
struct LoadLink {
  int64_t loads_in_flight = 0;      // begun and not ended, whatever their cause
  int64_t max_loads_in_flight = 0;  // for prefetches; misses may always be begun
  double load_seconds = 0.0;        // that one load keeps the link, as measured
  double seconds_until_wanted = 0.0;
  // Whether a load for a miss that comes later overtakes prefetches, also the one under way. Then a prefetch needs to
  // begin, not to end, before its expert is wanted: what it has not done by then delays nobody.
  bool misses_overtake = false;
};

struct PrefetchOptions {
  double min_score = 0.0;  // what is predicted with less is left alone
};

struct PrefetchPlan {
  std::vector<ExpertId> experts;            // to begin, in this order
  std::vector<ExpertId> protected_experts;  // for SlotTable::BeginLoad; ids rise
};

// Of the experts that are predicted for the next layer, those that are neither in a slot of `table` nor on their way,
// the highest scores first (of equals the lower id), as long as the link is done with them in time and may have them.
// `needed_now` are the experts of the layer that is computed; they and all predicted ones, of whatever score, are
// protected, so that what is loaded ahead puts out nothing that is needed before it. The plan is an upper limit: where
// BeginLoad says no, there is no slot. Experts that are predicted twice count with their highest score.
// REQUIRES: experts are those of `table`; times and numbers of `link` >= 0. A load time of 0 or less than that, or NaN,
// is not a measurement: nothing is planned.
PrefetchPlan PlanPrefetch(std::span<const PredictedExpert> predicted, std::span<const ExpertId> needed_now,
                          const SlotTable& table, const LoadLink& link, const PrefetchOptions& options);

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_PREFETCH_PLANNER_H_
