// The feed-forward half of one layer, sparse or dense: adds its output to the residual stream.
#ifndef CADRE_ENGINE_MODEL_MOE_LAYER_H_
#define CADRE_ENGINE_MODEL_MOE_LAYER_H_

#include <optional>

#include "absl/status/status.h"
#include "engine/model/cached_experts.h"
#include "engine/model/layer_routing.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace cadre {

// How the experts of one layer are limited in a step.
struct LayerCapacity {
  CapacityInputs inputs;
  View taken;  // [slots, E] i32
  CapacityTally tally;
};

// act.normed = x = rms_norm(hidden); who goes where and how much is in act.expert_ids and act.routing_weights, and is
// added to `tally`. Uses the FFN group of `act`.
void ChooseExperts(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const LayerRouting& routing,
                   const RoutingTally& tally, const Activations& act);
// hidden += sum over the chosen experts of w_j F_j(x) (+ sigmoid(W_sg x) shared(x)). Behind ChooseExperts; where the
// assignments went stays in act.expert_ids. Without `capacity`, an expert takes whatever comes. With `cached`, experts
// are those, and not `weights`'; an error is the device's.
absl::Status MixExperts(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const LayerRouting& routing,
                        const std::optional<LayerCapacity>& capacity, CachedExperts* cached, const Activations& act);

// hidden += F(x), x = rms_norm(hidden): the layers of Qwen2-MoE that have no experts.
void ApplyDenseMlp(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const Activations& act);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_MOE_LAYER_H_
