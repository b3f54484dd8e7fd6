// Gated MLPs with bfloat16 weights on the tensor cores (mma_strip.cuh): gate and up strips together, their product as
// bfloat16, then strips of down. Each expert's weights are read once for each of its tiles.
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/ffn_work.cuh"
#include "kernels/cuda/mma_strip.cuh"

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
  const int64_t rest = n - first;
  return {work.Tile(blockIdx.x / num_strips, num_rows), first, static_cast<int>(rest < kStripRows ? rest : kStripRows)};
}

// The activation rows of a lane: row i * 8 + lane / 4 of the tile, or its first where there is none.
__device__ __forceinline__ int32_t RowOfLane(const RowTile& tile, int i) {
  const int row = i * kTokenTile + static_cast<int>(threadIdx.x) % kWarpSize / 4;
  return tile.first + (row < tile.count ? row : 0);
}

// hidden[i] = silu(gate x) * (up x), [rows in the caller's order, F].
template <int kTiles>
__global__ void __launch_bounds__(kStripThreads)
    GateUpMmaKernel(BFloat16* hidden, const BFloat16* x, FfnWork work, FfnShape shape) {
  CADRE_SHARED(StripSums, sums, );
  const StripPlace place = PlaceOf(work, shape.num_rows, shape.f);
  if (place.tile.count == 0) return;
  const BFloat16* rows[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) rows[i] = x + work.Assignment(RowOfLane(place.tile, i)) / work.top_k * shape.d;
  const ExpertPointers expert = work.Expert(place.tile.expert);
  const int64_t offset = place.first_column * shape.d;
  float gate[kTiles];
  float up[kTiles];
  StripProducts<kTiles>(gate, static_cast<const BFloat16*>(expert.gate) + offset, place.num_columns, rows, shape.d,
                        sums);
  StripProducts<kTiles>(up, static_cast<const BFloat16*>(expert.up) + offset, place.num_columns, rows, shape.d, sums);
  if (StripRowOfThread() >= place.num_columns) return;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int token = i * kTokenTile + TokenOfThread();
    if (token >= place.tile.count) break;
    hidden[(place.tile.first + token) * shape.f + place.first_column + StripRowOfThread()] =
        ToBFloat16(Silu(gate[i]) * up[i]);
  }
}

// out[assignment] = down hidden.
template <int kTiles>
__global__ void __launch_bounds__(kStripThreads)
    DownMmaKernel(float* out, const BFloat16* hidden, FfnWork work, FfnShape shape) {
  CADRE_SHARED(StripSums, sums, );
  const StripPlace place = PlaceOf(work, shape.num_rows, shape.d);
  if (place.tile.count == 0) return;
  const BFloat16* rows[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) rows[i] = hidden + RowOfLane(place.tile, i) * shape.f;
  float products[kTiles];
  StripProducts<kTiles>(
      products, static_cast<const BFloat16*>(work.Expert(place.tile.expert).down) + place.first_column * shape.f,
      place.num_columns, rows, shape.f, sums);
  if (StripRowOfThread() >= place.num_columns) return;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int token = i * kTokenTile + TokenOfThread();
    if (token >= place.tile.count) break;
    out[work.Assignment(place.tile.first + token) * shape.d + place.first_column + StripRowOfThread()] = products[i];
  }
}

template <int kTiles>
cudaError_t LaunchTiles(cudaStream_t stream, View out, const BFloat16* x, BFloat16* hidden, const FfnWork& work,
                        const FfnShape& shape, unsigned num_tiles) {
  Grid grid = {.blocks = dim3(CeilDiv(shape.f, kStripRows) * num_tiles), .threads = dim3(kStripThreads)};
  const cudaError_t error = Launch(stream, grid, GateUpMmaKernel<kTiles>, hidden, x, work, shape);
  if (error != cudaSuccess) return error;
  grid.blocks = dim3(CeilDiv(shape.d, kStripRows) * num_tiles);
  return Launch(stream, grid, DownMmaKernel<kTiles>, Data<float>(out), hidden, work, shape);
}

}  // namespace

// Enough for the rows of an average expert, and no more: a column of a fragment that no row uses costs nothing but its
// registers, and how many rows share a reading of the weights changes no bit.
int32_t FfnMmaTileRows(int64_t rows_of_an_expert) {
  if (rows_of_an_expert <= kTokenTile) return kTokenTile;
  return rows_of_an_expert <= 2 * kTokenTile ? 2 * kTokenTile : kMaxTokenTiles * kTokenTile;
}

cudaError_t LaunchFfnMma(cudaStream_t stream, View out, ConstView x, BFloat16* rounded, BFloat16* hidden,
                         const FfnWork& work, const FfnShape& shape, unsigned num_tiles) {
  const cudaError_t error = LaunchRound(stream, rounded, x);
  if (error != cudaSuccess) return error;
  switch (work.tile_rows / kTokenTile) {
    case 1:
      return LaunchTiles<1>(stream, out, rounded, hidden, work, shape, num_tiles);
    case 2:
      return LaunchTiles<2>(stream, out, rounded, hidden, work, shape, num_tiles);
    default:
      CADRE_CHECK_EQ(work.tile_rows, kMaxTokenTiles * kTokenTile);
      return LaunchTiles<kMaxTokenTiles>(stream, out, rounded, hidden, work, shape, num_tiles);
  }
}

}  // namespace cadre::cuda
