// Loss-free balancing (Wang et al. 2024): the selection bias of each expert is nudged towards even load.
#ifndef CADRE_ENGINE_EXPERTS_BIAS_BALANCER_H_
#define CADRE_ENGINE_EXPERTS_BIAS_BALANCER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/experts/step_routing.h"

namespace cadre {

struct BiasBalancerOptions {
  double rate = 0.0;             // u: how far a bias moves at the end of a window; 0: never
  int64_t window_tokens = 4096;  // a window ends with the step in which it has so many
  double limit = 1.0;            // how far a bias may go from where it began

  bool is_on() const { return rate > 0.0; }
};

// A pure state machine: at the end of a window, of every layer and expert
//
//   nudge_e = clamp(nudge_e + u * sign(mean load - load_e), -limit, limit)     bias_e = base_e + nudge_e
//
// where load is the number of assignments that the router chose in the window, before any limit.
class BiasBalancer {
 public:
  // `base` [num_layers, num_experts] are the checkpoint's. REQUIRES: options.is_on().
  BiasBalancer(const BiasBalancerOptions& options, int32_t num_experts, std::vector<float> base);

  // Counts a step. Whether a window ended with it.
  bool Observe(const StepRouting& step);
  // Back to the base, with a new window.
  void Reset();

  const BiasBalancerOptions& options() const { return options_; }
  const std::vector<float>& bias() const { return bias_; }  // [num_layers, num_experts]
  float largest_nudge() const { return largest_nudge_; }    // of all |nudge_e|
  int64_t num_updates() const { return num_updates_; }      // since the start or the last reset

 private:
  const BiasBalancerOptions options_;
  const size_t num_experts_;
  const std::vector<float> base_;
  std::vector<double> nudge_;
  std::vector<float> bias_;
  std::vector<int64_t> load_;  // of the window
  int64_t window_tokens_ = 0;  // that were seen
  int64_t num_updates_ = 0;
  float largest_nudge_ = 0.0f;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_BIAS_BALANCER_H_
