// Dot products of one weight row with several activation rows by one warp: the arithmetic of every product that the
// tensor cores do not do.
#ifndef CADRE_KERNELS_CUDA_DOT_ROWS_CUH_
#define CADRE_KERNELS_CUDA_DOT_ROWS_CUH_

#include <cstdint>

#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {

// Activation rows that share one reading of a weight row. Each belongs to four lanes: row r to lanes 4r to 4r + 3.
inline constexpr int kDotRows = 8;
inline constexpr int kLanesOfRow = kWarpSize / kDotRows;

__device__ __forceinline__ int RowOfLane() { return static_cast<int>(threadIdx.x) % kWarpSize / kLanesOfRow; }
// Of the lanes of a row, the one that writes.
__device__ __forceinline__ bool IsFirstOfRow() { return threadIdx.x % kLanesOfRow == 0; }

// Of the 2 * kHalf rows of a lane, adds the lane `offset` away: the half of the rows that this lane keeps.
template <int kHalf>
__device__ __forceinline__ void KeepHalf(float (&sums)[kDotRows], int offset) {
  const bool keeps_upper = (threadIdx.x & static_cast<unsigned>(offset)) != 0;
#pragma unroll
  for (int r = 0; r < kHalf; ++r) {
    const float kept = keeps_upper ? sums[r + kHalf] : sums[r];
    const float given = keeps_upper ? sums[r] : sums[r + kHalf];
    sums[r] = kept + __shfl_xor_sync(kAllLanes, given, offset);
  }
}

// The sum over the warp of each row's values, in the lanes of the row. It takes 9 exchanges for 8 rows, and the
// additions of a row are those of WarpSum: the same bits.
__device__ __forceinline__ float SumRows(float (&sums)[kDotRows], int num_rows) {
  if (num_rows == 1) return WarpSum(sums[0]);
  KeepHalf<4>(sums, 16);
  KeepHalf<2>(sums, 8);
  KeepHalf<1>(sums, 4);
  sums[0] += __shfl_xor_sync(kAllLanes, sums[0], 2);
  sums[0] += __shfl_xor_sync(kAllLanes, sums[0], 1);
  return sums[0];
}

// dot(x[r], w) over `depth` elements, in the lanes of row r, for r < num_rows. Each lane adds every 32nd element in
// rising order, then the lanes are added: the order depends on `depth` alone, never on num_rows.
template <typename W>
__device__ __forceinline__ float DotRows(const W* w, const float* const (&x)[kDotRows], int num_rows, int64_t depth) {
  float sums[kDotRows] = {};
  for (int64_t i = threadIdx.x % kWarpSize; i < depth; i += kWarpSize) {
    const float weight = ToFloat(w[i]);
#pragma unroll
    for (int r = 0; r < kDotRows; ++r) {
      if (r < num_rows) sums[r] = fmaf(AsInputOf<W>(x[r][i]), weight, sums[r]);
    }
  }
  return SumRows(sums, num_rows);
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_DOT_ROWS_CUH_
