// Dot products of one weight row with several activation rows by one warp: the arithmetic of every product that the
// tensor cores do not do.
#ifndef CADRE_KERNELS_CUDA_DOT_ROWS_CUH_
#define CADRE_KERNELS_CUDA_DOT_ROWS_CUH_

#include <cstdint>

#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {

// Activation rows that share one reading of a weight row.
inline constexpr int kDotRows = 8;

// sums[r] = dot(x[r], w) over `depth` elements, in every lane, for r < num_rows. Each lane adds every 32nd element in
// rising order, and the lanes are added by WarpSum: the order depends on `depth` alone, never on num_rows.
template <typename W>
__device__ __forceinline__ void DotRows(float (&sums)[kDotRows], const W* w, const float* const (&x)[kDotRows],
                                        int num_rows, int64_t depth) {
#pragma unroll
  for (int r = 0; r < kDotRows; ++r) sums[r] = 0.0f;
  for (int64_t i = threadIdx.x % kWarpSize; i < depth; i += kWarpSize) {
    const float weight = ToFloat(w[i]);
#pragma unroll
    for (int r = 0; r < kDotRows; ++r) {
      if (r < num_rows) sums[r] = fmaf(AsInputOf<W>(x[r][i]), weight, sums[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kDotRows; ++r) sums[r] = WarpSum(sums[r]);
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_DOT_ROWS_CUH_
