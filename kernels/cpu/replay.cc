// ReplayChoices: recorded choices of experts in the place of the router's.
#include <algorithm>
#include <cstdint>

#include "kernels/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/router_row.h"
#include "kernels/op_checks.h"

namespace cadre {

void CpuOps::ReplayChoices(View expert_ids, View weights, ConstView logits, ConstView probabilities,
                           const RecordedChoices& recorded, const RouterOptions& options) {
  CheckReplayChoices(expert_ids, weights, logits, probabilities, recorded, options);
  const int64_t num_experts = logits.dim(1);
  const int64_t top_k = options.top_k;
  CADRE_CHECK_LE(num_experts, limits_.num_experts);
  const int32_t* const modes = recorded.modes.data<int32_t>();
  const int32_t* const recorded_ids = recorded.expert_ids.data<int32_t>();
  const float* const recorded_weights = recorded.weights.data<float>();
  const float* const z = logits.data<float>();
  const float* const p = probabilities.data<float>();
  int32_t* const id_data = expert_ids.data<int32_t>();
  float* const weight_data = weights.data<float>();
  // Groups and bias decide who is chosen, and have no part in weights.
  RouterOptions weighing = options;
  weighing.num_groups = 1;

  constexpr int64_t kExpCost = 20;
  ForRowsOnThread(logits.dim(0), num_experts * kExpCost, [&](int64_t t, int thread) {
    const auto mode = static_cast<RowReplay>(modes[t]);
    if (mode == RowReplay::kNone) return;
    int32_t* const ids = id_data + t * top_k;
    float* const own_weights = weight_data + t * top_k;
    std::copy_n(recorded_ids + t * top_k, top_k, ids);
    const int64_t count = NumChosen(ids, options);
    for (int64_t j = 0; j < top_k; ++j) {
      CADRE_CHECK_EQ(ids[j] == kPadding, j >= count);
      if (j < count) CADRE_CHECK(ids[j] >= 0 && int64_t{ids[j]} < num_experts);
    }
    if (mode == RowReplay::kRecordedWeights) {
      std::copy_n(recorded_weights + t * top_k, top_k, own_weights);
      return;
    }
    CADRE_CHECK(mode == RowReplay::kRouterWeights);
    const RouterRow row = RouterRowAt(ThreadScratch(thread), num_experts);
    DefineLogits(row, z + t * num_experts, num_experts);
    ScoreRow(row, p + t * num_experts, /*bias=*/nullptr, num_experts, weighing);
    WeighChoice(own_weights, ids, row, options);
  });
}

}  // namespace cadre
