// Linear with bfloat16 weights on the tensor cores: strips of weights for few rows (mma_strip.cuh), tiles for many
// (mma_tile.cuh).
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/mma_strip.cuh"
#include "kernels/cuda/mma_tile.cuh"

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
template <int kTiles, typename X, typename B>
__global__ void __launch_bounds__(kStripThreads)
    LinearStripKernel(float* out, const X* x, const BFloat16* weight, const B* bias, LinearShape shape) {
  CADRE_DYNAMIC_SHARED(StripRing<1>, ring);
  CADRE_SHARED(StripSums, sums, );
  const auto num_strips = static_cast<unsigned>((shape.n + kStripRows - 1) / kStripRows);
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % num_strips) * kStripRows;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / num_strips) * kTiles * kTokenTile;
  const int64_t lane_row = first_row + threadIdx.x % kWarpSize / 4;
  const X* rows[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int64_t row = lane_row + i * kTokenTile;
    rows[i] = x + (row < shape.num_rows ? row : first_row) * shape.depth;
  }
  float products[1][kTiles];
  const WeightStrips<1> strip = {{weight + first_column * shape.depth}, StripRowCount(shape.n - first_column)};
  StripProducts(products, strip, rows, shape.depth, ring, sums);
  const int64_t column = first_column + StripRowOfThread();
  if (column >= shape.n) return;
  const float offset = bias == nullptr ? 0.0f : ToFloat(bias[column]);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int64_t row = first_row + i * kTokenTile + TokenOfThread();
    if (row >= shape.num_rows) break;
    float* const to = out + row * shape.n + column;
    const float value = products[0][i] + offset;
    *to = shape.accumulate ? *to + value : value;
  }
}

// Tiles of rows follow one another below each tile of weights, which is then read from memory once.
template <int kStages, typename B>
__global__ void __launch_bounds__(kTileThreads, kTileBlocksPerSm)
    LinearTileKernel(float* out, const BFloat16* x, const BFloat16* weight, const B* bias, LinearShape shape) {
  CADRE_DYNAMIC_SHARED(unsigned char, shared);
  const auto num_row_tiles = static_cast<unsigned>((shape.num_rows + kTileTokens - 1) / kTileTokens);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x % num_row_tiles) * kTileTokens;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x / num_row_tiles) * kTileWeights;
  TileSources from;
  from.num_weights = TileCount(shape.n - first_column, kTileWeights);
  from.num_tokens = TileCount(shape.num_rows - first_row, kTileTokens);
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    from.weights[i] = weight + (first_column + (CopyRow(i) < from.num_weights ? CopyRow(i) : 0)) * shape.depth;
    from.tokens[i] = x + (first_row + (CopyRow(i) < from.num_tokens ? CopyRow(i) : 0)) * shape.depth;
  }
  TileAccumulators acc = {};
  TileProducts<kStages>(acc, from, shape.depth, shared);
#pragma unroll
  for (int i = 0; i < kWarpWeightFrags; ++i) {
#pragma unroll
    for (int high = 0; high < 2; ++high) {
      const int row = RowOfAccumulator(i, high * 2);
      if (row >= from.num_weights) continue;
      const float offset = bias == nullptr ? 0.0f : ToFloat(bias[first_column + row]);
      float* const column = out + first_row * shape.n + first_column + row;
      // All old values of a row of accumulators are on their way before the first new one is stored.
      float old[kWarpTokenFrags][2] = {};
      if (shape.accumulate) {
#pragma unroll
        for (int j = 0; j < kWarpTokenFrags; ++j) {
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            const int token = TokenOfAccumulator(j, odd);
            if (token < from.num_tokens) old[j][odd] = column[token * shape.n];
          }
        }
      }
#pragma unroll
      for (int j = 0; j < kWarpTokenFrags; ++j) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          const int token = TokenOfAccumulator(j, odd);
          const float value = acc[i][j][high * 2 + odd] + offset;
          if (token < from.num_tokens) column[token * shape.n] = shape.accumulate ? old[j][odd] + value : value;
        }
      }
    }
  }
}

template <int kTiles, typename X>
cudaError_t LaunchStrips(cudaStream_t stream, View out, const X* x, ConstView weight, ConstView bias,
                         const LinearShape& shape) {
  const Grid grid = {.blocks = dim3(CeilDiv(shape.n, kStripRows) * CeilDiv(shape.num_rows, kTiles * kTokenTile)),
                     .threads = dim3(kStripThreads),
                     .shared_bytes = sizeof(StripRing<1>)};
  return DispatchFloat(bias.empty() ? DType::kBF16 : bias.dtype(), [&]<typename B>() {
    return Launch(stream, grid, LinearStripKernel<kTiles, X, B>, Data<float>(out), x, Data<BFloat16>(weight),
                  Data<B>(bias), shape);
  });
}

template <int kStages>
cudaError_t LaunchTiles(cudaStream_t stream, View out, const BFloat16* x, ConstView weight, ConstView bias,
                        const LinearShape& shape) {
  const Grid grid = {.blocks = dim3(CeilDiv(shape.n, kTileWeights) * CeilDiv(shape.num_rows, kTileTokens)),
                     .threads = dim3(kTileThreads),
                     .shared_bytes = TileSharedBytes(kStages)};
  return DispatchFloat(bias.empty() ? DType::kBF16 : bias.dtype(), [&]<typename B>() {
    return Launch(stream, grid, LinearTileKernel<kStages, B>, Data<float>(out), x, Data<BFloat16>(weight),
                  Data<B>(bias), shape);
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
  const LinearShape shape = {
      .num_rows = x.dim(0), .n = weight.dim(0), .depth = weight.dim(1), .accumulate = accumulate};
  if (shape.num_rows <= kMaxUnroundedRows) {
    return LaunchStrips<1>(stream, out, Data<float>(x), weight, bias, shape);
  }
  const cudaError_t error = LaunchRound(stream, rounded, x);
  if (error != cudaSuccess) return error;
  // How many rows share a reading of the weights changes no bit.
  if (!AreEnoughForTiles(shape.num_rows, shape.n)) {
    if (shape.num_rows <= 2 * kTokenTile) return LaunchStrips<2>(stream, out, rounded, weight, bias, shape);
    return LaunchStrips<kMaxTokenTiles>(stream, out, rounded, weight, bias, shape);
  }
  if (HasRoomForStages(kMostStages)) return LaunchTiles<kMostStages>(stream, out, rounded, weight, bias, shape);
  return LaunchTiles<kFewestStages>(stream, out, rounded, weight, bias, shape);
}

}  // namespace cadre::cuda
