// Starting a kernel on a stream.
#ifndef CADRE_KERNELS_CUDA_LAUNCH_H_
#define CADRE_KERNELS_CUDA_LAUNCH_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/simt.h"
#if defined(CADRE_SIMT_EMULATOR)
#include <simt_runtime.h>
#endif

namespace cadre::cuda {

struct Grid {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes = 0;  // dynamic
};

// Dynamic shared memory that a kernel may have without asking.
inline constexpr size_t kSharedBytesForAll = 48 << 10;

__host__ __device__ constexpr unsigned CeilDiv(int64_t a, int64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

// Orders `kernel` on `stream`. An empty grid is no launch. Errors of the launch itself are returned; those of the
// kernel surface where the stream is next waited for.
template <typename... Parameters, typename... Arguments>
[[nodiscard]] cudaError_t Launch(cudaStream_t stream, const Grid& grid, void (*kernel)(Parameters...),
                                 Arguments&&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return cudaSuccess;
  if (grid.shared_bytes > kSharedBytesForAll) {
    const auto bytes = static_cast<int>(grid.shared_bytes);
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_LAUNCH_H_
