// What every implementation of a verb checks of its arguments' shapes, for the verbs with many of them.
#ifndef CADRE_KERNELS_OP_CHECKS_H_
#define CADRE_KERNELS_OP_CHECKS_H_

#include <cstdint>

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace cadre {

inline void CheckMlp(const Ops& ops, const MlpWeights& w, int64_t d) {
  const int64_t f = w.gate.dim(0);
  CADRE_CHECK(ops.can_multiply(w.gate.dtype()));
  CADRE_CHECK(w.gate.dtype() == w.up.dtype() && w.gate.dtype() == w.down.dtype());
  CADRE_CHECK(w.gate.shape() == Shape({f, d}));
  CADRE_CHECK(w.up.shape() == Shape({f, d}));
  CADRE_CHECK(w.down.shape() == Shape({d, f}));
}

inline void CheckRouteTopK(ConstView expert_ids, ConstView weights, ConstView probabilities, ConstView log_sum_exp,
                           ConstView logits, ConstView selection_bias, ConstView row_sequence,
                           const RouterOptions& options) {
  const int64_t num_rows = logits.dim(0);
  const int64_t num_experts = logits.dim(1);
  const int64_t top_k = options.top_k;
  CADRE_CHECK(expert_ids.shape() == Shape({num_rows, top_k}));
  CADRE_CHECK(weights.shape() == Shape({num_rows, top_k}));
  CADRE_CHECK(probabilities.shape() == Shape({num_rows, num_experts}));
  CADRE_CHECK(log_sum_exp.shape() == Shape({num_rows}));
  CADRE_CHECK(selection_bias.empty() || selection_bias.shape() == Shape({num_experts}));
  CADRE_CHECK(row_sequence.empty() || row_sequence.shape() == Shape({num_rows}));
  CADRE_CHECK_GE(top_k, int64_t{1});
  CADRE_CHECK_GE(options.num_groups, int64_t{1});
  CADRE_CHECK_EQ(num_experts % options.num_groups, int64_t{0});
  CADRE_CHECK_GE(options.num_kept_groups, int64_t{1});
  CADRE_CHECK_LE(options.num_kept_groups, options.num_groups);
  CADRE_CHECK_LE(top_k, num_experts / options.num_groups * options.num_kept_groups);
  CADRE_CHECK_GE(options.max_choice, int64_t{0});
  CADRE_CHECK_LE(options.max_choice, top_k);
  CADRE_CHECK_GE(options.min_k, int64_t{1});
  CADRE_CHECK_LE(options.min_k, top_k);
  CADRE_CHECK(!(options.top_p > 0.0f && options.threshold > 0.0f));
}

inline void CheckAddGateNoise(ConstView logits, ConstView seeds, ConstView row_sequence, ConstView positions,
                              int64_t layer) {
  const int64_t num_rows = logits.dim(0);
  CADRE_CHECK(seeds.dtype() == DType::kI32);
  CADRE_CHECK(seeds.shape() == Shape({seeds.dim(0), 2}));
  CADRE_CHECK(row_sequence.shape() == Shape({num_rows}));
  CADRE_CHECK(positions.shape() == Shape({num_rows}));
  CADRE_CHECK_GE(layer, int64_t{0});
}

inline void CheckHashLogits(ConstView logits, ConstView token_ids, int64_t layer) {
  CADRE_CHECK(token_ids.shape() == Shape({logits.dim(0)}));
  CADRE_CHECK_GE(layer, int64_t{0});
}

inline void CheckChooseByExpert(ConstView expert_ids, ConstView weights, ConstView probabilities,
                                ConstView row_sequence, ConstView positions, ConstView prompt_lengths,
                                const ExpertChoiceOptions& choice, const RouterOptions& options) {
  const int64_t num_rows = probabilities.dim(0);
  CADRE_CHECK(expert_ids.shape() == Shape({num_rows, options.top_k}));
  CADRE_CHECK(weights.shape() == expert_ids.shape());
  CADRE_CHECK(row_sequence.shape() == Shape({num_rows}));
  CADRE_CHECK(positions.shape() == Shape({num_rows}));
  CADRE_CHECK(prompt_lengths.shape() == Shape({prompt_lengths.dim(0)}));
  CADRE_CHECK_GE(choice.group, int64_t{1});
  CADRE_CHECK(choice.factor > 0.0);
}

inline void CheckReplayChoices(ConstView expert_ids, ConstView weights, ConstView logits, ConstView probabilities,
                               const RecordedChoices& recorded, const RouterOptions& options) {
  const int64_t num_rows = logits.dim(0);
  CADRE_CHECK(expert_ids.shape() == Shape({num_rows, options.top_k}));
  CADRE_CHECK(weights.shape() == expert_ids.shape());
  CADRE_CHECK(probabilities.shape() == logits.shape());
  CADRE_CHECK(recorded.modes.shape() == Shape({num_rows}));
  CADRE_CHECK(recorded.expert_ids.shape() == expert_ids.shape());
  CADRE_CHECK(recorded.weights.shape() == expert_ids.shape());
}

inline void CheckTallyRouting(const RoutingTally& tally, ConstView expert_ids, ConstView weights,
                              ConstView probabilities, ConstView log_sum_exp, ConstView row_sequence) {
  const int64_t num_rows = expert_ids.dim(0);
  const int64_t num_experts = probabilities.dim(1);
  CADRE_CHECK(weights.shape() == expert_ids.shape());
  CADRE_CHECK(probabilities.shape() == Shape({num_rows, num_experts}));
  CADRE_CHECK(log_sum_exp.shape() == Shape({num_rows}));
  CADRE_CHECK(row_sequence.shape() == Shape({num_rows}));
  CADRE_CHECK(tally.assignments.shape() == Shape({num_experts}));
  CADRE_CHECK(tally.gate_weight.shape() == Shape({num_experts}));
  CADRE_CHECK(tally.probability.shape() == Shape({num_experts}));
  CADRE_CHECK(tally.squared_log_sum_exp.shape() == Shape({1}));
  CADRE_CHECK(tally.row_assignments.shape() == Shape({1}));
  CADRE_CHECK(tally.sequence_gate_weight.shape() == tally.sequence_assignments.shape());
}

inline void CheckLimitCapacity(const LimitedRows& rows, ConstView taken, const CapacityTally& tally,
                               const CapacityInputs& inputs, ConstView logits, ConstView probabilities,
                               ConstView selection_bias, const RouterOptions& options) {
  const int64_t num_rows = logits.dim(0);
  const int64_t num_experts = logits.dim(1);
  const int64_t num_sequences = inputs.sequences.dim(0);
  CADRE_CHECK(rows.expert_ids.shape() == Shape({num_rows, options.top_k}));
  CADRE_CHECK(rows.weights.shape() == rows.expert_ids.shape());
  CADRE_CHECK(rows.states.shape() == rows.expert_ids.shape());
  CADRE_CHECK_EQ(rows.expert_outputs.dim(0), num_rows * options.top_k);
  CADRE_CHECK_EQ(taken.dim(1), num_experts);
  CADRE_CHECK(probabilities.shape() == logits.shape());
  CADRE_CHECK(selection_bias.empty() || selection_bias.shape() == Shape({num_experts}));
  CADRE_CHECK(inputs.sequences.shape() == Shape({num_sequences, kSequenceCapacityWords}));
  CADRE_CHECK(inputs.row_sequence.shape() == Shape({num_rows}));
  CADRE_CHECK(inputs.positions.shape() == Shape({num_rows}));
  CADRE_CHECK(tally.states.shape() == Shape({kNumAssignmentStates, num_experts}));
  CADRE_CHECK(tally.lost_gate_weight.shape() == Shape({num_experts}));
  CADRE_CHECK(tally.sequence_states.shape() == Shape({num_sequences, kNumAssignmentStates}));
  CADRE_CHECK(tally.sequence_lost_gate_weight.shape() == Shape({num_sequences}));
}

}  // namespace cadre

#endif  // CADRE_KERNELS_OP_CHECKS_H_
