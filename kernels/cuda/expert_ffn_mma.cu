// Gated MLPs with bfloat16 weights on the tensor cores: gate and up together, their product as bfloat16, then down.
// Strips of weights for experts with few rows (mma_strip.cuh), tiles where there are many (mma_tile.cuh). Each expert's
// weights are read once for each of its tiles of rows.
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/ffn_work.cuh"
#include "kernels/cuda/mma_strip.cuh"
#include "kernels/cuda/mma_tile.cuh"

namespace cadre::cuda {
namespace {

struct StripPlace {
  RowTile tile;
  int64_t first_column;
  int num_columns;  // of the strip
};

__device__ __forceinline__ StripPlace PlaceOf(const FfnWork& work, int64_t num_rows, int64_t n) {
  const auto num_strips = static_cast<unsigned>((n + kStripRows - 1) / kStripRows);
  const int64_t first = static_cast<int64_t>(blockIdx.x % num_strips) * kStripRows;
  return {work.Tile(blockIdx.x / num_strips, num_rows), first, StripRowCount(n - first)};
}

// The activation rows of a lane: row i * 8 + lane / 4 of the tile, or its first where there is none.
__device__ __forceinline__ int32_t RowOfLane(const RowTile& tile, int i) {
  const int row = i * kTokenTile + static_cast<int>(threadIdx.x) % kWarpSize / 4;
  return tile.first + (row < tile.count ? row : 0);
}

// hidden[i] = silu(gate x) * (up x), [rows in the caller's order, F].
template <int kTiles, typename X>
__global__ void __launch_bounds__(kStripThreads)
    GateUpStripKernel(BFloat16* hidden, const X* x, FfnWork work, FfnShape shape) {
  CADRE_DYNAMIC_SHARED(StripRing<2>, ring);
  CADRE_SHARED(StripSums, sums, );
  const StripPlace place = PlaceOf(work, shape.num_rows, shape.f);
  if (place.tile.count == 0) return;
  const X* rows[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) rows[i] = x + work.Assignment(RowOfLane(place.tile, i)) / work.top_k * shape.d;
  const ExpertPointers expert = work.Expert(place.tile.expert);
  const int64_t offset = place.first_column * shape.d;
  const WeightStrips<2> strips = {
      {static_cast<const BFloat16*>(expert.gate) + offset, static_cast<const BFloat16*>(expert.up) + offset},
      place.num_columns};
  float products[2][kTiles];
  StripProducts(products, strips, rows, shape.d, ring, sums);
  if (StripRowOfThread() >= place.num_columns) return;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int token = i * kTokenTile + TokenOfThread();
    if (token >= place.tile.count) break;
    hidden[(place.tile.first + token) * shape.f + place.first_column + StripRowOfThread()] =
        ToBFloat16(Silu(products[0][i]) * products[1][i]);
  }
}

// out[assignment] = down hidden.
template <int kTiles>
__global__ void __launch_bounds__(kStripThreads)
    DownStripKernel(float* out, const BFloat16* hidden, FfnWork work, FfnShape shape) {
  CADRE_DYNAMIC_SHARED(StripRing<1>, ring);
  CADRE_SHARED(StripSums, sums, );
  const StripPlace place = PlaceOf(work, shape.num_rows, shape.d);
  if (place.tile.count == 0) return;
  const BFloat16* rows[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) rows[i] = hidden + RowOfLane(place.tile, i) * shape.f;
  const auto* const down = static_cast<const BFloat16*>(work.Expert(place.tile.expert).down);
  const WeightStrips<1> strip = {{down + place.first_column * shape.f}, place.num_columns};
  float products[1][kTiles];
  StripProducts(products, strip, rows, shape.f, ring, sums);
  if (StripRowOfThread() >= place.num_columns) return;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int token = i * kTokenTile + TokenOfThread();
    if (token >= place.tile.count) break;
    out[work.Assignment(place.tile.first + token) * shape.d + place.first_column + StripRowOfThread()] = products[0][i];
  }
}

// Weight rows of a gate-up tile: those of a warp are 32 of gate and the same 32 of up, so that a thread has both.
constexpr int kGateUpRows = kTileWeights / 2;
constexpr int kGateFrags = kWarpWeightFrags / 2;
static_assert(kCopyRows == kGateFrags * 16, "a copy is of gate alone, or of up alone");

