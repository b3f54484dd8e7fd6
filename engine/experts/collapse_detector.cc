#include "engine/experts/collapse_detector.h"

#include <algorithm>
#include <numeric>

#include "engine/base/check.h"
#include "engine/experts/load_distribution.h"

namespace cadre {

double RoutingFreedom(std::span<const int64_t> loads, double per_token) {
  const double num_experts = static_cast<double>(loads.size());
  if (per_token >= num_experts) return 1.0;
  return std::clamp((EffectiveExperts(loads) - per_token) / (num_experts - per_token), 0.0, 1.0);
}

void CollapseDetector::Observe(size_t layer, std::span<const int64_t> loads, int64_t tokens) {
  CADRE_CHECK_LT(layer, collapsed_.size());
  const int64_t sum = std::accumulate(loads.begin(), loads.end(), int64_t{0});
  if (tokens <= 0 || sum < std::ssize(loads)) return;
  const double freedom = RoutingFreedom(loads, static_cast<double>(sum) / static_cast<double>(tokens));
  if (freedom < kCollapseBelow) collapsed_[layer] = 1;
  if (freedom > kRecoverAbove) collapsed_[layer] = 0;
}

}  // namespace cadre
