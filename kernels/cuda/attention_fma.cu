// PagedAttention by FMA, one warp for each row and head: whatever the tensor cores do not take.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kAttentionWarps = 4;
constexpr int kAttentionThreads = kAttentionWarps * kWarpSize;
constexpr int kMaxLaneDims = kMaxAttentionHeadDim / kWarpSize;

// The attention of one query over some positions: out = sum / total once all are merged. Element i * 32 + lane of `sum`
// is in sum[i] of each lane; the rest is the same in all lanes.
struct Partial {
  float sum[kMaxLaneDims];
  float largest;
  float total;
};

__device__ __forceinline__ int LaneId() { return static_cast<int>(threadIdx.x) % kWarpSize; }

__device__ __forceinline__ void Clear(Partial* partial) {
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i) partial->sum[i] = 0.0f;
  partial->largest = -INFINITY;
  partial->total = 0.0f;
}

// Adds the positions [begin, end) of one split to `partial`, which is clear. By one warp; `q` is in shared memory.
template <typename T>
__device__ void AttendSplit(const AttentionTensors& t, const float* q, const int32_t* table, int64_t kv_head,
                            Range visible, int64_t split, Partial* partial) {
  const int lane = LaneId();
  const int64_t begin = visible.begin > split * kSplit ? visible.begin : split * kSplit;
  const int64_t end = visible.end < (split + 1) * kSplit ? visible.end : (split + 1) * kSplit;
  const T* const k_cache = static_cast<const T*>(t.k_cache);
  const T* const v_cache = static_cast<const T*>(t.v_cache);
  const auto row_at = [&](int64_t position) {
    const auto place = static_cast<uint32_t>(position);
    const auto block_size = static_cast<uint32_t>(t.block_size);
    const int64_t block = table[place / block_size];
    return ((block * t.num_kv_heads + kv_head) * t.block_size + place % block_size) * t.d;
  };
  for (int64_t tile = begin / kWarpSize * kWarpSize; tile < end; tile += kWarpSize) {
    const int64_t own = tile + lane;
    const bool is_visible = own >= begin && own < end;
    float score = -INFINITY;
    if (is_visible) {
      const T* const k = k_cache + row_at(own);
      float dot = 0.0f;
      for (int64_t i = 0; i < t.d; ++i) dot = fmaf(q[i], ToFloat(k[i]), dot);
      score = dot * t.scale;
    }
    const float largest = fmaxf(partial->largest, WarpMax(score));
    // A score that is not a number must be seen in the output: fmaxf leaves it out of `largest`.
    const float weight = is_visible ? WeightOf(score, largest) : 0.0f;
    const float shrink = WeightOf(partial->largest, largest);
    partial->largest = largest;
    partial->total = partial->total * shrink + WarpSum(weight);
#pragma unroll
    for (int i = 0; i < kMaxLaneDims; ++i) partial->sum[i] *= shrink;
    // Nothing is read of a position that is not visible: what its slot holds may be anything.
    const int first = static_cast<int>(begin > tile ? begin - tile : 0);
    const int last = static_cast<int>(end - tile < kWarpSize ? end - tile : kWarpSize);
    for (int j = first; j < last; ++j) {
      const float w = __shfl_sync(kAllLanes, weight, j);
      const T* const v = v_cache + row_at(tile + j);
#pragma unroll
      for (int i = 0; i < kMaxLaneDims; ++i) {
        const int64_t column = i * kWarpSize + lane;
        if (column < t.d) partial->sum[i] = fmaf(w, ToFloat(v[column]), partial->sum[i]);
      }
    }
  }
}

// Adds a later split.
__device__ __forceinline__ void Merge(const Partial& from, Partial* to) {
  const Joint joint = JointOf(to->largest, from.largest);
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i) to->sum[i] = to->sum[i] * joint.keep + from.sum[i] * joint.add;
  to->total = to->total * joint.keep + from.total * joint.add;
  to->largest = joint.largest;
}

