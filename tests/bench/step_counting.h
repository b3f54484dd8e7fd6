// The statistics that a server keeps of each step, timed.
#ifndef CADRE_TESTS_BENCH_STEP_COUNTING_H_
#define CADRE_TESTS_BENCH_STEP_COUNTING_H_

#include <chrono>
#include <cstdint>
#include <vector>

#include "engine/experts/expert_stats.h"
#include "engine/experts/routing_profile.h"
#include "engine/model/forward_batch.h"
#include "engine/model/model_runner.h"

namespace cadre {

// What counting adds to a step beside the tallies of the device: totals and window, and with `sample_steps` the choices
// of single tokens.
class Counting {
 public:
  Counting(const RunnerLimits& limits, int sample_steps)
      : stats_(limits.num_moe_layers, limits.num_experts, limits.top_k, /*window_tokens=*/65536),
        profile_({.num_layers = limits.num_moe_layers, .num_experts = limits.num_experts, .num_classes = 1},
                 {.sample_steps = sample_steps}) {}

  bool WantsStep() { return profile_.WantsStep(); }

  // Seconds that it takes.
  double Count(const ForwardBatch& batch, const ForwardResult& result) {
    const auto start = std::chrono::steady_clock::now();
    stats_.Record(result.routing);
    if (batch.keep_expert_ids) {
      profile_.Observe(result.expert_ids, std::vector<uint8_t>(batch.token_ids.size(), 0));
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  ExpertStats stats_;
  RoutingProfile profile_;
};

}  // namespace cadre

#endif  // CADRE_TESTS_BENCH_STEP_COUNTING_H_
