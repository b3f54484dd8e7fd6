// PagedAttention over bfloat16 caches on the tensor cores. Queries and the weights of the softmax are rounded to
// bfloat16, as models that were trained in it have them; sums are float32.
//
// A block works on one kv head and one run of rows. The run's rows times the query heads of the kv head are the rows of
// the matrices below ("lines"), 16 of which a warp computes against kTile positions at a time: S = q k^T, then out +=
// weights(S) v. Keys and values of the next tile are copied meanwhile. A line is a row of every fragment that it is in,
// and as long as values are finite no line changes another: one row alone has the bits that it has
// in a run. (A value that is not finite spoils the earlier rows of its run, too: 0 times infinity is no number.)
#include "kernels/cuda/attention_runs.cuh"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/mma_strip.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/ptx.h"

namespace cadre::cuda {
namespace {

constexpr int kTile = 64;       // positions
constexpr int kWarpLines = 16;  // of a fragment
constexpr int kMaxWarps = 4;
constexpr int kMaxLines = kMaxWarps * kWarpLines;
constexpr int kScoreFrags = kTile / 8;
constexpr int kChunk = static_cast<int>(kDepthChunk);  // of a head, in which q and k meet
constexpr int kMaxChunks = 4;
constexpr int64_t kTilesPerSplit = kSplit / kTile;
constexpr int kGroup = 8;  // positions that a warp copies at once

// Keys as the fragments of q k^T want them, values as those of weights v do: neither has bank conflicts.
template <int kChunks>
struct KvTile {
  uint4 keys[kChunks][kTile][4];     // 16 bytes of a position; [i][p][j] is of elements i * 32 + j * 8
  uint4 values[kChunks * 4][kTile];  // [i][p] is of elements i * 8
};

// The lines of a warp that a lane has to do with: number lane / 4 and 8 more of the warp's.
struct Line {
  Range visible;  // empty for a line that there is not
  float* out;     // of its head
  int64_t row;
  int64_t head;
};

// A softmax in the making, of a lane's two lines: element [i][r] of `sum` is of line r / 2, column i * 8 + lane % 4 * 2
// + r % 2.
template <int kChunks>
struct PartialLines {
  float sum[kChunks * 4][4];
  float largest[2];
  float total[2];
};

__device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ __forceinline__ int Warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }

template <int kChunks>
__device__ __forceinline__ void Clear(PartialLines<kChunks>* partial) {
#pragma unroll
  for (int i = 0; i < kChunks * 4; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r) partial->sum[i][r] = 0.0f;
  }
#pragma unroll
  for (int l = 0; l < 2; ++l) {
    partial->largest[l] = -INFINITY;
    partial->total[l] = 0.0f;
  }
}

__device__ __forceinline__ Line LineOf(const AttentionTensors& t, const RowRun& run, int64_t kv_head, int number) {
  const int64_t heads = t.heads_per_kv;
  if (number >= run.count * heads) return {{0, 0}, nullptr, 0, 0};
  const int64_t row = run.first + number / heads;
  const int64_t head = kv_head * heads + number % heads;
  return {VisibleTo(t.positions[row], t.sliding_window), t.out + (row * t.num_heads + head) * t.d, row, head};
}

// What this lane needs of the query of a line: elements lane % 4 * 8 and seven more of each chunk.
template <int kChunks>
__device__ __forceinline__ void LoadQuery(const AttentionTensors& t, const Line& line, uint4 (&q)[kChunks]) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    q[c] = {};
    if (line.out == nullptr) continue;
    const auto* const from =
        reinterpret_cast<const float4*>(t.q + (line.row * t.num_heads + line.head) * t.d + c * kChunk + Lane() % 4 * 8);
    const float4 low = from[0];
    const float4 high = from[1];
    q[c] = {PackBFloat16(low.x, low.y), PackBFloat16(low.z, low.w), PackBFloat16(high.x, high.y),
            PackBFloat16(high.z, high.w)};
  }
}

