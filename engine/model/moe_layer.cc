#include "engine/model/moe_layer.h"

namespace cadre {
namespace {

// Who goes where, and how much; counted before anything is computed, so that no assignment can be lost uncounted.
void Route(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const ConstView& row_sequence,
           const RoutingTally& tally, const Activations& act) {
  // The gate runs in the weights' dtype, as the four families were trained; only its softmax is float32.
  ops.Linear(act.router_logits, act.normed, weights.router, /*bias=*/{}, /*accumulate=*/false);
  ops.RouteTopK(act.expert_ids, act.routing_weights, act.probabilities, act.log_sum_exp, act.router_logits,
                /*selection_bias=*/{}, row_sequence, config.router);
  ops.TallyRouting(tally, act.expert_ids, act.routing_weights, act.probabilities, act.log_sum_exp, row_sequence);
}

void AddSharedExpert(Ops& ops, const LayerWeights& weights, const Activations& act) {
  ops.GatedMlp(act.mlp_output, act.normed, weights.shared_expert);
  ConstView gate_logits;
  if (!weights.shared_expert_gate.empty()) {
    ops.Linear(act.shared_gate_logits, act.normed, weights.shared_expert_gate, /*bias=*/{}, /*accumulate=*/false);
    gate_logits = act.shared_gate_logits;
  }
  ops.AddGated(act.hidden, act.mlp_output, gate_logits);
}

}  // namespace

void MixExperts(Ops& ops, const ModelConfig& config, const LayerWeights& weights, ConstView row_sequence,
                const RoutingTally& tally, const Activations& act) {
  ops.RmsNorm(act.normed, act.hidden, weights.ffn_norm, config.rms_norm_eps);
  Route(ops, config, weights, row_sequence, tally, act);
  ops.GroupByExpert(act.order, act.offsets, act.expert_ids);
  ops.ExpertFfn(act.expert_outputs, act.normed, act.order, act.offsets, weights.experts);
  ops.Combine(act.hidden, act.expert_outputs, act.routing_weights);
  if (config.shared_expert_ffn_size > 0) AddSharedExpert(ops, weights, act);
}

void ApplyDenseMlp(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const Activations& act) {
  ops.RmsNorm(act.normed, act.hidden, weights.ffn_norm, config.rms_norm_eps);
  ops.GatedMlp(act.mlp_output, act.normed, weights.dense);
  ops.AddGated(act.hidden, act.mlp_output, /*gate_logits=*/{});
}

}  // namespace cadre
