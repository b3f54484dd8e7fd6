// Routing: the choice of experts, its statistics, and the grouping of assignments by expert.
#include <algorithm>
#include <cstdint>
#include <numeric>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/router_row.h"
#include "kernels/op_checks.h"

namespace cadre {

void CpuOps::RouteTopK(View expert_ids, View weights, View probabilities, View log_sum_exp, ConstView logits,
                       ConstView selection_bias, ConstView row_sequence, const RouterOptions& options) {
  const int64_t num_rows = logits.dim(0);
  const int64_t num_experts = logits.dim(1);
  const int64_t top_k = options.top_k;
  CheckRouteTopK(expert_ids, weights, probabilities, log_sum_exp, logits, selection_bias, row_sequence, options);
  CADRE_CHECK_LE(num_experts, limits_.num_experts);
  int32_t* const id_data = expert_ids.data<int32_t>();
  float* const weight_data = weights.data<float>();
  float* const probability_data = probabilities.data<float>();
  float* const lse_data = log_sum_exp.data<float>();
  const float* const logit_data = logits.data<float>();
  const float* const bias = selection_bias.empty() ? nullptr : selection_bias.data<float>();
  const int32_t* const sequences = row_sequence.empty() ? nullptr : row_sequence.data<int32_t>();

  const auto pad_row = [&](int64_t t) {
    std::fill_n(id_data + t * top_k, top_k, kPadding);
    std::fill_n(weight_data + t * top_k, top_k, 0.0f);
    std::fill_n(probability_data + t * num_experts, num_experts, 0.0f);
    lse_data[t] = 0.0f;
  };

  const auto route_row = [&](int64_t t, const RouterRow& row) {
    float* const p = probability_data + t * num_experts;
    lse_data[t] = SoftmaxOfRow(row, p, logit_data + t * num_experts, num_experts);
    ScoreRow(row, p, bias, num_experts, options);
    if (options.score == RouterScore::kSigmoid) {
      const float sum = SumOf(row.s, num_experts);
      for (int64_t e = 0; e < num_experts; ++e) p[e] = sum == 0.0f ? 0.0f : row.s[e] / sum;
    }
    int32_t* const ids = id_data + t * top_k;
    ChooseExperts(ids, row, p, num_experts, options);
    WeighChoice(weight_data + t * top_k, ids, row, options);
  };

  constexpr int64_t kExpCost = 20;
  const int64_t row_cost = num_experts * (kExpCost + top_k);
  ForRowsOnThread(num_rows, row_cost, [&](int64_t t, int thread) {
    if (sequences != nullptr && sequences[t] == kPadding) return pad_row(t);
    route_row(t, RouterRowAt(ThreadScratch(thread), num_experts));
  });
}

void CpuOps::TallyRouting(const RoutingTally& tally, ConstView expert_ids, ConstView weights, ConstView probabilities,
                          ConstView log_sum_exp, ConstView row_sequence) {
  const int64_t num_rows = expert_ids.dim(0);
  const int64_t top_k = expert_ids.dim(1);
  const int64_t num_experts = probabilities.dim(1);
  CheckTallyRouting(tally, expert_ids, weights, probabilities, log_sum_exp, row_sequence);
  const int32_t* const ids = expert_ids.data<int32_t>();
  const int32_t* const sequences = row_sequence.data<int32_t>();
  const float* const lse = log_sum_exp.data<float>();
  const float* const w = weights.data<float>();
  const float* const p = probabilities.data<float>();
  int64_t* const assignments = tally.assignments.data<int64_t>();
  int64_t* const sequence_assignments = tally.sequence_assignments.data<int64_t>();
  double* const gate_weight = tally.gate_weight.data<double>();
  double* const sequence_gate_weight = tally.sequence_gate_weight.data<double>();
  double* const probability = tally.probability.data<double>();
  for (int64_t t = 0; t < num_rows; ++t) {
    if (sequences[t] == kPadding) continue;
    CADRE_CHECK_GE(sequences[t], 0);
    CADRE_CHECK_LT(int64_t{sequences[t]}, tally.sequence_assignments.dim(0));
    const int64_t count =
        std::count_if(ids + t * top_k, ids + (t + 1) * top_k, [](int32_t id) { return id != kPadding; });
    sequence_assignments[sequences[t]] += count;
    tally.row_assignments.data<int64_t>()[0] += count;
    for (int64_t a = t * top_k; a < (t + 1) * top_k; ++a) {
      if (ids[a] == kPadding) continue;
      CADRE_CHECK_GE(ids[a], 0);
      CADRE_CHECK_LT(int64_t{ids[a]}, num_experts);
      ++assignments[ids[a]];
      gate_weight[ids[a]] += static_cast<double>(w[a]);
      sequence_gate_weight[sequences[t]] += static_cast<double>(w[a]);
    }
    for (int64_t e = 0; e < num_experts; ++e) probability[e] += static_cast<double>(p[t * num_experts + e]);
    tally.squared_log_sum_exp.data<double>()[0] += static_cast<double>(lse[t]) * static_cast<double>(lse[t]);
  }
}

void CpuOps::GroupByExpert(View order, View offsets, ConstView expert_ids) {
  const int64_t num_assignments = expert_ids.num_elements();
  const int64_t num_experts = offsets.dim(0) - 1;
  CADRE_CHECK(order.shape() == Shape({num_assignments}));
  CADRE_CHECK_LE(num_experts, limits_.num_experts);
  const int32_t* const ids = expert_ids.data<int32_t>();
  int32_t* const order_data = order.data<int32_t>();
  int32_t* const begins = offsets.data<int32_t>();
  // A counting sort: count into offsets[e + 1], sum up, then let next_slot walk through each expert's range.
  std::fill(begins, begins + num_experts + 1, 0);
  for (int64_t a = 0; a < num_assignments; ++a) {
    if (ids[a] == kPadding) continue;
    CADRE_CHECK_GE(ids[a], 0);
    CADRE_CHECK_LT(int64_t{ids[a]}, num_experts);
    ++begins[ids[a] + 1];
  }
  std::partial_sum(begins, begins + num_experts + 1, begins);
  int32_t* const next_slot = reinterpret_cast<int32_t*>(ThreadScratch(0));
  std::copy(begins, begins + num_experts, next_slot);
  for (int64_t a = 0; a < num_assignments; ++a) {
    if (ids[a] != kPadding) order_data[next_slot[ids[a]]++] = static_cast<int32_t>(a);
  }
}

}  // namespace cadre