// Begins to copy the positions of a tile that are in `needed`; others become zeros, and nothing of them is read: what
// their slots hold may be anything.
template <int kChunks>
__device__ __forceinline__ void CopyTile(KvTile<kChunks>* to, const AttentionTensors& t, const int32_t* table,
                                         int64_t kv_head, const Range& needed, int64_t tile) {
  const auto* const k_cache = static_cast<const BFloat16*>(t.k_cache);
  const auto* const v_cache = static_cast<const BFloat16*>(t.v_cache);
  const auto block_size = static_cast<uint32_t>(t.block_size);
  const int lane = Lane();
  for (int group = Warp() * kGroup; group < kTile; group += static_cast<int>(blockDim.x) / kWarpSize * kGroup) {
    const int64_t position = tile * kTile + group + lane % kGroup;
    const bool is_needed = position >= needed.begin && position < needed.end;
    int64_t row = -1;  // of the caches as [num_blocks * G * B, d]
    if (is_needed) {
      const auto place = static_cast<uint32_t>(position);
      row = (table[place / block_size] * t.num_kv_heads + kv_head) * t.block_size + place % block_size;
    }
    // Lanes of four follow a key, lanes of eight a column of values.
    const int64_t key_row = __shfl_sync(kAllLanes, row, lane / 4);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      CpAsync16(&to->keys[c][group + lane / 4][lane % 4], k_cache + key_row * t.d + c * kChunk + lane % 4 * 8,
                key_row >= 0);
      CpAsync16(&to->values[c * 4 + lane / kGroup][group + lane % kGroup],
                v_cache + row * t.d + (c * 4 + lane / kGroup) * 8, is_needed);
    }
  }
}

// scores[j][r] of position j * 8 + lane % 4 * 2 + r % 2 of the tile, line r / 2.
template <int kChunks>
__device__ __forceinline__ void Score(float (&scores)[kScoreFrags][4], const KvTile<kChunks>& kv,
                                      const uint4 (&low)[kChunks], const uint4 (&high)[kChunks]) {
  constexpr int kTogether = 4;  // fragments whose products do not wait for each other
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const uint4* const keys = &kv.keys[c][0][0] + Lane();
#pragma unroll
    for (int first = 0; first < kScoreFrags; first += kTogether) {
      uint4 b[kTogether];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) b[j] = keys[(first + j) * kWarpSize];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        MmaM16N8K16Bf16(scores[first + j], {low[c].x, high[c].x, low[c].y, high[c].y}, {b[j].x, b[j].y});
      }
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        MmaM16N8K16Bf16(scores[first + j], {low[c].z, high[c].z, low[c].w, high[c].w}, {b[j].z, b[j].w});
      }
    }
  }
}

// The largest, and the sum, of what the four lanes of a line have; in an order that is always the same.
__device__ __forceinline__ float LineMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float LineSum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// From scores to weights, relative to the largest score so far, and what has been summed along with them.
template <int kChunks>
__device__ __forceinline__ void Weigh(float (&scores)[kScoreFrags][4], const Line (&lines)[2], int64_t tile,
                                      float scale, PartialLines<kChunks>* partial) {
#pragma unroll
  for (int l = 0; l < 2; ++l) {
    // What the line sees of the tile, from the lane's first column on.
    const int64_t origin = tile * kTile + Lane() % 4 * 2;
    const auto begin = static_cast<int>(lines[l].visible.begin > origin ? lines[l].visible.begin - origin : 0);
    const int64_t rest = lines[l].visible.end - origin;
    const auto end = static_cast<int>(rest < kTile ? rest : kTile);
    float largest = -INFINITY;
#pragma unroll
    for (int j = 0; j < kScoreFrags; ++j) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        float& score = scores[j][l * 2 + odd];
        const int column = j * 8 + odd;
        score = column >= begin && column < end ? score * scale : -INFINITY;
        largest = fmaxf(largest, score);
      }
    }
    largest = fmaxf(partial->largest[l], LineMax(largest));
    const float shrink = WeightOf(partial->largest[l], largest);
    float total = 0.0f;
