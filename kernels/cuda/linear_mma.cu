// Linear with bfloat16 weights on the tensor cores (mma_strip.cuh).
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/mma_strip.cuh"

namespace cadre::cuda {
namespace {

constexpr int kPackThreads = 256;

// out[i] = x[i] as bfloat16.
__global__ void __launch_bounds__(kPackThreads) RoundKernel(BFloat16* out, const float* x, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (i < n) out[i] = ToBFloat16(x[i]);
}

struct LinearShape {
  int64_t num_rows;  // T
  int64_t n;
  int64_t depth;
  bool accumulate;
};

// Strips side by side over the weight rows; groups of kTiles * 8 activation rows follow one another.
template <int kTiles, typename B>
__global__ void __launch_bounds__(kStripThreads)
    LinearMmaKernel(float* out, const BFloat16* x, const BFloat16* weight, const B* bias, LinearShape shape) {
  CADRE_SHARED(StripSums, sums, );
  const auto num_strips = static_cast<unsigned>((shape.n + kStripRows - 1) / kStripRows);
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % num_strips) * kStripRows;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / num_strips) * kTiles * kTokenTile;
  const int64_t lane_row = first_row + threadIdx.x % kWarpSize / 4;
  const BFloat16* rows[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int64_t row = lane_row + i * kTokenTile;
    rows[i] = x + (row < shape.num_rows ? row : first_row) * shape.depth;
  }
  const int64_t rest = shape.n - first_column;
  float products[kTiles];
  StripProducts<kTiles>(products, weight + first_column * shape.depth,
                        static_cast<int>(rest < kStripRows ? rest : kStripRows), rows, shape.depth, sums);
  const int64_t column = first_column + StripRowOfThread();
  if (column >= shape.n) return;
  const float offset = bias == nullptr ? 0.0f : ToFloat(bias[column]);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int64_t row = first_row + i * kTokenTile + TokenOfThread();
    if (row >= shape.num_rows) break;
    float* const to = out + row * shape.n + column;
    const float value = products[i] + offset;
    *to = shape.accumulate ? *to + value : value;
  }
}

template <int kTiles>
cudaError_t LaunchTiles(cudaStream_t stream, View out, const BFloat16* x, ConstView weight, ConstView bias,
                        const LinearShape& shape) {
  const Grid grid = {.blocks = dim3(CeilDiv(shape.n, kStripRows) * CeilDiv(shape.num_rows, kTiles * kTokenTile)),
                     .threads = dim3(kStripThreads)};
  return DispatchFloat(bias.empty() ? DType::kBF16 : bias.dtype(), [&]<typename B>() {
    return Launch(stream, grid, LinearMmaKernel<kTiles, B>, Data<float>(out), x, Data<BFloat16>(weight), Data<B>(bias),
                  shape);
  });
}

}  // namespace

bool CanUseTensorCores(DType weights, int64_t depth) { return weights == DType::kBF16 && HasStripDepth(depth); }

cudaError_t LaunchRound(cudaStream_t stream, BFloat16* out, ConstView x) {
  const int64_t n = x.num_elements();
  return Launch(stream, {.blocks = dim3(CeilDiv(n, kPackThreads)), .threads = dim3(kPackThreads)}, RoundKernel, out,
                Data<float>(x), n);
}

cudaError_t LaunchLinearMma(cudaStream_t stream, View out, ConstView x, ConstView weight, ConstView bias,
                            bool accumulate, BFloat16* rounded) {
  if (x.dim(0) == 0) return cudaSuccess;
  const cudaError_t error = LaunchRound(stream, rounded, x);
  if (error != cudaSuccess) return error;
  const LinearShape shape = {
      .num_rows = x.dim(0), .n = weight.dim(0), .depth = weight.dim(1), .accumulate = accumulate};
  // How many rows share a reading of the weights changes no bit.
  if (shape.num_rows <= kTokenTile) return LaunchTiles<1>(stream, out, rounded, weight, bias, shape);
  if (shape.num_rows <= 2 * kTokenTile) return LaunchTiles<2>(stream, out, rounded, weight, bias, shape);
  return LaunchTiles<kMaxTokenTiles>(stream, out, rounded, weight, bias, shape);
}

}  // namespace cadre::cuda