__device__ __forceinline__ void Store(const Partial& partial, int64_t d, float* out) {
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i) {
    const int64_t column = i * kWarpSize + LaneId();
    if (column < d) out[column] = MeanOf(partial.sum[i], partial.total);
  }
}

__device__ __forceinline__ void StorePartial(const Partial& partial, int64_t d, float* to) {
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i) {
    const int64_t column = i * kWarpSize + LaneId();
    if (column < d) to[column] = partial.sum[i];
  }
  if (LaneId() == 0) {
    to[d] = partial.largest;
    to[d + 1] = partial.total;
  }
}

// The output of a row of padding, as far as one kv head goes.
__device__ __forceinline__ void ClearRow(const AttentionTensors& t, int64_t row, int64_t kv_head) {
  float* const out = t.out + (row * t.num_heads + kv_head * t.heads_per_kv) * t.d;
  for (int64_t i = threadIdx.x; i < t.heads_per_kv * t.d; i += kAttentionThreads) out[i] = 0.0f;
}

// One block for each row (x), kv head (y) and, when kBySplit, every gridDim.z-th split (z); its warps share the query
// heads.
template <typename T, bool kBySplit>
__global__ void __launch_bounds__(kAttentionThreads) AttendKernel(AttentionTensors t) {
  CADRE_DYNAMIC_SHARED(float, queries);  // [query heads of the kv head, d]
  const int64_t row = blockIdx.x;
  const int64_t kv_head = blockIdx.y;
  const int64_t heads_per_kv = t.heads_per_kv;
  const int64_t sequence = t.sequences[row];
  if (sequence == kPadding) {
    if (blockIdx.z == 0) ClearRow(t, row, kv_head);
    return;
  }
  const int64_t position = t.positions[row];
  CheckRow(t, sequence, position);
  const Range visible = VisibleTo(position, t.sliding_window);
  const int64_t first_split = visible.begin / kSplit;
  const int64_t end_split = (visible.end + kSplit - 1) / kSplit;
  if (kBySplit && first_split + blockIdx.z >= end_split) return;

  const float* const q = t.q + (row * t.num_heads + kv_head * heads_per_kv) * t.d;
  for (int64_t i = threadIdx.x; i < heads_per_kv * t.d; i += kAttentionThreads) queries[i] = q[i];
  __syncthreads();
  const int32_t* const table = t.tables + sequence * t.max_blocks;
  for (int64_t h = threadIdx.x / kWarpSize; h < heads_per_kv; h += kAttentionWarps) {
    const int64_t head = kv_head * heads_per_kv + h;
    if constexpr (kBySplit) {
      for (int64_t split = first_split + blockIdx.z; split < end_split; split += gridDim.z) {
        Partial partial;
        Clear(&partial);
        AttendSplit<T>(t, queries + h * t.d, table, kv_head, visible, split, &partial);
        StorePartial(partial, t.d, PartialOf(t, row, head, split - first_split));
      }
    } else {
      Partial all;
      Clear(&all);
      for (int64_t split = first_split; split < end_split; ++split) {
        Partial partial;
        Clear(&partial);
        AttendSplit<T>(t, queries + h * t.d, table, kv_head, visible, split, &partial);
        Merge(partial, &all);
      }
      Store(all, t.d, t.out + (row * t.num_heads + head) * t.d);
    }
  }
}

}  // namespace

cudaError_t LaunchAttendFma(cudaStream_t stream, const AttentionTensors& t, DType cache, bool by_split) {
  Grid grid = {.blocks = dim3(static_cast<unsigned>(t.num_rows), static_cast<unsigned>(t.num_kv_heads)),
               .threads = dim3(kAttentionThreads),
               .shared_bytes = static_cast<size_t>(t.heads_per_kv * t.d) * sizeof(float)};
  if (by_split) grid.blocks.z = SplitBlocks(t.num_rows * t.num_kv_heads, t.max_splits);
  return DispatchFloat(cache, [&]<typename T>() {
    return by_split ? Launch(stream, grid, AttendKernel<T, true>, t) : Launch(stream, grid, AttendKernel<T, false>, t);
  });
}

}  // namespace cadre::cuda