#pragma unroll
    for (int j = 0; j < kScoreFrags; ++j) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        // A score that is not a number must be seen in the output: fmaxf leaves it out of `largest`.
        float& score = scores[j][l * 2 + odd];
        score = WeightOf(score, largest);
        total += score;
      }
    }
    partial->largest[l] = largest;
    partial->total[l] = partial->total[l] * shrink + LineSum(total);
#pragma unroll
    for (int i = 0; i < kChunks * 4; ++i) {
      partial->sum[i][l * 2] *= shrink;
      partial->sum[i][l * 2 + 1] *= shrink;
    }
  }
}

// Adds the values by their weights.
template <int kChunks>
__device__ __forceinline__ void AddValues(const float (&weights)[kScoreFrags][4], const KvTile<kChunks>& kv,
                                          PartialLines<kChunks>* partial) {
  const int matrix = Lane() / 8;  // of the four that a load brings: two of positions by two of columns
  const int row_of_load = matrix % 2 * 8 + Lane() % 8;
#pragma unroll
  for (int j = 0; j < kScoreFrags; j += 2) {
    const uint32_t a[4] = {PackBFloat16(weights[j][0], weights[j][1]), PackBFloat16(weights[j][2], weights[j][3]),
                           PackBFloat16(weights[j + 1][0], weights[j + 1][1]),
                           PackBFloat16(weights[j + 1][2], weights[j + 1][3])};
#pragma unroll
    for (int i = 0; i < kChunks * 4; i += 2) {
      uint32_t b[4];
      LdMatrixX4Trans(b, &kv.values[i + matrix / 2][j * 8 + row_of_load]);
      MmaM16N8K16Bf16(partial->sum[i], a, {b[0], b[1]});
      MmaM16N8K16Bf16(partial->sum[i + 1], a, {b[2], b[3]});
    }
  }
}

// Joins a split to those before it, which lie in shared memory, each thread's by themselves.
template <int kChunks>
struct JoinedSplits {
  float4* sums;  // [kChunks * 4][threads]
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0f, 0.0f};
  bool is_empty = true;

  __device__ __forceinline__ float4& Sum(int i) { return sums[i * blockDim.x + threadIdx.x]; }

  __device__ __forceinline__ void Add(const PartialLines<kChunks>& split) {
    const Joint joints[2] = {JointOf(largest[0], split.largest[0]), JointOf(largest[1], split.largest[1])};
#pragma unroll
    for (int i = 0; i < kChunks * 4; ++i) {
      const float(&s)[4] = split.sum[i];
      const float4 before = is_empty ? float4{} : Sum(i);
      Sum(i) = {before.x * joints[0].keep + s[0] * joints[0].add, before.y * joints[0].keep + s[1] * joints[0].add,
                before.z * joints[1].keep + s[2] * joints[1].add, before.w * joints[1].keep + s[3] * joints[1].add};
    }
#pragma unroll
    for (int l = 0; l < 2; ++l) {
      total[l] = total[l] * joints[l].keep + split.total[l] * joints[l].add;
      largest[l] = joints[l].largest;
    }
    is_empty = false;
  }

  __device__ __forceinline__ void Store(const Line (&lines)[2]) {
#pragma unroll
    for (int i = 0; i < kChunks * 4; ++i) {
      const float4 sum = Sum(i);
      const int column = i * 8 + Lane() % 4 * 2;
      if (lines[0].out != nullptr) {
        lines[0].out[column] = MeanOf(sum.x, total[0]);
        lines[0].out[column + 1] = MeanOf(sum.y, total[0]);
      }
      if (lines[1].out != nullptr) {
        lines[1].out[column] = MeanOf(sum.z, total[1]);
        lines[1].out[column + 1] = MeanOf(sum.w, total[1]);
      }
    }
  }
};

