// Products with bfloat16 weights on the tensor cores, where weights are met by few rows and reading them is what takes
// the time: weights stand on the 16 rows of a matrix fragment, activations on its 8 columns, so that eight tokens or
// fewer waste nothing.
//
// A block of kStripWarps warps computes kStripRows weight rows against up to kMaxTokenTiles * 8 activation rows. Depth
// goes in chunks of 32, and these in four parts, one for each warp, which adds its chunks in rising order; then the
// parts are added in theirs. That order depends on depth alone, and a column of a fragment on no other column: a row's
// bits are the same in any company, and the same that mma_tile.cuh computes of many rows.
//
// Within a chunk, lane (g, t) of the fragment reads 16 bytes at 8t of weight rows g and g + 8, and of activation row g.
// Which element of depth stands where in a fragment is free as long as both sides agree, so these 8 elements are the
// lane's share of two fragments: every load is a full one.
#ifndef CADRE_KERNELS_CUDA_MMA_STRIP_CUH_
#define CADRE_KERNELS_CUDA_MMA_STRIP_CUH_

#include <cstdint>

#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/ptx.h"

namespace cadre::cuda {

inline constexpr int kStripRows = 16;     // weight rows
inline constexpr int kTokenTile = 8;      // activation rows of a fragment
inline constexpr int kMaxTokenTiles = 4;  // of a block
inline constexpr int kMaxStripTokens = kMaxTokenTiles * kTokenTile;
inline constexpr int kStripWarps = 4;
inline constexpr int kStripThreads = kStripWarps * kWarpSize;
inline constexpr int64_t kDepthChunk = 32;

// Whether a product of this depth may run here; others run by FMA. Decided by the weights alone.
__host__ __device__ constexpr bool HasStripDepth(int64_t depth) { return depth > 0 && depth % kDepthChunk == 0; }

// Chunks in a part of the depth; the last parts may have fewer, or none.
__host__ __device__ constexpr int64_t ChunksOfPart(int64_t depth) {
  return (depth / kDepthChunk + kStripWarps - 1) / kStripWarps;
}

// The partial sums of the block's warps.
using StripSums = float[kStripWarps][kMaxTokenTiles][kWarpSize][4];

// What a thread gets of the 16 x 8 products of a tile: one, of this weight row and activation row.
__device__ __forceinline__ int StripRowOfThread() {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  return lane / 4 + (static_cast<int>(threadIdx.x) / kWarpSize >= 2 ? 8 : 0);
}
__device__ __forceinline__ int TokenOfThread() {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  return lane % 4 * 2 + static_cast<int>(threadIdx.x) / kWarpSize % 2;
}

// Rows of a strip out of those that are left.
__device__ __forceinline__ int StripRowCount(int64_t rest) {
  return static_cast<int>(rest < kStripRows ? rest : kStripRows);
}

// Eight activations at `x` as bfloat16. Few rows come as they are, which saves a kernel that rounds them: every block
// reads all of them, so with more rows that would cost more than it saves.
__device__ __forceinline__ uint4 LoadActivations(const BFloat16* x) { return *reinterpret_cast<const uint4*>(x); }
__device__ __forceinline__ uint4 LoadActivations(const float* x) {
  const float4 low = reinterpret_cast<const float4*>(x)[0];
  const float4 high = reinterpret_cast<const float4*>(x)[1];
  return {PackBFloat16(low.x, low.y), PackBFloat16(low.z, low.w), PackBFloat16(high.x, high.y),
          PackBFloat16(high.z, high.w)};
}
// Up to so many rows.
inline constexpr int64_t kMaxUnroundedRows = kTokenTile;

// The same strip of kMatrices matrices of one shape.
template <int kMatrices>
struct WeightStrips {
  const BFloat16* first[kMatrices];  // row of the strip
  int num_rows;                      // <= kStripRows
};

// Weights under way: chunks of the two rows of each strip that a lane multiplies. A lane copies what it reads itself,
// so that nobody waits for anybody.
template <int kMatrices>
struct StripRing {
  static constexpr int kStages = 8;
  uint4 low[kStages][kMatrices][kStripThreads];
  uint4 high[kStages][kMatrices][kStripThreads];
};
template <int kMatrices>
struct LaneRows {
  const BFloat16* low[kMatrices];  // from the lane's first element on
  const BFloat16* high[kMatrices];
};

// Begins to copy a chunk of the warp's part of the depth, if there is one.
template <int kMatrices>
__device__ __forceinline__ void CopyStripChunk(StripRing<kMatrices>* ring, const LaneRows<kMatrices>& rows, int chunk,
                                               int num_chunks) {
  if (chunk < num_chunks) {
    const int stage = chunk % StripRing<kMatrices>::kStages;
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
      CpAsync16(&ring->low[stage][m][threadIdx.x], rows.low[m] + chunk * kDepthChunk, true);
      CpAsync16(&ring->high[stage][m][threadIdx.x], rows.high[m] + chunk * kDepthChunk, true);
    }
  }
  CpAsyncCommit();
}

// products[m][i] = dot(row StripRowOfThread() of matrix m, activation row i * 8 + TokenOfThread()). All threads of the
// block call. x[i] is this lane's activation row, number i * 8 + lane / 4, anything readable where there is none.
// `ring` and `sums` are shared, and free when this returns.
template <int kMatrices, int kTiles, typename X>
__device__ __forceinline__ void StripProducts(float (&products)[kMatrices][kTiles],
                                              const WeightStrips<kMatrices>& weights, const X* const (&x)[kTiles],
                                              int64_t depth, StripRing<kMatrices>* ring, StripSums& sums) {
  using Ring = StripRing<kMatrices>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int64_t part = ChunksOfPart(depth);
  const int64_t rest = depth / kDepthChunk - warp * part;
  const auto num_chunks = static_cast<int>(rest < part ? rest : part);  // none, or fewer, in the last parts
  const int64_t first = warp * part * kDepthChunk + lane % 4 * 8;
  const int last_row = weights.num_rows - 1;
  LaneRows<kMatrices> rows;
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    rows.low[m] = weights.first[m] + (lane / 4 < last_row ? lane / 4 : last_row) * depth + first;
    rows.high[m] = weights.first[m] + (lane / 4 + 8 < last_row ? lane / 4 + 8 : last_row) * depth + first;
  }
  float acc[kMatrices][kTiles][4] = {};
#pragma unroll
  for (int chunk = 0; chunk < Ring::kStages - 1; ++chunk) CopyStripChunk(ring, rows, chunk, num_chunks);
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    uint4 c[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) c[i] = LoadActivations(x[i] + first + chunk * kDepthChunk);
    CpAsyncWait<Ring::kStages - 2>();
    const int stage = chunk % Ring::kStages;
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
      const uint4 a = ring->low[stage][m][threadIdx.x];
      const uint4 b = ring->high[stage][m][threadIdx.x];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) MmaM16N8K16Bf16(acc[m][i], {a.x, b.x, a.y, b.y}, {c[i].x, c[i].y});
#pragma unroll
      for (int i = 0; i < kTiles; ++i) MmaM16N8K16Bf16(acc[m][i], {a.z, b.z, a.w, b.w}, {c[i].z, c[i].w});
    }
    CopyStripChunk(ring, rows, chunk + Ring::kStages - 1, num_chunks);
  }
  CpAsyncWait<0>();
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[warp][i][lane][j] = acc[m][i][j];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      products[m][i] = 0.0f;
#pragma unroll
      for (int w = 0; w < kStripWarps; ++w) products[m][i] += sums[w][i][lane][warp];
    }
    __syncthreads();
  }
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_MMA_STRIP_CUH_
