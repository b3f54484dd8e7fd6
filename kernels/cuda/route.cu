// RouteTopK: the choice of experts. One warp for each row.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/router_row.cuh"

namespace cadre::cuda {
namespace {

constexpr int kRouteWarps = 4;

struct RouteTensors {
  int32_t* expert_ids;          // [T, K]
  float* weights;               // [T, K]
  float* probabilities;         // [T, E]
  float* log_sum_exp;           // [T]
  const float* logits;          // [T, E]
  const float* bias;            // [E], or null
  const int32_t* row_sequence;  // [T], or null
  int num_rows;
  int num_experts;
};

// p = softmax(z); returns log(sum(exp(z))). Zeros when every logit is -infinity. p[e] and z[e] are lane e % 32's own.
__device__ __forceinline__ float Softmax(float* p, const float* z, int n) {
  float largest = -INFINITY;
  for (int i = Lane(); i < n; i += kWarpSize) largest = fmaxf(largest, z[i]);
  largest = WarpMax(largest);
  const bool is_empty = largest == -INFINITY;
  float sum = 0.0f;
  for (int i = Lane(); i < n; i += kWarpSize) {
    p[i] = is_empty ? 0.0f : expf(z[i] - largest);
    sum += p[i];
  }
  sum = WarpSum(sum);
  if (is_empty) return 0.0f;
  for (int i = Lane(); i < n; i += kWarpSize) p[i] /= sum;
  return largest + logf(sum);
}

// With sigmoid scores, the gate distribution for statistics is their share.
__device__ __forceinline__ void ShareScores(const RouterRow& row, float* p, int num_experts) {
  float sum = 0.0f;
  for (int e = Lane(); e < num_experts; e += kWarpSize) sum += row.s[e];
  sum = WarpSum(sum);
  for (int e = Lane(); e < num_experts; e += kWarpSize) p[e] = sum == 0.0f ? 0.0f : row.s[e] / sum;
  __syncwarp();
}

// What stands where a row of padding would choose.
__device__ __forceinline__ void PadRow(const RouteTensors& t, int64_t index, int top_k) {
  for (int j = Lane(); j < top_k; j += kWarpSize) {
    t.expert_ids[index * top_k + j] = kPadding;
    t.weights[index * top_k + j] = 0.0f;
  }
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) t.probabilities[index * t.num_experts + e] = 0.0f;
  if (Lane() == 0) t.log_sum_exp[index] = 0.0f;
}

__global__ void __launch_bounds__(kRouteWarps* kWarpSize)
    RouteTopKKernel(RouteTensors t, RouterOptions options, int row_bytes) {
  CADRE_DYNAMIC_SHARED(unsigned char, scratch);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kRouteWarps + warp;
  if (index >= t.num_rows) return;
  const int num_experts = t.num_experts;
  const int num_groups = static_cast<int>(options.num_groups);
  if (t.row_sequence != nullptr && t.row_sequence[index] == kPadding)
    return PadRow(t, index, static_cast<int>(options.top_k));
  const RouterRow row = RouterRowAt(scratch + warp * row_bytes, num_experts, num_groups);

  const float* const logits = t.logits + index * num_experts;
  float* const p = t.probabilities + index * num_experts;
  for (int e = Lane(); e < num_experts; e += kWarpSize) row.z[e] = Defined(logits[e]);
  const float log_sum_exp = Softmax(p, row.z, num_experts);
  if (Lane() == 0) t.log_sum_exp[index] = log_sum_exp;
  ScoreRow(row, p, t.bias, num_experts, options);
  if (options.score == RouterScore::kSigmoid) ShareScores(row, p, num_experts);

  int32_t* const ids = t.expert_ids + index * options.top_k;
  float sum = 0.0f;
  const int most = static_cast<int>(options.max_choice > 0 ? options.max_choice : options.top_k);
  for (int j = 0; j < static_cast<int>(options.top_k); ++j) {
    const bool has_fewest = j >= static_cast<int>(options.min_k);
    const bool is_full = j >= most || (options.top_p > 0.0f && has_fewest && sum >= options.top_p);
    const int best = is_full ? kNone : BestFree(row.c, row.taken, num_experts);
    if (is_full || (has_fewest && p[best] < options.threshold)) {
      for (int rest = j + Lane(); rest < static_cast<int>(options.top_k); rest += kWarpSize) ids[rest] = kPadding;
      __syncwarp();
      break;
    }
    if (options.top_p > 0.0f) sum += p[best];
    __syncwarp();
    if (Lane() == 0) {
      row.taken[best] = 1;
      ids[j] = best;
    }
    __syncwarp();
  }
  if (Lane() == 0) Weigh(t.weights + index * options.top_k, ids, row, options);
}

}  // namespace

size_t RouteTopKSharedBytes(int64_t num_experts, int64_t num_groups) {
  return kRouteWarps * RouterRowBytes(num_experts, num_groups);
}

cudaError_t LaunchRouteTopK(cudaStream_t stream, View expert_ids, View weights, View probabilities, View log_sum_exp,
                            ConstView logits, ConstView selection_bias, ConstView row_sequence,
                            const RouterOptions& options) {
  const RouteTensors tensors = {.expert_ids = Data<int32_t>(expert_ids),
                                .weights = Data<float>(weights),
                                .probabilities = Data<float>(probabilities),
                                .log_sum_exp = Data<float>(log_sum_exp),
                                .logits = Data<float>(logits),
                                .bias = Data<float>(selection_bias),
                                .row_sequence = Data<int32_t>(row_sequence),
                                .num_rows = static_cast<int>(logits.dim(0)),
                                .num_experts = static_cast<int>(logits.dim(1))};
  const Grid grid = {.blocks = dim3(CeilDiv(logits.dim(0), kRouteWarps)),
                     .threads = dim3(kRouteWarps * kWarpSize),
                     .shared_bytes = RouteTopKSharedBytes(logits.dim(1), options.num_groups)};
  return Launch(stream, grid, RouteTopKKernel, tensors, options,
                static_cast<int>(RouterRowBytes(logits.dim(1), options.num_groups)));
}

}  // namespace cadre::cuda
