// The decoder, top to bottom, in the vocabulary of kernels/ops.h.
#ifndef CADRE_ENGINE_MODEL_TRANSFORMER_H_
#define CADRE_ENGINE_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/cached_experts.h"
#include "engine/model/kv_cache.h"
#include "engine/model/model_config.h"
#include "engine/model/step_arena.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/device.h"

namespace cadre {

// Orders the work of a step on the device; results are there after Device::Synchronize. Where experts are not all in
// memory, it waits for them meanwhile.
// Not thread-safe: one thread owns the device.
// Where experts are told on the host, [MoE layers, T, K] each, or nowhere.
struct HostChoices {
  int32_t* chosen_ids = nullptr;  // what the router chose
  float* chosen_weights = nullptr;
  int32_t* expert_ids = nullptr;  // where the assignments went
};

class Transformer {
 public:
  // `device` must outlive the transformer. `cached` may be null; else experts are those, and not the weights'.
  static absl::StatusOr<Transformer> Create(const ModelConfig& config, Weights weights,
                                            std::unique_ptr<CachedExperts> cached, Device* device);

  // Runs all layers; act.hidden then holds the residual stream. `places_taken` [MoE layers, slots, E] i32 counts, over
  // steps, for those whose experts are limited; it may be empty where nobody's are.
  // An error is one of the device.
  absl::Status RunLayers(const StepInputs& inputs, const StepTallies& tallies, const KvCache& cache,
                         const Activations& act, const View& places_taken, const HostChoices& choices);
  // Of each MoE layer, [E]: where the device finds them. They stay where they are when the transformer moves.
  std::vector<std::span<MlpWeights>> placed_experts();
  // Null where all experts are in memory.
  const CachedExperts* cached_experts() const { return cached_.get(); }
  CachedExperts* cached_experts() { return cached_.get(); }
  // As it was loaded, [MoE layers, E], or empty.
  const std::vector<float>& selection_bias() const { return config_.routing.selection_bias; }
  // REQUIRES: there is one; `bias` stays as it is until the device has ended what was ordered.
  void SetSelectionBias(std::span<const float> bias);
  // act.logits [0, count) become the logits of the rows inputs.logit_rows[begin, begin + count), which act.logits has
  // room for. The activations of the layers, but for the residual stream, are lost.
  void ComputeLogits(const StepInputs& inputs, const Activations& act, int64_t begin, int64_t count);

 private:
  Transformer(const ModelConfig& config, Weights weights, std::unique_ptr<CachedExperts> cached,
              DeviceBuffer frequencies, DeviceBuffer selection_bias, Device* device);

  View FrequencyView() const;
  // [MoE layers, E], or empty where the router has none.
  View SelectionBias() const;
  ConstView BiasOf(int64_t moe_layer) const;  // [E]
  // `layer` has experts, whom `routing` chose.
  absl::Status PredictNextLayer(int64_t layer, const LayerRouting& routing, const Activations& act);

  ModelConfig config_;
  Weights weights_;
  std::unique_ptr<CachedExperts> cached_;
  DeviceBuffer frequencies_;     // [d/2] f32
  DeviceBuffer selection_bias_;  // [MoE layers, E] f32, or nothing
  Device* device_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_TRANSFORMER_H_
