// Combine and AddGated: what joins the residual stream. One writer for each element, in a fixed order.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

constexpr int kCombineThreads = 256;

// One block for each row (x) and kCombineThreads columns (y).
__global__ void __launch_bounds__(kCombineThreads)
    CombineKernel(float* x, const float* y, const float* weights, int64_t top_k, int64_t d) {
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kCombineThreads + threadIdx.x;
  if (column >= d) return;
  const int64_t row = blockIdx.x;
  float sum = x[row * d + column];
  for (int64_t j = 0; j < top_k; ++j) {
    const float weight = weights[row * top_k + j];
    if (weight != 0.0f) sum += weight * y[(row * top_k + j) * d + column];
  }
  x[row * d + column] = sum;
}

// `gate_logits` may be null.
__global__ void __launch_bounds__(kCombineThreads)
    AddGatedKernel(float* x, const float* y, const float* gate_logits, int64_t d) {
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kCombineThreads + threadIdx.x;
  if (column >= d) return;
  const int64_t row = blockIdx.x;
  const float gate = gate_logits == nullptr ? 1.0f : 1.0f / (1.0f + expf(-gate_logits[row]));
  x[row * d + column] += gate * y[row * d + column];
}

Grid ColumnsOfRows(int64_t num_rows, int64_t d) {
  return {.blocks = dim3(static_cast<unsigned>(num_rows), CeilDiv(d, kCombineThreads)),
          .threads = dim3(kCombineThreads)};
}

}  // namespace

cudaError_t LaunchCombine(cudaStream_t stream, View x, ConstView y, ConstView weights) {
  const int64_t d = x.dim(1);
  return Launch(stream, ColumnsOfRows(x.dim(0), d), CombineKernel, Data<float>(x), Data<float>(y), Data<float>(weights),
                weights.dim(1), d);
}

cudaError_t LaunchAddGated(cudaStream_t stream, View x, ConstView y, ConstView gate_logits) {
  const int64_t d = x.dim(1);
  return Launch(stream, ColumnsOfRows(x.dim(0), d), AddGatedKernel, Data<float>(x), Data<float>(y),
                Data<float>(gate_logits), d);
}

}  // namespace cadre::cuda
