// Routing: the choice of experts, its statistics, and the grouping of assignments by expert.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_checks.h"

namespace cadre {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// A logit that is not a number counts as the lowest, and infinity as the largest finite value, so that routing and its
// statistics stay defined: a broken row must not poison the sums over all rows.
float Defined(float z) {
  if (std::isnan(z)) return kLowest;
  return std::min(z, std::numeric_limits<float>::max());
}

// p = softmax(z) and log(sum(exp(z))); zeros when every logit is -infinity.
float Softmax(float* p, const float* z, int64_t n) {
  const float largest = *std::max_element(z, z + n);
  if (largest == kLowest) {
    std::fill(p, p + n, 0.0f);
    return 0.0f;
  }
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    p[i] = std::exp(z[i] - largest);
    sum += p[i];
  }
  for (int64_t i = 0; i < n; ++i) p[i] = static_cast<float>(p[i] / sum);
  return static_cast<float>(static_cast<double>(largest) + std::log(sum));
}

float SumOf(const float* x, int64_t n) { return std::accumulate(x, x + n, 0.0f); }

// Index of the largest of `values` among those not `taken`; the lowest index wins ties.
int64_t BestFree(const float* values, const uint8_t* taken, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  return best;
}

float ScoreOfGroup(const float* c, int64_t size, GroupScore kind) {
  float first = kLowest;
  float second = kLowest;
  for (int64_t i = 0; i < size; ++i) {
    if (c[i] > first) {
      second = first;
      first = c[i];
    } else if (c[i] > second) {
      second = c[i];
    }
  }
  return kind == GroupScore::kMax || size == 1 ? first : first + second;
}

// Buffers for one row, [E] each.
struct RouterRow {
  float* z;        // logits, defined
  float* s;        // scores
  float* c;        // scores for selection
  float* groups;   // scores of groups
  uint8_t* taken;  // experts that may not be chosen (any more)
  uint8_t* kept;   // groups that may be chosen from
};

void ExcludeLowGroups(const RouterRow& row, int64_t num_experts, const RouterOptions& options) {
  const int64_t group_size = num_experts / options.num_groups;
  for (int64_t g = 0; g < options.num_groups; ++g) {
    row.groups[g] = ScoreOfGroup(row.c + g * group_size, group_size, options.group_score);
    row.kept[g] = 0;
  }
  for (int64_t i = 0; i < options.num_kept_groups; ++i) {
    row.kept[BestFree(row.groups, row.kept, options.num_groups)] = 1;
  }
  for (int64_t e = 0; e < num_experts; ++e) row.taken[e] = row.kept[e / group_size] ? 0 : 1;
}

// From s and z of the chosen experts to their weights.
void Weigh(float* weights, const int32_t* ids, const RouterRow& row, const RouterOptions& options) {
  const int64_t top_k = options.top_k;
  for (int64_t j = 0; j < top_k; ++j) weights[j] = options.norm == WeightNorm::kSoftmax ? row.z[ids[j]] : row.s[ids[j]];
  if (options.norm == WeightNorm::kSoftmax) {
    Softmax(weights, weights, top_k);
  } else if (options.norm == WeightNorm::kSum) {
    const float sum = SumOf(weights, top_k) + options.norm_epsilon;
    for (int64_t j = 0; j < top_k && sum != 0.0f; ++j) weights[j] /= sum;
  }
  for (int64_t j = 0; j < top_k; ++j) weights[j] *= options.scaling_factor;
}

}  // namespace

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
    for (int64_t e = 0; e < num_experts; ++e) row.z[e] = Defined(logit_data[t * num_experts + e]);
    lse_data[t] = Softmax(p, row.z, num_experts);
    for (int64_t e = 0; e < num_experts; ++e) {
      switch (options.score) {
        case RouterScore::kSoftmax:
          row.s[e] = p[e];
          break;
        case RouterScore::kSigmoid:
          row.s[e] = 1.0f / (1.0f + std::exp(-row.z[e]));
          break;
        case RouterScore::kIdentity:
          row.s[e] = row.z[e];
          break;
      }
      row.c[e] = row.z[e] == kLowest ? kLowest : Defined(row.s[e] + (bias == nullptr ? 0.0f : bias[e]));
      row.taken[e] = 0;
    }
    if (options.score == RouterScore::kSigmoid) {
      const float sum = SumOf(row.s, num_experts);
      for (int64_t e = 0; e < num_experts; ++e) p[e] = sum == 0.0f ? 0.0f : row.s[e] / sum;
    }
    if (options.num_groups > 1) ExcludeLowGroups(row, num_experts, options);
    int32_t* const ids = id_data + t * top_k;
    for (int64_t j = 0; j < top_k; ++j) {
      const int64_t best = BestFree(row.c, row.taken, num_experts);
      row.taken[best] = 1;
      ids[j] = static_cast<int32_t>(best);
    }
    Weigh(weight_data + t * top_k, ids, row, options);
  };

  constexpr int64_t kExpCost = 20;
  const int64_t row_cost = num_experts * (kExpCost + top_k);
  ForRowsOnThread(num_rows, row_cost, [&](int64_t t, int thread) {
    if (sequences != nullptr && sequences[t] == kPadding) return pad_row(t);
    float* const floats = reinterpret_cast<float*>(ThreadScratch(thread));
    uint8_t* const flags = reinterpret_cast<uint8_t*>(floats + 4 * num_experts);
    route_row(t, {floats, floats + num_experts, floats + 2 * num_experts, floats + 3 * num_experts, flags,
                  flags + num_experts});
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
  double* const probability = tally.probability.data<double>();
  for (int64_t t = 0; t < num_rows; ++t) {
    if (sequences[t] == kPadding) continue;
    CADRE_CHECK_GE(sequences[t], 0);
    CADRE_CHECK_LT(int64_t{sequences[t]}, tally.sequence_assignments.dim(0));
    sequence_assignments[sequences[t]] += top_k;
    for (int64_t a = t * top_k; a < (t + 1) * top_k; ++a) {
      CADRE_CHECK_GE(ids[a], 0);
      CADRE_CHECK_LT(int64_t{ids[a]}, num_experts);
      ++assignments[ids[a]];
      gate_weight[ids[a]] += static_cast<double>(w[a]);
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
