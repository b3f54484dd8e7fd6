// RmsNorm and Clamp.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kNormThreads = 256;
constexpr int kClampThreads = 256;

// One block for each row. out = x * rsqrt(mean(x^2) + epsilon) * weight.
template <typename W>
__global__ void __launch_bounds__(kNormThreads)
    RmsNormKernel(float* out, const float* x, const W* weight, int64_t d, float epsilon) {
  CADRE_SHARED(float, of_warps, [kNormThreads / kWarpSize]);
  const float* const from = x + static_cast<int64_t>(blockIdx.x) * d;
  float* const to = out + static_cast<int64_t>(blockIdx.x) * d;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < d; i += kNormThreads) sum += from[i] * from[i];
  sum = BlockSum(sum, of_warps);
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(d) + epsilon);
  for (int64_t i = threadIdx.x; i < d; i += kNormThreads) to[i] = from[i] * scale * ToFloat(weight[i]);
}

__global__ void __launch_bounds__(kClampThreads) ClampKernel(float* x, int64_t n, float limit) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kClampThreads + threadIdx.x;
  if (i >= n) return;
  // Comparisons that leave NaN alone.
  const float value = x[i];
  if (value > limit) x[i] = limit;
  if (value < -limit) x[i] = -limit;
}

}  // namespace

cudaError_t LaunchRmsNorm(cudaStream_t stream, View out, ConstView x, ConstView weight, float epsilon) {
  const int64_t d = weight.dim(0);
  const Grid grid = {.blocks = dim3(CeilDiv(x.num_elements(), d)), .threads = dim3(kNormThreads)};
  return DispatchFloat(weight.dtype(), [&]<typename W>() {
    return Launch(stream, grid, RmsNormKernel<W>, Data<float>(out), Data<float>(x), Data<W>(weight), d, epsilon);
  });
}

cudaError_t LaunchClamp(cudaStream_t stream, View x, float limit) {
  const int64_t n = x.num_elements();
  const Grid grid = {.blocks = dim3(CeilDiv(n, kClampThreads)), .threads = dim3(kClampThreads)};
  return Launch(stream, grid, ClampKernel, Data<float>(x), n, limit);
}

}  // namespace cadre::cuda
