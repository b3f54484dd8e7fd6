#include "engine/model/layer_routing.h"

namespace cadre {

// The gate runs in the weights' dtype, as the four families were trained; only its softmax is float32.
void ComputeGate(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const LayerRouting& routing,
                 ConstView x, View logits) {
  if (config.routing.scheme == RoutingScheme::kHash) {
    return ops.HashLogits(logits, routing.token_ids, routing.moe_layer, config.routing.hash_seed);
  }
  ops.Linear(logits, x, weights.router, /*bias=*/{}, /*accumulate=*/false);
  if (config.routing.noise == 0.0f) return;
  ops.AddGateNoise(logits, routing.seeds, routing.row_sequence, routing.positions, routing.moe_layer,
                   config.routing.noise);
}

}  // namespace cadre
