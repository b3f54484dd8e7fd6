// Kernels that only measure: what the memory gives, what an empty launch costs, and numbers to multiply.
#ifndef CADRE_TESTS_GPU_GPU_KERNELS_H_
#define CADRE_TESTS_GPU_GPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/dtype.h"

namespace cadre::gpu {

// Reads `size_bytes` (a multiple of 16) once, by `num_blocks` blocks of 512 threads, each with several 16-byte loads in
// flight. `sink` (4 bytes) is written only if all bits that were read add up to one certain value.
cudaError_t LaunchRead(cudaStream_t stream, const std::byte* data, size_t size_bytes, unsigned num_blocks,
                       uint32_t* sink);
cudaError_t LaunchEmpty(cudaStream_t stream);
// Independent values of about normal distribution (the sum of four uniform ones) of mean `mean` and standard deviation
// `deviation`, which depend on `seed` and the element's number alone.
cudaError_t LaunchRandom(cudaStream_t stream, BFloat16* out, int64_t count, float mean, float deviation, uint32_t seed);
cudaError_t LaunchRandom(cudaStream_t stream, float* out, int64_t count, float mean, float deviation, uint32_t seed);

}  // namespace cadre::gpu

#endif  // CADRE_TESTS_GPU_GPU_KERNELS_H_
