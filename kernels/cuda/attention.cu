// PagedAttention over [num_blocks, G, B, d] caches, by FMA.
//
// A sequence's positions are cut into splits at absolute multiples of kSplit. Within a split the softmax is computed
// online, in tiles of 32 absolute positions; splits are merged in rising order. So a row's bits depend on its own
// position and sequence alone, whether its splits are computed by one block one after the other or by as many blocks
// as there are splits: which of the two it is, the number of rows decides.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kAttentionWarps = 4;
constexpr int kAttentionThreads = kAttentionWarps * kWarpSize;
constexpr int64_t kSplit = 256;
// Up to this many rows, splits are computed by blocks of their own.
constexpr int64_t kMaxSplitRows = 64;
// Blocks of a step that are enough: several for each multiprocessor of a large device.
constexpr int64_t kSplitBlocks = 2048;
constexpr int kMaxLaneDims = kMaxAttentionHeadDim / kWarpSize;

struct AttentionTensors {
  float* out;                // [T, H, d]
  float* partials;           // [T, H, splits, d + 2]: the sum of values, the largest score, the sum of weights
  const float* q;            // [T, H, d]
  const void* k_cache;       // [num_blocks, G, B, d]
  const void* v_cache;       // like k_cache
  const int32_t* tables;     // [S, max_blocks]
  const int32_t* sequences;  // [T]
  const int32_t* positions;  // [T]
  int64_t num_sequences;
  int64_t max_blocks;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t heads_per_kv;
  int64_t block_size;
  int64_t d;
  int64_t max_positions;
  int64_t max_splits;
  float scale;
  int64_t sliding_window;
};

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

// Positions that a row sees: [begin, end).
struct Range {
  int64_t begin;
  int64_t end;
};
__device__ __forceinline__ Range VisibleTo(int64_t position, int64_t sliding_window) {
  const int64_t first = position - sliding_window + 1;
  return {sliding_window > 0 && first > 0 ? first : 0, position + 1};
}

// exp(score - largest), where -infinity weighs nothing even if there is nothing larger.
__device__ __forceinline__ float WeightOf(float score, float largest) {
  return score == -INFINITY ? 0.0f : expf(score - largest);
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
  const float largest = fmaxf(to->largest, from.largest);
  const float keep = WeightOf(to->largest, largest);
  const float add = WeightOf(from.largest, largest);
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i) to->sum[i] = to->sum[i] * keep + from.sum[i] * add;
  to->total = to->total * keep + from.total * add;
  to->largest = largest;
}

