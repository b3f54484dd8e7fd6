// Which experts the next layer is likely to choose: its router, applied to the residual stream as this layer found it.
// A layer changes the stream little, so that most of the guess comes true (Eliseev and Mazur 2023, "Fast Inference of
// Mixture-of-Experts Language Models with Offloading", speculative loading).
#ifndef CADRE_ENGINE_MODEL_EXPERT_PREDICTOR_H_
#define CADRE_ENGINE_MODEL_EXPERT_PREDICTOR_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/prefetch_planner.h"
#include "engine/model/layer_routing.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/device.h"

namespace cadre {

// Engine thread only.
class ExpertPredictor {
 public:
  // A step of more rows needs most experts of a layer, whatever they are.
  static constexpr int64_t kMaxRows = 32;

  // On the device.
  static int64_t SizeBytes(const ModelConfig& config);
  // `device` outlives it.
  static absl::StatusOr<ExpertPredictor> Create(const ModelConfig& config, Device* device);

  // For the layer of `weights` and `routing`, from act.hidden; each expert once, with the sum of the weights that rows
  // would give it. Nothing for a step of more than kMaxRows rows. Expert choice, recorded choices and capacity are not
  // looked at. Valid until the next call.
  absl::StatusOr<std::span<const PredictedExpert>> Predict(const LayerWeights& weights, const LayerRouting& routing,
                                                           const Activations& act);

 private:
  ExpertPredictor(const ModelConfig& config, DeviceBuffer buffer, Device* device);

  ModelConfig config_;
  DeviceBuffer buffer_;
  Device* device_;
  std::vector<int32_t> ids_;    // [T, K]
  std::vector<float> weights_;  // [T, K]
  std::vector<double> scores_;  // [E]
  std::vector<PredictedExpert> predicted_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_EXPERT_PREDICTOR_H_
