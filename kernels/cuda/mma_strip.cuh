// Products with bfloat16 weights on the tensor cores, where weights are met by few rows and reading them is what takes
// the time: weights stand on the 16 rows of a matrix fragment, activations on its 8 columns, so that eight tokens or
// fewer waste nothing.
//
// A block of kStripWarps warps computes kStripRows weight rows against up to kMaxTokenTiles * 8 activation rows. Depth
// goes in chunks of 32: warp w adds chunks w, w + 4, ... in rising order, then the warps are added in theirs. That
// order depends on depth alone, and a column of a fragment on no other column: a row's bits are the same in any
// company.
//
// Within a chunk, lane (g, t) of the fragment reads 16 bytes at 8t of weight rows g and g + 8, and of activation row g.
// Which element of depth stands where in a fragment is free as long as both sides agree, so these 8 elements are the
// lane's share of two fragments: every load is a full one, and nothing goes through shared memory.
#ifndef CADRE_KERNELS_CUDA_MMA_STRIP_CUH_
#define CADRE_KERNELS_CUDA_MMA_STRIP_CUH_

#include <cstdint>

#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/ptx.h"

namespace cadre::cuda {

inline constexpr int kStripRows = 16;     // weight rows
inline constexpr int kTokenTile = 8;      // activation rows of a fragment
inline constexpr int kMaxTokenTiles = 4;  // of a block
inline constexpr int kStripWarps = 4;
inline constexpr int kStripThreads = kStripWarps * kWarpSize;
inline constexpr int64_t kDepthChunk = 32;

// Whether a product of this depth may run here; others run by FMA. Decided by the weights alone.
__host__ __device__ constexpr bool HasStripDepth(int64_t depth) { return depth > 0 && depth % kDepthChunk == 0; }

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

// products[i] = dot(weight row StripRowOfThread(), activation row i * 8 + TokenOfThread()). All threads of the block
// call. `weight` is the strip's first row of `num_rows` <= kStripRows; x[i] is this lane's activation row, number
// i * 8 + lane / 4, anything readable where there is none. `sums` is shared, and free when this returns.
template <int kTiles>
__device__ __forceinline__ void StripProducts(float (&products)[kTiles], const BFloat16* weight, int num_rows,
                                              const BFloat16* const (&x)[kTiles], int64_t depth, StripSums& sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int low_row = lane / 4 < num_rows ? lane / 4 : num_rows - 1;
  const int high_row = lane / 4 + 8 < num_rows ? lane / 4 + 8 : num_rows - 1;
  const BFloat16* const low = weight + low_row * depth;
  const BFloat16* const high = weight + high_row * depth;
  float acc[kTiles][4] = {};
#pragma unroll 4
  for (int64_t k = warp * kDepthChunk + lane % 4 * 8; k < depth; k += kStripWarps * kDepthChunk) {
    const uint4 a = *reinterpret_cast<const uint4*>(low + k);
    const uint4 b = *reinterpret_cast<const uint4*>(high + k);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint4 c = *reinterpret_cast<const uint4*>(x[i] + k);
      MmaM16N8K16Bf16(acc[i], {a.x, b.x, a.y, b.y}, {c.x, c.y});
      MmaM16N8K16Bf16(acc[i], {a.z, b.z, a.w, b.w}, {c.z, c.w});
    }
  }
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[warp][i][lane][j] = acc[i][j];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    products[i] = 0.0f;
#pragma unroll
    for (int w = 0; w < kStripWarps; ++w) products[i] += sums[w][i][lane][warp];
  }
  __syncthreads();
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_MMA_STRIP_CUH_