__device__ __forceinline__ TileSources SourcesOf(const RowTile& tile) {
  TileSources from;
  from.num_weights = kTileWeights;
  from.num_tokens = tile.count;
  return from;
}

// Blocks go through a group of row tiles below one tile of weights before they turn to the next: tiles of an expert
// follow one another, and so its weights come from memory once for a group.
constexpr unsigned kTileGroup = 8;

struct TilePlace {
  RowTile tile;
  int64_t first_column;
};

__device__ __forceinline__ TilePlace TilePlaceOf(const FfnWork& work, int64_t num_rows, unsigned num_tiles, int64_t n,
                                                 int columns) {
  const auto num_columns = static_cast<unsigned>((n + columns - 1) / columns);
  const unsigned group = blockIdx.x / (kTileGroup * num_columns);
  const unsigned in_group = blockIdx.x % (kTileGroup * num_columns);
  const unsigned tile = group * kTileGroup + in_group % kTileGroup;
  const int64_t first_column = static_cast<int64_t>(in_group / kTileGroup) * columns;
  if (tile >= num_tiles) return {{}, first_column};
  return {work.Tile(tile, num_rows), first_column};
}

unsigned TileBlocks(unsigned num_tiles, int64_t n, int columns) {
  return CeilDiv(num_tiles, kTileGroup) * kTileGroup * CeilDiv(n, columns);
}

template <int kStages>
__global__ void __launch_bounds__(kTileThreads, kTileBlocksPerSm)
    GateUpTileKernel(BFloat16* hidden, const BFloat16* x, FfnWork work, FfnShape shape, unsigned num_tiles) {
  CADRE_DYNAMIC_SHARED(unsigned char, shared);
  const auto [tile, first_column] = TilePlaceOf(work, shape.num_rows, num_tiles, shape.f, kGateUpRows);
  if (tile.count == 0) return;
  const ExpertPointers expert = work.Expert(tile.expert);
  TileSources from = SourcesOf(tile);
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    // Columns beyond F repeat the first, and nobody keeps them.
    const int64_t column = first_column + i / 2 * kCopyRows + CopyRow(0);
    from.weights[i] = static_cast<const BFloat16*>(i % 2 == 0 ? expert.gate : expert.up) +
                      (column < shape.f ? column : first_column) * shape.d;
    const int32_t row = tile.first + (CopyRow(i) < tile.count ? CopyRow(i) : 0);
    from.tokens[i] = x + work.Assignment(row) / work.top_k * shape.d;
  }
  TileAccumulators acc = {};
  TileProducts<kStages>(acc, from, shape.d, shared);
#pragma unroll
  for (int i = 0; i < kGateFrags; ++i) {
#pragma unroll
    for (int j = 0; j < kWarpTokenFrags; ++j) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int64_t column = first_column + RowOfAccumulator(i, r) - FirstWeightOfWarp() / 2;
        const int token = TokenOfAccumulator(j, r);
        if (column >= shape.f || token >= tile.count) continue;
        hidden[(tile.first + token) * shape.f + column] = ToBFloat16(Silu(acc[i][j][r]) * acc[i + kGateFrags][j][r]);
      }
    }
  }
}

template <int kStages>
__global__ void __launch_bounds__(kTileThreads, kTileBlocksPerSm)
    DownTileKernel(float* out, const BFloat16* hidden, FfnWork work, FfnShape shape, unsigned num_tiles) {
  CADRE_DYNAMIC_SHARED(unsigned char, shared);
  const auto [tile, first_column] = TilePlaceOf(work, shape.num_rows, num_tiles, shape.d, kTileWeights);
  if (tile.count == 0) return;
  const auto* const down = static_cast<const BFloat16*>(work.Expert(tile.expert).down);
  TileSources from = SourcesOf(tile);
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    const int64_t column = first_column + CopyRow(i);
    from.weights[i] = down + (column < shape.d ? column : first_column) * shape.f;
    from.tokens[i] = hidden + (tile.first + (CopyRow(i) < tile.count ? CopyRow(i) : 0)) * shape.f;
  }
  TileAccumulators acc = {};
  TileProducts<kStages>(acc, from, shape.f, shared);
