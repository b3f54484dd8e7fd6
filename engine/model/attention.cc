#include "engine/model/attention.h"

#include <cmath>

namespace cadre {
namespace {

View AsRows(const View& heads /*[T, heads, d]*/) { return heads.Reshape({heads.dim(0), heads.dim(1) * heads.dim(2)}); }

void Project(Ops& ops, const LayerWeights& weights, const Activations& act) {
  ops.Linear(AsRows(act.q), act.normed, weights.q, weights.q_bias, /*accumulate=*/false);
  ops.Linear(AsRows(act.k), act.normed, weights.k, weights.k_bias, /*accumulate=*/false);
  ops.Linear(AsRows(act.v), act.normed, weights.v, weights.v_bias, /*accumulate=*/false);
}

// The norm covers one head (Qwen3) or all heads of the row together (OLMoE).
void NormalizeHeads(Ops& ops, const ModelConfig& config, const View& x /*[T, heads, d]*/, const ConstView& weight) {
  if (config.qk_norm == QkNorm::kNone) return;
  const int64_t width = config.qk_norm == QkNorm::kPerHead ? x.dim(2) : x.dim(1) * x.dim(2);
  const View rows = x.Reshape({x.num_elements() / width, width});
  ops.RmsNorm(rows, rows, weight, config.rms_norm_eps);
}

}  // namespace

void Attend(Ops& ops, const ModelConfig& config, const LayerWeights& weights, int64_t layer, const StepInputs& inputs,
            const KvCache& cache, const Activations& act) {
  ops.RmsNorm(act.normed, act.hidden, weights.attention_norm, config.rms_norm_eps);
  Project(ops, weights, act);
  NormalizeHeads(ops, config, act.q, weights.q_norm);
  NormalizeHeads(ops, config, act.k, weights.k_norm);
  if (config.clip_qkv.has_value()) {
    for (const View& x : {act.q, act.k, act.v}) ops.Clamp(x, *config.clip_qkv);
  }
  ops.Rope(act.q, act.cos, act.sin);
  ops.Rope(act.k, act.cos, act.sin);

  // The step's own keys are stored first: a row attends to its chunk through the cache, like to everything before it.
  ops.WriteKv(cache.keys(layer), cache.values(layer), act.k, act.v, inputs.kv_slots);
  const PagedKv kv = {.k_cache = cache.keys(layer),
                      .v_cache = cache.values(layer),
                      .block_tables = inputs.block_tables,
                      .row_sequence = inputs.row_sequence,
                      .positions = inputs.positions};
  const AttentionOptions options = {.scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim)),
                                    .sliding_window = config.sliding_window};
  ops.PagedAttention(act.attended, act.q, kv, options);
  ops.Linear(act.hidden, AsRows(act.attended), weights.o, weights.o_bias, /*accumulate=*/true);
}

}  // namespace cadre
