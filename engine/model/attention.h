// Self-attention of one layer: adds its output to the residual stream.
#ifndef CADRE_ENGINE_MODEL_ATTENTION_H_
#define CADRE_ENGINE_MODEL_ATTENTION_H_

#include <cstdint>

#include "engine/model/kv_cache.h"
#include "engine/model/model_config.h"
#include "engine/model/step_arena.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/ops.h"

namespace cadre {

// hidden += W_o attention(rope(norm(W_q x)), rope(norm(W_k x)), W_v x), x = rms_norm(hidden).
// Stores the step's keys and values of `layer` in `cache`. Uses act.normed and the attention group of `act`.
void Attend(Ops& ops, const ModelConfig& config, const LayerWeights& weights, int64_t layer, const StepInputs& inputs,
            const KvCache& cache, const Activations& act);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_ATTENTION_H_
