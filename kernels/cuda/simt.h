// What kernels are written in: CUDA, or its twin on the host, under which tests run the same source without a GPU.
#ifndef CADRE_KERNELS_CUDA_SIMT_H_
#define CADRE_KERNELS_CUDA_SIMT_H_

#if defined(CADRE_SIMT_EMULATOR)
#include <simt_emulator.h>
#else
#include <cuda_runtime.h>

// NOLINTBEGIN(bugprone-macro-parentheses): the arguments are types and names
// The dynamic shared memory of a block as an array of `type`, 16-byte aligned.
#define CADRE_DYNAMIC_SHARED(type, name)                      \
  extern __shared__ __align__(16) unsigned char name##_raw[]; \
  type* const name = reinterpret_cast<type*>(name##_raw)

// A static shared variable: CADRE_SHARED(float, tile, [16][17]) or CADRE_SHARED(int, count, ). Unlike a plain
// __shared__ variable it begins every block of the emulator as NaNs.
#define CADRE_SHARED(type, name, dimensions) __shared__ type name dimensions
// NOLINTEND(bugprone-macro-parentheses)
#endif

namespace cadre::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_SIMT_H_
