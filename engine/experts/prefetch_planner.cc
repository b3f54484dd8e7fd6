#include "engine/experts/prefetch_planner.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <tuple>

#include "engine/base/check.h"

namespace cadre {
namespace {

// How many loads may be begun now.
int64_t CountAdmitted(const LoadLink& link) {
  CADRE_CHECK_GE(link.loads_in_flight, 0);
  CADRE_CHECK_GE(link.max_loads_in_flight, 0);
  if (!(link.load_seconds > 0.0) || !(link.seconds_until_wanted > 0.0)) return 0;
  const double loads = link.seconds_until_wanted / link.load_seconds;
  // Those that end, or begin, in the time that is left; the ones in flight come first.
  const double in_time = link.misses_overtake ? std::ceil(loads) : std::floor(loads);
  const double bounded = std::min(in_time, static_cast<double>(std::numeric_limits<int32_t>::max()));
  return std::min(static_cast<int64_t>(bounded), link.max_loads_in_flight) - link.loads_in_flight;
}

std::vector<ExpertId> ProtectedExperts(std::span<const PredictedExpert> predicted,
                                       std::span<const ExpertId> needed_now) {
  std::vector<ExpertId> experts(needed_now.begin(), needed_now.end());
  experts.reserve(needed_now.size() + predicted.size());
  for (const PredictedExpert& each : predicted) experts.push_back(each.expert);
  std::ranges::sort(experts);
  experts.erase(std::unique(experts.begin(), experts.end()), experts.end());
  return experts;
}

}  // namespace

PrefetchPlan PlanPrefetch(std::span<const PredictedExpert> predicted, std::span<const ExpertId> needed_now,
                          const SlotTable& table, const LoadLink& link, const PrefetchOptions& options) {
  PrefetchPlan plan{.experts = {}, .protected_experts = ProtectedExperts(predicted, needed_now)};
  const int64_t num_admitted = CountAdmitted(link);
  if (num_admitted <= 0) return plan;
  std::vector<PredictedExpert> missing;
  missing.reserve(predicted.size());
  for (const PredictedExpert& each : predicted) {
    if (!(each.score >= options.min_score)) continue;  // nor is NaN
    if (!table.Find(each.expert).has_value() && !table.is_loading(each.expert)) missing.push_back(each);
  }
  std::ranges::sort(missing, {}, [](const PredictedExpert& each) { return std::tuple(-each.score, each.expert); });
  for (const PredictedExpert& each : missing) {
    if (std::ssize(plan.experts) >= num_admitted) break;
    if (std::ranges::count(plan.experts, each.expert) == 0) plan.experts.push_back(each.expert);
  }
  return plan;
}

}  // namespace cadre
