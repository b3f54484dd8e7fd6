// Rotary position embedding (Su et al. 2021, "RoFormer"), pairs (i, i + r/2).
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kRopeThreads = 256;

__global__ void __launch_bounds__(kRopeThreads)
    RopeTableKernel(float* cos_out, float* sin_out, const int32_t* positions, const float* inverse_frequencies,
                    int64_t num_rows, int64_t half, float amplitude) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRopeThreads + threadIdx.x;
  if (i >= num_rows * half) return;
  // The angle is rounded to float32, as the models were trained; sine and cosine of it are then exact to the last bit.
  const float angle = static_cast<float>(positions[i / half]) * inverse_frequencies[i % half];
  double s = 0.0;
  double c = 0.0;
  sincos(static_cast<double>(angle), &s, &c);
  cos_out[i] = static_cast<float>(c) * amplitude;
  sin_out[i] = static_cast<float>(s) * amplitude;
}

// One block for each row.
__global__ void __launch_bounds__(kRopeThreads)
    RopeKernel(float* x, const float* cos_table, const float* sin_table, int64_t num_heads, int64_t d, int64_t half) {
  const int64_t row = blockIdx.x;
  for (int64_t pair = threadIdx.x; pair < num_heads * half; pair += kRopeThreads) {
    const int64_t i = pair % half;
    float* const first = x + (row * num_heads + pair / half) * d + i;
    float* const second = first + half;
    const float c = cos_table[row * half + i];
    const float s = sin_table[row * half + i];
    const float a = *first;
    const float b = *second;
    *first = a * c - b * s;
    *second = b * c + a * s;
  }
}

}  // namespace

cudaError_t LaunchRopeTable(cudaStream_t stream, View cos, View sin, ConstView positions, ConstView inverse_frequencies,
                            float amplitude) {
  const Grid grid = {.blocks = dim3(CeilDiv(cos.num_elements(), kRopeThreads)), .threads = dim3(kRopeThreads)};
  return Launch(stream, grid, RopeTableKernel, Data<float>(cos), Data<float>(sin), Data<int32_t>(positions),
                Data<float>(inverse_frequencies), cos.dim(0), cos.dim(1), amplitude);
}

cudaError_t LaunchRope(cudaStream_t stream, View x, ConstView cos, ConstView sin) {
  const Grid grid = {.blocks = dim3(static_cast<unsigned>(x.dim(0))), .threads = dim3(kRopeThreads)};
  return Launch(stream, grid, RopeKernel, Data<float>(x), Data<float>(cos), Data<float>(sin), x.dim(1), x.dim(2),
                cos.dim(1));
}

}  // namespace cadre::cuda
