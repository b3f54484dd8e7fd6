// What every implementation of a verb checks of its arguments' shapes, for the verbs with many of them.
#ifndef CADRE_KERNELS_OP_CHECKS_H_
#define CADRE_KERNELS_OP_CHECKS_H_

#include <cstdint>

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace cadre {

constexpr bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }

inline void CheckMlp(const MlpWeights& w, int64_t d) {
  const int64_t f = w.gate.dim(0);
  CADRE_CHECK(IsFloat(w.gate.dtype()));
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
}

}  // namespace cadre

#endif  // CADRE_KERNELS_OP_CHECKS_H_
