#include <type_traits>

#include "tests/gpu/gpu_kernels.h"

namespace cadre::gpu {
namespace {

constexpr unsigned kThreads = 512;
// 16-byte loads of a thread that are under way at once.
constexpr int kLoads = 8;
constexpr uint32_t kUnlikelySum = 0xDEADBEEFu;

__global__ void __launch_bounds__(kThreads) ReadKernel(const uint4* data, int64_t count, uint32_t* sink) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + (kLoads - 1) * stride < count; i += kLoads * stride) {
    uint4 loaded[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) loaded[k] = data[i + k * stride];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) sum ^= loaded[k].x ^ loaded[k].y ^ loaded[k].z ^ loaded[k].w;
  }
  for (; i < count; i += stride) {
    const uint4 loaded = data[i];
    sum ^= loaded.x ^ loaded.y ^ loaded.z ^ loaded.w;
  }
  if (sum == kUnlikelySum) *sink = sum;
}

__global__ void EmptyKernel() {}

// A finalizer of hash functions: every bit of the result depends on every bit of x.
__device__ __forceinline__ uint32_t Mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ (x >> 16);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    RandomKernel(T* out, int64_t count, float mean, float deviation, uint32_t seed) {
  // Four uniform values of 16 bits have the sum's mean 4 * 32767.5 and its standard deviation 65536 / sqrt(3).
  constexpr float kSumMean = 131070.0f;
  constexpr float kSumDeviation = 37837.2f;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint32_t a = Mix(static_cast<uint32_t>(i) ^ Mix(static_cast<uint32_t>(i >> 32) + seed));
    const uint32_t b = Mix(a + 0x9E3779B9u);
    const uint32_t sum = (a & 0xFFFFu) + (a >> 16) + (b & 0xFFFFu) + (b >> 16);
    const float value = mean + deviation * ((static_cast<float>(sum) - kSumMean) / kSumDeviation);
    if constexpr (std::is_same_v<T, float>) {
      out[i] = value;
    } else {
      out[i] = ToBFloat16(value);
    }
  }
}

template <typename T>
cudaError_t LaunchRandomOf(cudaStream_t stream, T* out, int64_t count, float mean, float deviation, uint32_t seed) {
  constexpr int64_t kMostBlocks = 4096;
  const auto blocks =
      static_cast<unsigned>(count < kMostBlocks * kThreads ? cuda::CeilDiv(count, kThreads) : kMostBlocks);
  return cuda::Launch(stream, {.blocks = dim3(blocks), .threads = dim3(kThreads)}, RandomKernel<T>, out, count, mean,
                      deviation, seed);
}

}  // namespace

cudaError_t LaunchRead(cudaStream_t stream, const std::byte* data, size_t size_bytes, unsigned num_blocks,
                       uint32_t* sink) {
  return cuda::Launch(stream, {.blocks = dim3(num_blocks), .threads = dim3(kThreads)}, ReadKernel,
                      reinterpret_cast<const uint4*>(data), static_cast<int64_t>(size_bytes / sizeof(uint4)), sink);
}

cudaError_t LaunchEmpty(cudaStream_t stream) {
  return cuda::Launch(stream, {.blocks = dim3(1), .threads = dim3(32)}, EmptyKernel);
}

cudaError_t LaunchRandom(cudaStream_t stream, BFloat16* out, int64_t count, float mean, float deviation,
                         uint32_t seed) {
  return LaunchRandomOf(stream, out, count, mean, deviation, seed);
}
cudaError_t LaunchRandom(cudaStream_t stream, float* out, int64_t count, float mean, float deviation, uint32_t seed) {
  return LaunchRandomOf(stream, out, count, mean, deviation, seed);
}

}  // namespace cadre::gpu
