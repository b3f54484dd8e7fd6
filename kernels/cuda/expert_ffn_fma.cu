// Gated MLPs by FMA, for every weight type and shape.
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/dot_rows.cuh"
#include "kernels/cuda/ffn_work.cuh"

namespace cadre::cuda {
namespace {

constexpr int kFfnWarps = 8;

// Blocks side by side over the weight rows of a matrix. Tiles follow one another in the same dimension of the grid: the
// others end at 65,535.
__host__ __device__ constexpr unsigned PanelsOf(int64_t n) { return CeilDiv(n, kFfnWarps); }

// hidden[i] = silu(gate x) * (up x), [rows in the caller's order, F].
template <typename W>
__global__ void __launch_bounds__(kFfnWarps* kWarpSize)
    GateUpKernel(float* hidden, const float* x, FfnWork work, FfnShape shape) {
  const unsigned num_panels = PanelsOf(shape.f);
  const int64_t column = static_cast<int64_t>(blockIdx.x % num_panels) * kFfnWarps + threadIdx.x / kWarpSize;
  const RowTile tile = work.Tile(blockIdx.x / num_panels, shape.num_rows);
  if (tile.count == 0 || column >= shape.f) return;
  const float* rows[kDotRows] = {};
#pragma unroll
  for (int r = 0; r < kDotRows; ++r) {
    const int32_t row = tile.first + (r < tile.count ? r : 0);
    rows[r] = x + work.Assignment(row) / work.top_k * shape.d;
  }
  const ExpertPointers expert = work.Expert(tile.expert);
  const float gate = DotRows(static_cast<const W*>(expert.gate) + column * shape.d, rows, tile.count, shape.d);
  const float up = DotRows(static_cast<const W*>(expert.up) + column * shape.d, rows, tile.count, shape.d);
  if (!IsFirstOfRow() || RowOfLane() >= tile.count) return;
  hidden[(tile.first + RowOfLane()) * shape.f + column] = Silu(gate) * up;
}

// out[assignment] = down hidden.
template <typename W>
__global__ void __launch_bounds__(kFfnWarps* kWarpSize)
    DownKernel(float* out, const float* hidden, FfnWork work, FfnShape shape) {
  const unsigned num_panels = PanelsOf(shape.d);
  const int64_t column = static_cast<int64_t>(blockIdx.x % num_panels) * kFfnWarps + threadIdx.x / kWarpSize;
  const RowTile tile = work.Tile(blockIdx.x / num_panels, shape.num_rows);
  if (tile.count == 0 || column >= shape.d) return;
  const float* rows[kDotRows] = {};
#pragma unroll
  for (int r = 0; r < kDotRows; ++r) rows[r] = hidden + (tile.first + (r < tile.count ? r : 0)) * shape.f;
  const W* const weight = static_cast<const W*>(work.Expert(tile.expert).down) + column * shape.f;
  const float dot = DotRows(weight, rows, tile.count, shape.f);
  if (!IsFirstOfRow() || RowOfLane() >= tile.count) return;
  out[work.Assignment(tile.first + RowOfLane()) * shape.d + column] = dot;
}

}  // namespace

int32_t FfnFmaTileRows() { return kDotRows; }

cudaError_t LaunchFfnFma(cudaStream_t stream, DType dtype, View out, ConstView x, float* hidden, const FfnWork& work,
                         const FfnShape& shape, unsigned num_tiles) {
  const Grid gate_up = {.blocks = dim3(PanelsOf(shape.f) * num_tiles), .threads = dim3(kFfnWarps * kWarpSize)};
  const Grid down = {.blocks = dim3(PanelsOf(shape.d) * num_tiles), .threads = dim3(kFfnWarps * kWarpSize)};
  return DispatchFloat(dtype, [&]<typename W>() {
    const cudaError_t error = Launch(stream, gate_up, GateUpKernel<W>, hidden, Data<float>(x), work, shape);
    if (error != cudaSuccess) return error;
    return Launch(stream, down, DownKernel<W>, Data<float>(out), hidden, work, shape);
  });
}

}  // namespace cadre::cuda
