// The decoder, top to bottom, in the vocabulary of kernels/ops.h.
#ifndef CADRE_ENGINE_MODEL_TRANSFORMER_H_
#define CADRE_ENGINE_MODEL_TRANSFORMER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model/kv_cache.h"
#include "engine/model/model_config.h"
#include "engine/model/step_arena.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/device.h"

namespace cadre {

// Orders the work of a step on the device and returns; results are there after Device::Synchronize.
// Not thread-safe: one thread owns the device.
class Transformer {
 public:
  // `device` must outlive the transformer.
  static absl::StatusOr<Transformer> Create(const ModelConfig& config, Weights weights, Device* device);

  // Runs all layers; act.hidden then holds the residual stream. `expert_ids` [MoE layers, T, K] on the host receives
  // the router's choices, or is null.
  void RunLayers(const StepInputs& inputs, const StepTallies& tallies, const KvCache& cache, const Activations& act,
                 int32_t* expert_ids);
  // act.logits [0, count) become the logits of the rows inputs.logit_rows[begin, begin + count), which act.logits has
  // room for. The activations of the layers, but for the residual stream, are lost.
  void ComputeLogits(const StepInputs& inputs, const Activations& act, int64_t begin, int64_t count);

 private:
  Transformer(const ModelConfig& config, Weights weights, DeviceBuffer frequencies, Device* device);

  View FrequencyView() const;

  ModelConfig config_;
  Weights weights_;
  DeviceBuffer frequencies_;  // [d/2] f32
  Device* device_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_TRANSFORMER_H_
