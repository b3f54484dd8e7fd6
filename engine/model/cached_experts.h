// Experts that are read when they are needed, into an arena smaller than all of them: what MixExperts computes with
// instead of weights that lie there from the start.
#ifndef CADRE_ENGINE_MODEL_CACHED_EXPERTS_H_
#define CADRE_ENGINE_MODEL_CACHED_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/clock.h"
#include "engine/experts/expert_cache.h"
#include "engine/experts/expert_source.h"
#include "engine/model/expert_layout.h"
#include "engine/model/expert_predictor.h"
#include "engine/model/layer_routing.h"
#include "engine/model/model_config.h"
#include "engine/model/resident_experts.h"
#include "engine/model/step_faults.h"
#include "engine/model/workspace.h"
#include "kernels/device.h"

namespace cadre {

struct CachedExpertsOptions {
  int64_t num_slots = 0;   // at the start
  int64_t most_slots = 0;  // that there may ever be; 0: as many as at the start
  EvictionPolicyKind policy = EvictionPolicyKind::kNextUse;
  int num_threads = 4;                    // reads at a time that steps wait for
  int num_ahead_threads = 0;              // reads at a time of experts that the next layer may need
  std::vector<ExpertId> warm_start = {};  // as in ExpertCacheOptions
  std::vector<ExpertId> kept = {};        // for ExpertCache::Keep
  // In the device's memory for good, beside the slots: where that is not the host's. The others are at least one.
  std::vector<ExpertId> resident = {};
  const Clock* clock = nullptr;  // outlives the experts; null: the machine's
};

// Engine thread only. Experts are read straight into the slots: where the device's memory is not the host's, these are
// memory of the host that the device reads over the link, and a wave ends when the device has computed it.
class CachedExperts {
 public:
  // `device` outlives it.
  static absl::StatusOr<std::unique_ptr<CachedExperts>> Create(const ModelConfig& config, const ExpertLayout& layout,
                                                               std::unique_ptr<ExpertSource> source,
                                                               const CachedExpertsOptions& options, Device* device);

  void BeginStep();
  // Before experts are limited: the weights that the router gave, which lost assignments are told with.
  void NoteWeights(const Activations& act);
  // Before ExpertFfn of a layer: what `routing`, of the layer after it, and `weights` make of the residual stream as it
  // is. What is missing of that is read while this layer computes. Nothing without threads to read ahead.
  absl::Status Predict(const LayerWeights& weights, const LayerRouting& routing, const Activations& act);
  // As Ops::ExpertFfn with act.normed, act.order and act.offsets, in as many waves as it takes. Assignments to experts
  // that cannot be read become kPadding with the weight 0, and are told of; `is_limited`: act.assignment_states says
  // how they were counted.
  absl::Status ExpertFfn(int64_t moe_layer, ConstView row_sequence, bool is_limited, const Activations& act);
  // Of the step.
  const StepFaults& faults() const { return faults_; }
  // Of the step's sequences, up to the last one that needed an expert. Assignments that limits on experts have lost
  // need none.
  const std::vector<ExpertCacheUse>& uses() const { return uses_; }
  // How long the step has stood still for reads.
  absl::Duration step_wait() const { return cache_.wait_time() - wait_before_; }

  // Who is resident counts as found.
  ExpertCacheReport Report() const;
  ExpertFaults TakeFaults() { return cache_.TakeFaults(); }
  ExpertPlacement Placement() const;
  ShadowSimulator* shadow_simulator() const { return cache_.shadow_simulator(); }  // any thread
  void Keep(const std::vector<ExpertId>& experts);
  bool is_resident(ExpertId expert) const { return resident_.Has(expert); }  // any thread
  absl::Duration Place() { return cache_.Place(); }
  // As ModelRunner::ShrinkExpertSlots and GrowExpertSlots.
  absl::StatusOr<bool> Shrink(int64_t count);
  absl::Status Grow(int64_t count);
  absl::Status Audit() const { return cache_.Audit(); }

 private:
  struct Miss {
    size_t sequence = 0;
    int32_t expert = 0;
  };

  CachedExperts(const ModelConfig& config, const ExpertLayout& layout, std::unique_ptr<ExpertSource> source,
                const CachedExpertsOptions& options, ResidentExperts resident, DeviceBuffer arena,
                std::optional<ExpertPredictor> predictor, Device* device);

  ExpertId IdOf(int64_t moe_layer, size_t expert) const {
    return static_cast<ExpertId>(moe_layer * std::ssize(weights_) + static_cast<int64_t>(expert));
  }
  // Sorts the experts of the layer that have assignments into resident ones and others.
  void FindNeeded(int64_t moe_layer);
  absl::Status ComputeLayer(ConstView row_sequence, const Activations& act);
  void OrderWave(std::span<const PlacedExpert> wave, const Activations& act);

  // The slots from the `first` to before the `end`.
  View Slots(int64_t first, int64_t end) const;
  // Once the layer has begun.
  absl::Status CountUses(ConstView row_sequence, const Activations& act);
  // Once it has ended.
  void CountBytes();
  absl::Status DropMissing(int64_t moe_layer, ConstView row_sequence, bool is_limited, const Activations& act);

  const ExpertLayout layout_;
  const std::unique_ptr<ExpertSource> source_;
  const MonotonicClock own_clock_;
  Device* const device_;
  const ResidentExperts resident_;
  DeviceBuffer arena_;      // the slots
  int64_t num_present_;     // with memory behind them
  const int64_t num_most_;  // with an address
  std::optional<ExpertPredictor> predictor_;
  std::span<const PredictedExpert> predicted_;  // for the layer after the one that is computed
  StepFaults faults_;
  std::vector<ExpertCacheUse> uses_;
  std::vector<Miss> misses_;              // of the layer, each pair once
  std::vector<int32_t> last_misser_;      // [E] the last sequence of the layer that missed it; -1: none
  absl::Duration wait_before_;            // of the steps before
  std::vector<int32_t> offsets_;          // [E + 1]
  std::vector<float> router_weights_;     // [T, K] of the layer, where experts are limited
  std::vector<int32_t> needed_;           // experts of the layer, but for resident ones
  std::vector<PlacedExpert> found_here_;  // resident ones
  int64_t direct_bytes_ = 0;              // computed with in the host's memory, since the start
  std::vector<int64_t> resident_hits_;    // [MoE layers] since the start
  std::vector<ExpertId> kept_here_;       // resident ones that somebody wants to be kept; they rise
  std::vector<PredictedExpert> wanted_ahead_;
  std::vector<MlpWeights> weights_;  // [E] of the wave; the others are empty
  ExpertCache cache_;                // last: its threads write to the arena
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_CACHED_EXPERTS_H_
