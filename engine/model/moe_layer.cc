#include "engine/model/moe_layer.h"

#include "engine/base/status_macros.h"

namespace cadre {
namespace {

void LimitExperts(Ops& ops, const ModelConfig& config, const LayerRouting& routing, const LayerCapacity& capacity,
                  const Activations& act) {
  const LimitedRows rows = {.expert_ids = act.expert_ids,
                            .weights = act.routing_weights,
                            .states = act.assignment_states,
                            .expert_outputs = act.expert_outputs};
  ops.LimitCapacity(rows, capacity.taken, capacity.tally, capacity.inputs, act.router_logits, act.probabilities,
                    routing.selection_bias, config.router);
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

void ChooseExperts(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const LayerRouting& routing,
                   const RoutingTally& tally, const Activations& act) {
  ops.RmsNorm(act.normed, act.hidden, weights.ffn_norm, config.rms_norm_eps);
  ComputeGate(ops, config, weights, routing, act.normed, act.router_logits);
  ops.RouteTopK(act.expert_ids, act.routing_weights, act.probabilities, act.log_sum_exp, act.router_logits,
                routing.selection_bias, routing.row_sequence, config.router);
  if (config.routing.expert_choice.group > 0) {
    ops.ChooseByExpert(act.expert_ids, act.routing_weights, act.probabilities, routing.row_sequence, routing.positions,
                       routing.prompt_lengths, config.routing.expert_choice, config.router);
  }
  if (!routing.recorded.modes.empty()) {
    ops.ReplayChoices(act.expert_ids, act.routing_weights, act.router_logits, act.probabilities, routing.recorded,
                      config.router);
  }
  // Before anything is computed, so that no assignment can be lost uncounted.
  ops.TallyRouting(tally, act.expert_ids, act.routing_weights, act.probabilities, act.log_sum_exp,
                   routing.row_sequence);
}

absl::Status MixExperts(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const LayerRouting& routing,
                        const std::optional<LayerCapacity>& capacity, CachedExperts* cached, const Activations& act) {
  if (capacity) {
    if (cached != nullptr) cached->NoteWeights(act);
    LimitExperts(ops, config, routing, *capacity, act);
  }
  ops.GroupByExpert(act.order, act.offsets, act.expert_ids);
  if (cached == nullptr) {
    ops.ExpertFfn(act.expert_outputs, act.normed, act.order, act.offsets, weights.experts);
  } else {
    CADRE_RETURN_IF_ERROR(cached->ExpertFfn(routing.moe_layer, routing.row_sequence, capacity.has_value(), act));
  }
  ops.Combine(act.hidden, act.expert_outputs, act.routing_weights);
  if (config.shared_expert_ffn_size > 0) AddSharedExpert(ops, weights, act);
  return absl::OkStatus();
}

void ApplyDenseMlp(Ops& ops, const ModelConfig& config, const LayerWeights& weights, const Activations& act) {
  ops.RmsNorm(act.normed, act.hidden, weights.ffn_norm, config.rms_norm_eps);
  ops.GatedMlp(act.mlp_output, act.normed, weights.dense);
  ops.AddGated(act.hidden, act.mlp_output, /*gate_logits=*/{});
}

}  // namespace cadre
