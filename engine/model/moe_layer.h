// The feed-forward half of one layer, sparse or dense: adds its output to the residual stream.
#ifndef CADRE_ENGINE_MODEL_MOE_LAYER_H_
#define CADRE_ENGINE_MODEL_MOE_LAYER_H_

#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace cadre {

// hidden += sum over the chosen experts of w_j F_j(x) (+ sigmoid(W_sg x) shared(x)), x = rms_norm(hidden).
// Adds what was routed to `tally`; the choices stay in act.expert_ids. Uses act.normed and the FFN group of `act`.
void MixExperts(Ops& ops, const ModelConfig& config, const LayerWeights& weights, ConstView row_sequence /*[T] i32*/,
                const RoutingTally& tally, const Activations& act);

// hidden += F(x), x = rms_norm(hidden): the layers of Qwen2-MoE that have no experts.
void ApplyDenseMlp(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const Activations& act);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_MOE_LAYER_H_