template <int kChunks>
__device__ __forceinline__ void StorePartial(const AttentionTensors& t, const Line (&lines)[2], int64_t split,
                                             const PartialLines<kChunks>& partial) {
#pragma unroll
  for (int l = 0; l < 2; ++l) {
    if (lines[l].out == nullptr) continue;
    float* const to = PartialOf(t, lines[l].row, lines[l].head, split - lines[l].visible.begin / kSplit);
#pragma unroll
    for (int i = 0; i < kChunks * 4; ++i) {
      const int column = i * 8 + Lane() % 4 * 2;
      to[column] = partial.sum[i][l * 2];
      to[column + 1] = partial.sum[i][l * 2 + 1];
    }
    if (Lane() % 4 == 0) {
      to[t.d] = partial.largest[l];
      to[t.d + 1] = partial.total[l];
    }
  }
}

// Positions that the warp's lines see between them.
__device__ __forceinline__ Range UnionOfWarp(const Line (&lines)[2]) {
  Range all = lines[0].out != nullptr ? lines[0].visible : Range{INT32_MAX, 0};
  if (lines[1].out != nullptr) {
    if (lines[1].visible.begin < all.begin) all.begin = lines[1].visible.begin;
    if (lines[1].visible.end > all.end) all.end = lines[1].visible.end;
  }
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const int64_t begin = __shfl_xor_sync(kAllLanes, all.begin, offset);
    const int64_t end = __shfl_xor_sync(kAllLanes, all.end, offset);
    if (begin < all.begin) all.begin = begin;
    if (end > all.end) all.end = end;
  }
  return all;
}

// One run and kv head. When kBySplit, every gridDim.z-th split, and the run is one row.
template <int kChunks, bool kBySplit>
__device__ __forceinline__ void AttendRun(const AttentionTensors& t, const RowRun& run, int64_t kv_head,
                                          unsigned char* shared) {
  KvTile<kChunks>* const stages = reinterpret_cast<KvTile<kChunks>*>(shared);
  const int32_t* const table = t.tables + t.sequences[run.first] * t.max_blocks;
  const Range needed = {VisibleTo(t.positions[run.first], t.sliding_window).begin,
                        VisibleTo(t.positions[run.first + run.count - 1], t.sliding_window).end};
  const int64_t end = (needed.end + kTile - 1) / kTile;
  int64_t tile = needed.begin / kTile;
  if (kBySplit && blockIdx.z > 0) tile = (needed.begin / kSplit + blockIdx.z) * kTilesPerSplit;
  const auto next_of = [&](int64_t i) {
    return i + 1 + (kBySplit && (i + 1) % kTilesPerSplit == 0 ? (gridDim.z - 1) * kTilesPerSplit : 0);
  };
  if (tile >= end) return;

  const int number = Warp() * kWarpLines + Lane() / 4;
  const Line lines[2] = {LineOf(t, run, kv_head, number), LineOf(t, run, kv_head, number + 8)};
  uint4 low[kChunks];
  uint4 high[kChunks];
  LoadQuery(t, lines[0], low);
  LoadQuery(t, lines[1], high);
  const Range of_warp = UnionOfWarp(lines);
  PartialLines<kChunks> partial;
  Clear(&partial);
  JoinedSplits<kChunks> joined = {.sums = reinterpret_cast<float4*>(shared + 2 * sizeof(KvTile<kChunks>))};
  CopyTile(&stages[0], t, table, kv_head, needed, tile);
  CpAsyncCommit();
  for (int stage = 0; tile < end; stage = 1 - stage) {
    const int64_t next = next_of(tile);
    if (next < end) CopyTile(&stages[1 - stage], t, table, kv_head, needed, next);
    CpAsyncCommit();
    CpAsyncWait<1>();
    __syncthreads();  // the tile is there for all
    if (tile * kTile < of_warp.end && (tile + 1) * kTile > of_warp.begin) {
      float scores[kScoreFrags][4] = {};
      Score(scores, stages[stage], low, high);
      Weigh(scores, lines, tile, t.scale, &partial);
      AddValues(scores, stages[stage], &partial);
    }
    const int64_t split = tile / kTilesPerSplit;
    if (next >= end || next / kTilesPerSplit != split) {
      if constexpr (kBySplit) {
        StorePartial(t, lines, split, partial);
      } else {
        joined.Add(partial);
      }
      Clear(&partial);
    }
    __syncthreads();  // nobody reads the stage that is filled next
    tile = next;
  }
  CpAsyncWait<0>();
  if constexpr (!kBySplit) joined.Store(lines);
}

