// Linear by FMA: any weight type, any shape. One warp for each weight row and each kDotRows activation rows.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/dot_rows.cuh"

namespace cadre::cuda {
namespace {

constexpr int kLinearWarps = 8;

// Blocks side by side over the weight rows. Tiles of activation rows follow one another in the same dimension of the
// grid: the others end at 65,535.
__host__ __device__ constexpr unsigned PanelsOf(int64_t n) { return CeilDiv(n, kLinearWarps); }

template <typename W, typename B>
__global__ void __launch_bounds__(kLinearWarps* kWarpSize)
    LinearKernel(float* out, const float* x, const W* weight, const B* bias, int64_t num_rows, int64_t n, int64_t depth,
                 bool accumulate) {
  const unsigned num_panels = PanelsOf(n);
  const int64_t column = static_cast<int64_t>(blockIdx.x % num_panels) * kLinearWarps + threadIdx.x / kWarpSize;
  if (column >= n) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x / num_panels) * kDotRows;
  const int count = static_cast<int>(num_rows - first < kDotRows ? num_rows - first : kDotRows);
  const float* rows[kDotRows] = {};
#pragma unroll
  for (int r = 0; r < kDotRows; ++r) rows[r] = x + (first + (r < count ? r : 0)) * depth;
  const float dot = DotRows(weight + column * depth, rows, count, depth);
  if (!IsFirstOfRow() || RowOfLane() >= count) return;
  float* const to = out + (first + RowOfLane()) * n + column;
  const float value = dot + (bias == nullptr ? 0.0f : ToFloat(bias[column]));
  *to = accumulate ? *to + value : value;
}

}  // namespace

cudaError_t LaunchLinear(cudaStream_t stream, View out, ConstView x, ConstView weight, ConstView bias,
                         bool accumulate) {
  const int64_t n = weight.dim(0);
  const Grid grid = {.blocks = dim3(PanelsOf(n) * CeilDiv(x.dim(0), kDotRows)),
                     .threads = dim3(kLinearWarps * kWarpSize)};
  return DispatchFloat(weight.dtype(), [&]<typename W>() {
    return DispatchFloat(bias.empty() ? weight.dtype() : bias.dtype(), [&]<typename B>() {
      return Launch(stream, grid, LinearKernel<W, B>, Data<float>(out), Data<float>(x), Data<W>(weight), Data<B>(bias),
                    x.dim(0), n, x.dim(1), accumulate);
    });
  });
}

}  // namespace cadre::cuda