#pragma unroll
  for (int j = 0; j < kWarpTokenFrags; ++j) {
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const int token = TokenOfAccumulator(j, odd);
      if (token >= tile.count) continue;
      float* const row = out + work.Assignment(tile.first + token) * shape.d;
#pragma unroll
      for (int i = 0; i < kWarpWeightFrags; ++i) {
#pragma unroll
        for (int high = 0; high < 2; ++high) {
          const int64_t column = first_column + RowOfAccumulator(i, high * 2);
          if (column < shape.d) row[column] = acc[i][j][high * 2 + odd];
        }
      }
    }
  }
}

template <int kStages>
cudaError_t LaunchTiles(cudaStream_t stream, View out, const BFloat16* x, BFloat16* hidden, const FfnWork& work,
                        const FfnShape& shape, unsigned num_tiles) {
  Grid grid = {.blocks = dim3(TileBlocks(num_tiles, shape.f, kGateUpRows)),
               .threads = dim3(kTileThreads),
               .shared_bytes = TileSharedBytes(kStages)};
  const cudaError_t error = Launch(stream, grid, GateUpTileKernel<kStages>, hidden, x, work, shape, num_tiles);
  if (error != cudaSuccess) return error;
  grid.blocks = dim3(TileBlocks(num_tiles, shape.d, kTileWeights));
  return Launch(stream, grid, DownTileKernel<kStages>, Data<float>(out), hidden, work, shape, num_tiles);
}

template <int kTiles, typename X>
cudaError_t LaunchStrips(cudaStream_t stream, View out, const X* x, BFloat16* hidden, const FfnWork& work,
                         const FfnShape& shape, unsigned num_tiles) {
  Grid grid = {.blocks = dim3(CeilDiv(shape.f, kStripRows) * num_tiles),
               .threads = dim3(kStripThreads),
               .shared_bytes = sizeof(StripRing<2>)};
  const cudaError_t error = Launch(stream, grid, GateUpStripKernel<kTiles, X>, hidden, x, work, shape);
  if (error != cudaSuccess) return error;
  grid.blocks = dim3(CeilDiv(shape.d, kStripRows) * num_tiles);
  grid.shared_bytes = sizeof(StripRing<1>);
  return Launch(stream, grid, DownStripKernel<kTiles>, Data<float>(out), hidden, work, shape);
}

}  // namespace

// Enough for the rows of an average expert, and no more: a column of a fragment that no row uses costs nothing but its
// registers, and how many rows share a reading of the weights changes no bit.
int32_t FfnMmaTileRows(int64_t rows_of_an_expert, const FfnShape& shape) {
  if (rows_of_an_expert <= kTokenTile) return kTokenTile;
  if (rows_of_an_expert <= 2 * kTokenTile) return 2 * kTokenTile;
  const bool has_tiles = rows_of_an_expert > kMaxStripTokens && AreEnoughForTiles(shape.num_rows, shape.d) &&
                         AreEnoughForTiles(shape.num_rows, 2 * shape.f);
  return has_tiles ? kTileTokens : kMaxStripTokens;
}

cudaError_t LaunchFfnMma(cudaStream_t stream, View out, ConstView x, BFloat16* rounded, BFloat16* hidden,
                         const FfnWork& work, const FfnShape& shape, unsigned num_tiles) {
  if (x.dim(0) <= kMaxUnroundedRows && work.tile_rows == kTokenTile) {
    return LaunchStrips<1>(stream, out, Data<float>(x), hidden, work, shape, num_tiles);
  }
  const cudaError_t error = LaunchRound(stream, rounded, x);
  if (error != cudaSuccess) return error;
  switch (work.tile_rows) {
    case kTokenTile:
      return LaunchStrips<1>(stream, out, rounded, hidden, work, shape, num_tiles);
    case 2 * kTokenTile:
      return LaunchStrips<2>(stream, out, rounded, hidden, work, shape, num_tiles);
    case kMaxStripTokens:
      return LaunchStrips<kMaxTokenTiles>(stream, out, rounded, hidden, work, shape, num_tiles);
    default:
      CADRE_CHECK_EQ(work.tile_rows, kTileTokens);
      if (HasRoomForStages(kMostStages)) {
        return LaunchTiles<kMostStages>(stream, out, rounded, hidden, work, shape, num_tiles);
      }
      return LaunchTiles<kFewestStages>(stream, out, rounded, hidden, work, shape, num_tiles);
  }
}

}  // namespace cadre::cuda
