#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "engine/experts/expert_stats.h"

namespace cadre {
namespace {

// -sum x ln x / ln E for shares x; 1 for a single expert, who cannot be anything but uniform.
double NormalizedEntropy(const std::vector<double>& shares) {
  if (shares.size() < 2) return 1.0;
  double entropy = 0.0;
  for (double share : shares) {
    if (share > 0.0) entropy -= share * std::log(share);
  }
  return entropy / std::log(static_cast<double>(shares.size()));
}

}  // namespace

std::vector<int64_t> ComputedLoads(const LayerCounters& counters) {
  std::vector<int64_t> loads = counters.processed;
  for (size_t e = 0; e < loads.size(); ++e) loads[e] += counters.rerouted[e];
  return loads;
}

RouterHealth ComputeRouterHealth(const LayerCounters& counters) {
  RouterHealth health;
  const size_t num_experts = counters.processed.size();
  health.effective_experts = static_cast<double>(num_experts);
  if (counters.tokens == 0 || num_experts == 0) return health;

  const std::vector<int64_t> loads = ComputedLoads(counters);
  const int64_t sum = std::accumulate(loads.begin(), loads.end(), int64_t{0});
  health.unused_experts = static_cast<int32_t>(std::count(loads.begin(), loads.end(), int64_t{0}));
  std::vector<double> gate_shares(num_experts);
  for (size_t e = 0; e < num_experts; ++e) {
    gate_shares[e] = counters.probability[e] / static_cast<double>(counters.tokens);
  }
  health.gate_entropy = NormalizedEntropy(gate_shares);
  health.z_loss = counters.squared_log_sum_exp / static_cast<double>(counters.tokens);
  // Every assignment was lost to a capacity limit: there is a gate, but no load to speak of.
  if (sum == 0) return health;

  const double mean = static_cast<double>(sum) / static_cast<double>(num_experts);
  std::vector<double> load_shares(num_experts);
  double squared_deviations = 0.0;
  double dot = 0.0;
  for (size_t e = 0; e < num_experts; ++e) {
    const double load = static_cast<double>(loads[e]);
    load_shares[e] = load / static_cast<double>(sum);
    squared_deviations += (load - mean) * (load - mean);
    dot += load_shares[e] * gate_shares[e];
  }
  health.load_entropy = NormalizedEntropy(load_shares);
  health.load_imbalance = static_cast<double>(*std::max_element(loads.begin(), loads.end())) / mean;
  health.load_variation = std::sqrt(squared_deviations / static_cast<double>(num_experts)) / mean;
  health.balance_loss = static_cast<double>(num_experts) * dot;
  health.effective_experts = EffectiveExperts(loads);
  health.concentration = Concentration(loads);
  health.dead_experts = DeadExperts(loads);
  health.hot_experts = HotExperts(loads, static_cast<double>(sum) / static_cast<double>(counters.tokens));
  return health;
}

}  // namespace cadre
