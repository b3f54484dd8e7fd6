// Numbers as kernels read and write them.
#ifndef CADRE_KERNELS_CUDA_NUMBERS_CUH_
#define CADRE_KERNELS_CUDA_NUMBERS_CUH_

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/dtype.h"

namespace cadre::cuda {

// The value that a product with weights of type W sees of an activation: as the models were trained, bfloat16 weights
// meet bfloat16 activations, others meet float32.
template <typename W>
__device__ __forceinline__ float AsInputOf(float x) {
  if constexpr (DTypeOf<W>::value == DType::kBF16) {
    return ToFloat(ToBFloat16(x));
  } else {
    return x;
  }
}

__device__ __forceinline__ float Silu(float x) { return x / (1.0f + expf(-x)); }

// The sum of a warp's values in every lane: a butterfly, so the order of additions is the same always.
template <typename T>
__device__ __forceinline__ T WarpSum(T x) {
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// The sum of a block's values in every thread: each warp by itself, then the warps in their order. All threads of the
// block call it; `of_warps` is shared, with room for one value of each warp.
template <typename T>
__device__ __forceinline__ T BlockSum(T x, T* of_warps) {
  const unsigned warp = threadIdx.x / kWarpSize;
  const unsigned num_warps = blockDim.x / kWarpSize;
  x = WarpSum(x);
  __syncthreads();  // a sum before this one may still be read
  if (threadIdx.x % kWarpSize == 0) of_warps[warp] = x;
  __syncthreads();
  T sum = 0;
  for (unsigned i = 0; i < num_warps; ++i) sum += of_warps[i];
  return sum;
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_NUMBERS_CUH_
