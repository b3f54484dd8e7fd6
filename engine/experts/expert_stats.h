// What every expert did: exact counters in total, the same over a sliding window of tokens, and router health.
// The arithmetic of router health is written here once, for metrics, API and command line alike.
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_STATS_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_STATS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/experts/load_distribution.h"
#include "engine/experts/step_routing.h"

namespace cadre {

// Counters of one MoE layer over some span of tokens.
struct LayerCounters {
  int64_t tokens = 0;               // rows routed
  int64_t assignments = 0;          // choices of the router: what the four states below add up to
  std::vector<int64_t> chosen;      // [E] the same by the expert that was chosen, before limits
  std::vector<int64_t> processed;   // [E] assignments computed by each expert
  std::vector<int64_t> rerouted;    // [E] assignments that came here instead of to a full expert
  std::vector<int64_t> reweighted;  // [E] assignments lost here, their weight given to the token's other experts
  std::vector<int64_t> dropped;     // [E] assignments lost here
  std::vector<double> gate_weight;  // [E] sum of routing weights, as the router gave them
  // [E] of it, what was reweighted or dropped
  std::vector<double> lost_gate_weight;
  std::vector<double> probability;   // [E] sum of gate probabilities over rows
  double squared_log_sum_exp = 0.0;  // sum over rows of logsumexp(z)^2
};

// Health of one router, from LayerCounters. n_i = processed + rerouted of expert i, f_i = n_i / sum n,
// p_i = mean gate probability. A layer without tokens is reported as uniform load, with no expert called unused.
struct RouterHealth {
  double load_entropy = 1.0;    // -sum f ln f / ln E; 1 = uniform (and for E = 1)
  double gate_entropy = 1.0;    // the same of p
  double load_imbalance = 1.0;  // max n / mean n
  double load_variation = 0.0;  // standard deviation of n / mean n
  double balance_loss = 1.0;    // E * sum f_i p_i (Fedus et al. 2021); 1 at uniform
  double z_loss = 0.0;          // mean logsumexp(z)^2 (Zoph et al. 2022)
  int32_t unused_experts = 0;   // n_i = 0
  // See load_distribution.h; k is the mean number of experts of a token.
  double effective_experts = 0.0;
  ConcentrationCurve concentration = kConcentrationPoints;
  std::vector<int32_t> dead_experts;
  std::vector<int32_t> hot_experts;
};

RouterHealth ComputeRouterHealth(const LayerCounters& counters);

// n_i of each expert.
std::vector<int64_t> ComputedLoads(const LayerCounters& counters);

struct ExpertSnapshot {
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int64_t window_tokens = 0;          // tokens now in the window
  std::vector<LayerCounters> total;   // [num_layers] since start or the last reset
  std::vector<LayerCounters> window;  // [num_layers] over the last tokens
  // [num_layers] since the start, whatever was reset; empty in what Reset tells
  std::vector<LayerCounters> lifetime;
  // [num_layers] 1 for a layer whose router had collapsed when the window last moved on; see collapse_detector.h. Of
  // its choices: limits even out the load of a router that has collapsed.
  std::vector<uint8_t> collapsed;
  // [num_layers] Jensen-Shannon divergence of the window's choices from the baseline's; empty without a baseline
  std::vector<double> drift;
};

// Thread rules: Record from one thread (the engine's), everything else from any; neither side ever waits for the other
// longer than a few copies of the counters take.
class ExpertStats {
 public:
  // The window holds at least the last `window_tokens` tokens once so many were seen, and forgets in coarse buckets.
  ExpertStats(int32_t num_layers, int32_t num_experts, int32_t top_k, int64_t window_tokens);
  ~ExpertStats();

  // Adds one step. Checks the accounting identity of every layer: sum of assignments = tokens * K, or, where the number
  // of experts varies, = the sum over tokens of what each chose, which is counted apart.
  void Record(const StepRouting& step);
  // Sets the totals and the window back to zero, and tells what they were: every step is in exactly one of the two.
  ExpertSnapshot Reset();

  // Choices [num_layers, num_experts] that windows are compared with from now on.
  void SetBaseline(std::vector<int64_t> chosen);

  // A consistent copy: the identity holds in it exactly.
  ExpertSnapshot Snapshot() const;
  // The same, with `lifetime` as its totals. For exported counters, which only grow.
  ExpertSnapshot LifetimeSnapshot() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_STATS_H_
