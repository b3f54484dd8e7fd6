// RouteTopK: the choice of experts. One warp for each row.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kRouteWarps = 4;
constexpr int kNone = 0x7FFFFFFF;

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

// What one warp keeps of its row, in shared memory.
struct RouterRow {
  float* z;        // [E] logits, defined
  float* s;        // [E] scores
  float* c;        // [E] scores for selection
  float* groups;   // [num_groups] scores of groups
  uint8_t* taken;  // [E] experts that may not be chosen (any more)
  uint8_t* kept;   // [num_groups] groups that may be chosen from
};

size_t RowBytes(int64_t num_experts, int64_t num_groups) {
  const size_t bytes =
      static_cast<size_t>(3 * num_experts + num_groups) * sizeof(float) + static_cast<size_t>(num_experts + num_groups);
  return (bytes + 15) / 16 * 16;
}

__device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }

// A logit that is not a number counts as the lowest, and infinity as the largest finite value, so that routing and its
// statistics stay defined: a broken row must not poison the sums over all rows.
__device__ __forceinline__ float Defined(float z) {
  constexpr float kLargest = 3.402823466e38f;
  if (z != z) return -INFINITY;
  return z < kLargest ? z : kLargest;
}

// Index of the largest of `values` among those not `taken`; the lowest index wins ties. The same in every lane.
__device__ __forceinline__ int BestFree(const float* values, const uint8_t* taken, int n) {
  float best = -INFINITY;
  int best_index = kNone;
  for (int i = Lane(); i < n; i += kWarpSize) {
    if (!taken[i] && (best_index == kNone || values[i] > best)) {
      best = values[i];
      best_index = i;
    }
  }
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, best, offset);
    const int other_index = __shfl_xor_sync(kAllLanes, best_index, offset);
    const bool is_better =
        other_index != kNone && (best_index == kNone || other > best || (other == best && other_index < best_index));
    if (is_better) {
      best = other;
      best_index = other_index;
    }
  }
  return best_index;
}

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

__device__ __forceinline__ float ScoreOfGroup(const float* c, int size, GroupScore kind) {
  float first = -INFINITY;
  float second = -INFINITY;
  for (int i = 0; i < size; ++i) {
    if (c[i] > first) {
      second = first;
      first = c[i];
    } else if (c[i] > second) {
      second = c[i];
    }
  }
  return kind == GroupScore::kMax || size == 1 ? first : first + second;
}

__device__ __forceinline__ void ExcludeLowGroups(const RouterRow& row, int num_experts, const RouterOptions& options) {
  const int num_groups = static_cast<int>(options.num_groups);
  const int group_size = num_experts / num_groups;
  for (int g = Lane(); g < num_groups; g += kWarpSize) {
    row.groups[g] = ScoreOfGroup(row.c + g * group_size, group_size, options.group_score);
    row.kept[g] = 0;
  }
  __syncwarp();
  for (int i = 0; i < static_cast<int>(options.num_kept_groups); ++i) {
    const int best = BestFree(row.groups, row.kept, num_groups);
    __syncwarp();
    if (Lane() == 0) row.kept[best] = 1;
    __syncwarp();
  }
  for (int e = Lane(); e < num_experts; e += kWarpSize) row.taken[e] = row.kept[e / group_size] ? 0 : 1;
  __syncwarp();
}

// From s and z of the chosen experts to their weights, by one lane: K is small.
__device__ __forceinline__ void Weigh(float* weights, const int32_t* ids, const RouterRow& row,
                                      const RouterOptions& options) {
  const int top_k = static_cast<int>(options.top_k);
  if (options.norm == WeightNorm::kSoftmax) {
    float largest = -INFINITY;
    for (int j = 0; j < top_k; ++j) largest = fmaxf(largest, row.z[ids[j]]);
    float sum = 0.0f;
    for (int j = 0; j < top_k; ++j) {
      weights[j] = largest == -INFINITY ? 0.0f : expf(row.z[ids[j]] - largest);
      sum += weights[j];
    }
    for (int j = 0; j < top_k && sum != 0.0f; ++j) weights[j] /= sum;
  } else {
    float sum = 0.0f;
    for (int j = 0; j < top_k; ++j) {
      weights[j] = row.s[ids[j]];
      sum += weights[j];
    }
    sum += options.norm_epsilon;
    const bool divides = options.norm == WeightNorm::kSum && sum != 0.0f;
    for (int j = 0; j < top_k && divides; ++j) weights[j] /= sum;
  }
  for (int j = 0; j < top_k; ++j) weights[j] *= options.scaling_factor;
}

__device__ __forceinline__ void Score(const RouteTensors& t, const RouterRow& row, float* p, RouterScore score) {
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) {
    const float s = score == RouterScore::kSoftmax   ? p[e]
                    : score == RouterScore::kSigmoid ? 1.0f / (1.0f + expf(-row.z[e]))
                                                     : row.z[e];
    row.s[e] = s;
    row.c[e] = row.z[e] == -INFINITY ? -INFINITY : Defined(s + (t.bias == nullptr ? 0.0f : t.bias[e]));
    row.taken[e] = 0;
  }
  if (score != RouterScore::kSigmoid) return;
  float sum = 0.0f;
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) sum += row.s[e];
  sum = WarpSum(sum);
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) p[e] = sum == 0.0f ? 0.0f : row.s[e] / sum;
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
  float* const floats = reinterpret_cast<float*>(scratch + warp * row_bytes);
  uint8_t* const flags = reinterpret_cast<uint8_t*>(floats + 3 * num_experts + num_groups);
  const RouterRow row = {floats, floats + num_experts, floats + 2 * num_experts, floats + 3 * num_experts,
                         flags,  flags + num_experts};

  const float* const logits = t.logits + index * num_experts;
  float* const p = t.probabilities + index * num_experts;
  for (int e = Lane(); e < num_experts; e += kWarpSize) row.z[e] = Defined(logits[e]);
  const float log_sum_exp = Softmax(p, row.z, num_experts);
  if (Lane() == 0) t.log_sum_exp[index] = log_sum_exp;
  Score(t, row, p, options.score);
  __syncwarp();
  if (num_groups > 1) ExcludeLowGroups(row, num_experts, options);

  int32_t* const ids = t.expert_ids + index * options.top_k;
  for (int j = 0; j < static_cast<int>(options.top_k); ++j) {
    const int best = BestFree(row.c, row.taken, num_experts);
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
  return kRouteWarps * RowBytes(num_experts, num_groups);
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
                static_cast<int>(RowBytes(logits.dim(1), options.num_groups)));
}

}  // namespace cadre::cuda
