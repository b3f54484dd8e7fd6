// One row of the router in the hands of one warp: from its logits to what its experts are worth.
#ifndef CADRE_KERNELS_CUDA_ROUTER_ROW_CUH_
#define CADRE_KERNELS_CUDA_ROUTER_ROW_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/ops.h"

namespace cadre::cuda {

inline constexpr int kNone = 0x7FFFFFFF;

// What one warp keeps of its row, in shared memory.
struct RouterRow {
  float* z;        // [E] logits, defined
  float* s;        // [E] scores
  float* c;        // [E] scores for selection
  float* groups;   // [num_groups] scores of groups
  uint8_t* taken;  // [E] experts that may not be chosen (any more)
  uint8_t* kept;   // [num_groups] groups that may be chosen from
};

__host__ __device__ inline size_t RouterRowBytes(int64_t num_experts, int64_t num_groups) {
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

// How many of `ids` [K] are experts.
__device__ __forceinline__ int NumChosen(const int32_t* ids, int top_k) {
  int count = 0;
  while (count < top_k && ids[count] != kPadding) ++count;
  return count;
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

__device__ __forceinline__ RouterRow RouterRowAt(unsigned char* memory, int num_experts, int num_groups) {
  float* const floats = reinterpret_cast<float*>(memory);
  uint8_t* const flags = reinterpret_cast<uint8_t*>(floats + 3 * num_experts + num_groups);
  return {floats, floats + num_experts, floats + 2 * num_experts, floats + 3 * num_experts, flags, flags + num_experts};
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

// row.s and row.c from row.z and p; row.taken = outside of the kept groups. `bias` may be null.
__device__ __forceinline__ void ScoreRow(const RouterRow& row, const float* p, const float* bias, int num_experts,
                                         const RouterOptions& options) {
  for (int e = Lane(); e < num_experts; e += kWarpSize) {
    const float s = options.score == RouterScore::kSoftmax   ? p[e]
                    : options.score == RouterScore::kSigmoid ? 1.0f / (1.0f + expf(-row.z[e]))
                                                             : row.z[e];
    row.s[e] = s;
    row.c[e] = row.z[e] == -INFINITY ? -INFINITY : Defined(s + (bias == nullptr ? 0.0f : bias[e]));
    row.taken[e] = 0;
  }
  __syncwarp();
  if (options.num_groups > 1) ExcludeLowGroups(row, num_experts, options);
}

// From s and z of the chosen experts to their weights, by one lane: K is small.
__device__ __forceinline__ void Weigh(float* weights, const int32_t* ids, const RouterRow& row,
                                      const RouterOptions& options) {
  const int top_k = static_cast<int>(options.top_k);
  const int count = NumChosen(ids, top_k);
  if (options.norm == WeightNorm::kSoftmax) {
    float largest = -INFINITY;
    for (int j = 0; j < count; ++j) largest = fmaxf(largest, row.z[ids[j]]);
    float sum = 0.0f;
    for (int j = 0; j < count; ++j) {
      weights[j] = largest == -INFINITY ? 0.0f : expf(row.z[ids[j]] - largest);
      sum += weights[j];
    }
    for (int j = 0; j < count && sum != 0.0f; ++j) weights[j] /= sum;
  } else if (options.norm == WeightNorm::kUniform) {
    for (int j = 0; j < count; ++j) weights[j] = 1.0f / static_cast<float>(count);
  } else {
    float sum = 0.0f;
    for (int j = 0; j < count; ++j) {
      weights[j] = row.s[ids[j]];
      sum += weights[j];
    }
    sum += options.norm_epsilon;
    const bool divides = options.norm == WeightNorm::kSum && sum != 0.0f;
    for (int j = 0; j < count && divides; ++j) weights[j] /= sum;
  }
  for (int j = 0; j < count; ++j) weights[j] *= options.scaling_factor;
  for (int j = count; j < top_k; ++j) weights[j] = 0.0f;
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_ROUTER_ROW_CUH_