// Run i is of blocks i, i + gridDim.x, ... (x); kv head (y); with kBySplit, every gridDim.z-th split (z).
template <int kChunks, bool kBySplit>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize) AttendMmaKernel(AttentionTensors t, RunList runs) {
  CADRE_DYNAMIC_SHARED(unsigned char, shared);
  const int64_t kv_head = blockIdx.y;
  for (int64_t i = blockIdx.x; i < runs.size(); i += gridDim.x) {
    const RowRun run = runs[i];
    if (t.sequences[run.first] == kPadding) {
      if (blockIdx.z > 0) continue;
      for (int64_t j = threadIdx.x; j < run.count * t.heads_per_kv * t.d; j += blockDim.x) {
        const int64_t row = run.first + j / (t.heads_per_kv * t.d);
        t.out[(row * t.num_heads + kv_head * t.heads_per_kv) * t.d + j % (t.heads_per_kv * t.d)] = 0.0f;
      }
      continue;
    }
    CheckRow(t, t.sequences[run.first], t.positions[run.first]);
    CheckRow(t, t.sequences[run.first], t.positions[run.first] + run.count - 1);
    AttendRun<kChunks, kBySplit>(t, run, kv_head, shared);
  }
}

template <int kChunks>
cudaError_t LaunchChunks(cudaStream_t stream, const AttentionTensors& t, bool by_split, std::byte* scratch) {
  Grid grid = {.blocks = dim3(static_cast<unsigned>(t.num_rows), static_cast<unsigned>(t.num_kv_heads)),
               .threads = dim3(CeilDiv(t.heads_per_kv, kWarpLines) * kWarpSize),
               .shared_bytes = 2 * sizeof(KvTile<kChunks>)};
  if (by_split) {
    grid.blocks.z = SplitBlocks(t.num_rows * t.num_kv_heads, t.max_splits);
    return Launch(stream, grid, AttendMmaKernel<kChunks, true>, t, RunList{nullptr, nullptr, t.num_rows});
  }
  const auto max_rows = static_cast<int>(kMaxLines / t.heads_per_kv);
  RunList runs = {};
  const cudaError_t error = LaunchListRuns(stream, t, max_rows, scratch, &runs);
  if (error != cudaSuccess) return error;
  // As many as there are runs if every sequence has one; more are walked through in turns.
  const int64_t most = CeilDiv(t.num_rows, max_rows) + t.num_sequences;
  grid.blocks.x = static_cast<unsigned>(most < t.num_rows ? most : t.num_rows);
  grid.threads = dim3(kMaxWarps * kWarpSize);
  grid.shared_bytes += sizeof(float4) * kChunks * 4 * kMaxWarps * kWarpSize;
  return Launch(stream, grid, AttendMmaKernel<kChunks, false>, t, runs);
}

}  // namespace

bool CanAttendOnTensorCores(DType cache, int64_t head_dim, int64_t heads_per_kv) {
  return cache == DType::kBF16 && head_dim > 0 && head_dim % kChunk == 0 && head_dim <= kMaxChunks * kChunk &&
         heads_per_kv <= kMaxLines;
}

cudaError_t LaunchAttendMma(cudaStream_t stream, const AttentionTensors& t, bool by_split, std::byte* runs) {
  switch (t.d / kChunk) {
    case 1:
      return LaunchChunks<1>(stream, t, by_split, runs);
    case 2:
      return LaunchChunks<2>(stream, t, by_split, runs);
    case 3:
      return LaunchChunks<3>(stream, t, by_split, runs);
    default:
      CADRE_CHECK_EQ(t.d, int64_t{kMaxChunks * kChunk});
      return LaunchChunks<kMaxChunks>(stream, t, by_split, runs);
  }
}

}  // namespace cadre::cuda
