// ChooseByExpert: experts take the rows of a prompt's group that they fit best.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/router_row.h"
#include "kernels/op_checks.h"

namespace cadre {
namespace {

// The rows [first, first + count) of one group.
struct Group {
  int64_t first;
  int64_t count;
};

// Rows that each expert takes of `count`.
int64_t PlacesOf(const ExpertChoiceOptions& choice, int64_t count, int64_t num_experts) {
  const double share = std::ceil(choice.factor * static_cast<double>(count) / static_cast<double>(num_experts));
  return share >= static_cast<double>(count) ? count : std::max<int64_t>(1, static_cast<int64_t>(share));
}

// Whether fewer than `places` rows of the group come before row t for expert e.
bool IsTaken(const float* p, int64_t num_experts, const Group& group, int64_t t, int64_t e, int64_t places) {
  const float own = p[t * num_experts + e];
  int64_t rank = 0;
  for (int64_t i = group.first; i < group.first + group.count; ++i) {
    const float other = p[i * num_experts + e];
    if (other > own || (other == own && i < t)) ++rank;
  }
  return rank < places;
}

}  // namespace

void CpuOps::ChooseByExpert(View expert_ids, View weights, ConstView probabilities, ConstView row_sequence,
                            ConstView positions, ConstView prompt_lengths, const ExpertChoiceOptions& choice,
                            const RouterOptions& options) {
  CheckChooseByExpert(expert_ids, weights, probabilities, row_sequence, positions, prompt_lengths, choice, options);
  const int64_t num_rows = probabilities.dim(0);
  const int64_t num_experts = probabilities.dim(1);
  CADRE_CHECK_LE(num_experts, limits_.num_experts);
  const int64_t num_sequences = prompt_lengths.dim(0);
  const int32_t* const sequences = row_sequence.data<int32_t>();
  const int32_t* const position_data = positions.data<int32_t>();
  const int32_t* const lengths = prompt_lengths.data<int32_t>();
  const float* const p = probabilities.data<float>();
  int32_t* const id_data = expert_ids.data<int32_t>();
  float* const weight_data = weights.data<float>();

  // Nothing where the row is not of a prompt.
  const auto group_of = [&](int64_t t) -> Group {
    if (sequences[t] == kPadding) return {t, 0};
    CADRE_CHECK_GE(sequences[t], 0);
    CADRE_CHECK_LT(int64_t{sequences[t]}, num_sequences);
    const int64_t length = lengths[sequences[t]];
    const int64_t position = position_data[t];
    if (position >= length) return {t, 0};
    const int64_t begin = position / choice.group * choice.group;
    const Group group = {t - (position - begin), std::min(choice.group, length - begin)};
    CADRE_CHECK_GE(group.first, int64_t{0});
    CADRE_CHECK_LE(group.first + group.count, num_rows);
    CADRE_CHECK(sequences[group.first] == sequences[t] && sequences[group.first + group.count - 1] == sequences[t]);
    CADRE_CHECK_EQ(int64_t{position_data[group.first]}, begin);
    return group;
  };

  ForRowsOnThread(num_rows, num_experts * choice.group, [&](int64_t t, int thread) {
    const Group group = group_of(t);
    if (group.count == 0) return;
    const RouterRow row = RouterRowAt(ThreadScratch(thread), num_experts);
    const int64_t places = PlacesOf(choice, group.count, num_experts);
    for (int64_t e = 0; e < num_experts; ++e) {
      row.taken[e] = IsTaken(p, num_experts, group, t, e, places) ? 0 : 1;
    }
    int32_t* const ids = id_data + t * options.top_k;
    float* const own_weights = weight_data + t * options.top_k;
    std::fill_n(ids, options.top_k, kPadding);
    std::fill_n(own_weights, options.top_k, 0.0f);
    for (int64_t j = 0; j < options.top_k; ++j) {
      const int64_t best = BestFree(p + t * num_experts, row.taken, num_experts);
      if (best < 0) break;
      row.taken[best] = 1;
      ids[j] = static_cast<int32_t>(best);
      own_weights[j] = p[t * num_experts + best] * options.scaling_factor;
    }
  });
}

}  // namespace cadre
