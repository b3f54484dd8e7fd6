// The selection bias of the routers while the engine runs: nudged by BiasBalancer, read and reset by anybody.
#ifndef CADRE_ENGINE_ROUTER_BIAS_H_
#define CADRE_ENGINE_ROUTER_BIAS_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/experts/bias_balancer.h"
#include "engine/experts/step_routing.h"
#include "engine/model/model_runner.h"

namespace cadre {

struct RouterBiasReport {
  BiasBalancerOptions options;
  int64_t num_updates = 0;    // since the start or the last reset
  float largest_nudge = 0.0;  // of all layers and experts, how far one is from the checkpoint's
  std::vector<float> bias;    // [MoE layers, E]; empty where nothing is nudged
};

// Thread rules: Observe, ApplyReset, epoch and largest_nudge from the engine's thread, the rest from any.
class RouterBias {
 public:
  // `runner` must outlive this. REQUIRES, where options are on: the runner has a selection bias.
  RouterBias(const BiasBalancerOptions& options, ModelRunner* runner);

  // Counts a step, and gives the runner another bias where a window ended. Whether it did.
  bool Observe(const StepRouting& step);
  // Gives the runner the checkpoint's bias again where that was asked for.
  void ApplyReset();
  // How often that was done. What was computed in different epochs is not to be mixed.
  int64_t epoch() const { return epoch_; }
  float largest_nudge() const { return balancer_ ? balancer_->largest_nudge() : 0.0f; }

  // From the next step on, the bias is the checkpoint's, and who is submitted from now on finds nothing that was
  // computed before. False where nothing is nudged.
  bool RequestReset();
  // After RequestReset, that of the checkpoint at once.
  RouterBiasReport Report() const;

 private:
  void Publish();

  ModelRunner* const runner_;
  std::optional<BiasBalancer> balancer_;  // the engine thread's
  int64_t epoch_ = 0;
  std::atomic<bool> must_reset_ = false;
  mutable std::mutex mutex_;
  RouterBiasReport report_;        // guarded by mutex_
  const RouterBiasReport origin_;  // what is told after a reset
};

}  // namespace cadre

#endif  // CADRE_ENGINE_ROUTER_BIAS_H_