__device__ __forceinline__ void Store(const Partial& partial, int64_t d, float* out) {
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i) {
    const int64_t column = i * kWarpSize + LaneId();
    if (column < d) out[column] = partial.sum[i] / partial.total;
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

__device__ __forceinline__ float* PartialOf(const AttentionTensors& t, int64_t row, int64_t head, int64_t split) {
  return t.partials + ((row * t.num_heads + head) * t.max_splits + split) * (t.d + 2);
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
  if (sequence < 0 || sequence >= t.num_sequences || position < 0 || position >= t.max_positions) __trap();
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

// One warp for each row (x) and head (y).
__global__ void __launch_bounds__(kWarpSize) MergeSplitsKernel(AttentionTensors t) {
  const int64_t row = blockIdx.x;
  const int64_t head = blockIdx.y;
  if (t.sequences[row] == kPadding) return;
  const Range visible = VisibleTo(t.positions[row], t.sliding_window);
  const int64_t num_splits = (visible.end + kSplit - 1) / kSplit - visible.begin / kSplit;
  Partial all;
  Clear(&all);
  for (int64_t split = 0; split < num_splits; ++split) {
    const float* const from = PartialOf(t, row, head, split);
    Partial partial;
    Clear(&partial);
#pragma unroll
    for (int i = 0; i < kMaxLaneDims; ++i) {
      const int64_t column = i * kWarpSize + LaneId();
      if (column < t.d) partial.sum[i] = from[column];
    }
    partial.largest = from[t.d];
    partial.total = from[t.d + 1];
    Merge(partial, &all);
  }
  Store(all, t.d, t.out + (row * t.num_heads + head) * t.d);
}

// Blocks side by side over the splits of one row and kv head. The host does not know how long sequences are, only how
// long they may be: enough blocks for any device, and few that find nothing to do.
unsigned SplitBlocks(int64_t num_rows_and_heads, int64_t max_splits) {
  const int64_t wanted = CeilDiv(kSplitBlocks, num_rows_and_heads);
  return static_cast<unsigned>(wanted < max_splits ? wanted : max_splits);
}

int64_t MaxSplits(int64_t max_positions, int64_t sliding_window) {
  const int64_t seen = sliding_window > 0 && sliding_window < max_positions ? sliding_window : max_positions;
  return (seen + kSplit - 1) / kSplit + 1;  // a window may begin within a split
}

}  // namespace

size_t AttentionScratchBytes(int64_t num_heads, int64_t head_dim, int64_t max_positions) {
  const int64_t floats = kMaxSplitRows * num_heads * MaxSplits(max_positions, 0) * (head_dim + 2);
  return static_cast<size_t>(floats) * sizeof(float);
}

cudaError_t LaunchPagedAttention(cudaStream_t stream, View out, ConstView q, const PagedKv& kv,
                                 const AttentionOptions& options, int64_t max_positions, std::byte* scratch) {
  const int64_t num_rows = q.dim(0);
  if (num_rows == 0) return cudaSuccess;
  const int64_t in_tables = kv.block_tables.dim(1) * kv.k_cache.dim(2);
  const int64_t reachable = in_tables < max_positions ? in_tables : max_positions;
  const AttentionTensors tensors = {.out = Data<float>(out),
                                    .partials = reinterpret_cast<float*>(scratch),
                                    .q = Data<float>(q),
                                    .k_cache = kv.k_cache.raw(),
                                    .v_cache = kv.v_cache.raw(),
                                    .tables = Data<int32_t>(kv.block_tables),
                                    .sequences = Data<int32_t>(kv.row_sequence),
                                    .positions = Data<int32_t>(kv.positions),
                                    .num_sequences = kv.block_tables.dim(0),
                                    .max_blocks = kv.block_tables.dim(1),
                                    .num_heads = q.dim(1),
                                    .num_kv_heads = kv.k_cache.dim(1),
                                    .heads_per_kv = q.dim(1) / kv.k_cache.dim(1),
                                    .block_size = kv.k_cache.dim(2),
                                    .d = q.dim(2),
                                    .max_positions = reachable,
                                    .max_splits = MaxSplits(reachable, options.sliding_window),
                                    .scale = options.scale,
                                    .sliding_window = options.sliding_window};
  const auto rows = static_cast<unsigned>(num_rows);
  const auto kv_heads = static_cast<unsigned>(tensors.num_kv_heads);
  Grid grid = {.blocks = dim3(rows, kv_heads),
               .threads = dim3(kAttentionThreads),
               .shared_bytes = static_cast<size_t>(tensors.heads_per_kv * tensors.d) * sizeof(float)};
  return DispatchFloat(kv.k_cache.dtype(), [&]<typename T>() {
    if (num_rows > kMaxSplitRows) return Launch(stream, grid, AttendKernel<T, false>, tensors);
    grid.blocks.z = SplitBlocks(num_rows * tensors.num_kv_heads, tensors.max_splits);
    const cudaError_t error = Launch(stream, grid, AttendKernel<T, true>, tensors);
    if (error != cudaSuccess) return error;
    return Launch(stream, {.blocks = dim3(rows, static_cast<unsigned>(tensors.num_heads)), .threads = dim3(kWarpSize)},
                  MergeSplitsKernel, tensors);
  });
}

}  // namespace cadre::cuda
