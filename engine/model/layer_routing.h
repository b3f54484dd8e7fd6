// What the router of one layer reads beside its rows, and the logits it gives.
#ifndef CADRE_ENGINE_MODEL_LAYER_ROUTING_H_
#define CADRE_ENGINE_MODEL_LAYER_ROUTING_H_

#include <cstdint>

#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace cadre {

struct LayerRouting {
  int64_t moe_layer = 0;
  ConstView row_sequence;    // [T] i32
  ConstView positions;       // [T] i32
  ConstView prompt_lengths;  // [S] i32
  ConstView token_ids;       // [T] i32
  ConstView seeds;           // [S, 2] i32
  ConstView selection_bias;  // [E] f32, or empty
  RecordedChoices recorded;  // empty in a step without any
};

// logits [T, E] of x [T, D] = rms_norm(hidden): the router's, or what stands in their place, with the noise of the
// scheme.
void ComputeGate(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const LayerRouting& routing,
                 ConstView x, View logits);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_LAYER_ROUTING_H_
