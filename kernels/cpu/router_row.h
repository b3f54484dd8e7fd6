// One row of the router: from its logits to what its experts are worth.
#ifndef CADRE_KERNELS_CPU_ROUTER_ROW_H_
#define CADRE_KERNELS_CPU_ROUTER_ROW_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/ops.h"

namespace cadre {

// Of an expert that must not be chosen while there is another.
inline constexpr float kLowestScore = -std::numeric_limits<float>::infinity();

// Buffers for one row, [E] each.
struct RouterRow {
  float* z;        // logits, defined
  float* s;        // scores
  float* c;        // scores for selection
  float* groups;   // scores of groups
  uint8_t* taken;  // experts that may not be chosen (any more)
  uint8_t* kept;   // groups that may be chosen from
};
constexpr int64_t RouterRowBytes(int64_t num_experts) {
  return num_experts * static_cast<int64_t>(4 * sizeof(float) + 2);
}
// `memory` has RouterRowBytes(num_experts), aligned for float.
RouterRow RouterRowAt(std::byte* memory, int64_t num_experts);

// row.z = the logits, p = softmax(z). Returns log(sum(exp(z))). A logit that is not a number counts as the lowest, and
// infinity as the largest finite value, so that routing and its statistics stay defined.
float SoftmaxOfRow(const RouterRow& row, float* p, const float* logits, int64_t num_experts);
// row.z = the logits, as above.
void DefineLogits(const RouterRow& row, const float* logits, int64_t num_experts);
// row.s and row.c from row.z and p; row.taken = outside of the kept groups. `bias` [E] may be null.
void ScoreRow(const RouterRow& row, const float* p, const float* bias, int64_t num_experts,
              const RouterOptions& options);
// Index of the largest of `values` among those not `taken`, or -1; the lowest index wins ties.
int64_t BestFree(const float* values, const uint8_t* taken, int64_t n);
// The best experts by row.c, at most K and as many as options.top_p or options.threshold asks for; kPadding behind
// them. Takes them in row.taken, and returns their number.
int64_t ChooseExperts(int32_t* ids, const RouterRow& row, const float* p, int64_t num_experts,
                      const RouterOptions& options);
// How many of `ids` [K] are experts.
int64_t NumChosen(const int32_t* ids, const RouterOptions& options);
// The weights of the chosen experts `ids` [K], from row.s and row.z; 0 behind them.
void WeighChoice(float* weights, const int32_t* ids, const RouterRow& row, const RouterOptions& options);
// The weight that expert e would have beside the choice `ids` [K]: normalized by the same sum.
float WeighBeside(int64_t e, const int32_t* ids, const RouterRow& row, const RouterOptions& options);

float SumOf(const float* x, int64_t n);

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_ROUTER_ROW_H_
