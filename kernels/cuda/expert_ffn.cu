// Gated MLPs: the experts chosen for each row, and shared or dense ones. Which kernels run is decided by the weights'
// type and shape alone.
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/ffn_work.cuh"

namespace cadre::cuda {
namespace {

// The smallest tiles that any kernel uses need the longest list.
int64_t LongestList(int64_t num_assignments, int64_t num_experts) {
  const int32_t fma = FfnFmaTileRows();
  const int32_t mma = FfnMmaTileRows(1, {});
  return MaxTiles(num_assignments, num_experts, fma < mma ? fma : mma);
}

bool UsesTensorCores(DType dtype, const FfnShape& shape) {
  return CanUseTensorCores(dtype, shape.d) && CanUseTensorCores(dtype, shape.f);
}

cudaError_t LaunchFfn(cudaStream_t stream, DType dtype, View out, ConstView x, const FfnScratch& scratch,
                      const FfnWork& work, const FfnShape& shape, unsigned num_tiles) {
  if (!UsesTensorCores(dtype, shape)) {
    return LaunchFfnFma(stream, dtype, out, x, scratch.hidden, work, shape, num_tiles);
  }
  return LaunchFfnMma(stream, out, x, scratch.rounded, reinterpret_cast<BFloat16*>(scratch.hidden), work, shape,
                      num_tiles);
}

int32_t TileRows(DType dtype, const FfnShape& shape, int64_t rows_of_an_expert) {
  return UsesTensorCores(dtype, shape) ? FfnMmaTileRows(rows_of_an_expert, shape) : FfnFmaTileRows();
}

}  // namespace

size_t ExpertFfnTileBytes(int64_t num_assignments, int64_t num_experts) {
  return static_cast<size_t>(LongestList(num_assignments, num_experts)) * sizeof(RowTile);
}

cudaError_t LaunchExpertFfn(cudaStream_t stream, View y, ConstView x, ConstView order, ConstView offsets,
                            const ExpertTable& table, const FfnScratch& scratch) {
  const int64_t num_assignments = order.dim(0);
  const int64_t num_experts = offsets.dim(0) - 1;
  const FfnShape shape = {num_assignments, x.dim(1), table.ffn_size};
  const int32_t tile_rows = TileRows(table.dtype, shape, (num_assignments + num_experts - 1) / num_experts);
  const auto max_tiles = static_cast<int>(MaxTiles(num_assignments, num_experts, tile_rows));
  RowTile* const tiles = reinterpret_cast<RowTile*>(scratch.tiles);
  const cudaError_t error = LaunchMakeTiles(stream, tiles, Data<int32_t>(offsets), table.experts,
                                            static_cast<int>(num_experts), tile_rows, max_tiles);
  if (error != cudaSuccess) return error;
  const FfnWork work = {.tiles = tiles,
                        .experts = table.experts,
                        .only = {},
                        .order = Data<int32_t>(order),
                        .top_k = static_cast<int32_t>(num_assignments / x.dim(0)),
                        .tile_rows = tile_rows};
  return LaunchFfn(stream, table.dtype, y, x, scratch, work, shape, static_cast<unsigned>(max_tiles));
}

cudaError_t LaunchGatedMlp(cudaStream_t stream, View out, ConstView x, const MlpWeights& weights,
                           const FfnScratch& scratch) {
  if (x.dim(0) == 0) return cudaSuccess;
  const FfnShape shape = {x.dim(0), x.dim(1), weights.gate.dim(0)};
  const FfnWork work = {.tiles = nullptr,
                        .experts = nullptr,
                        .only = {weights.gate.raw(), weights.up.raw(), weights.down.raw()},
                        .order = nullptr,
                        .top_k = 1,
                        .tile_rows = TileRows(weights.gate.dtype(), shape, x.dim(0))};
  return LaunchFfn(stream, weights.gate.dtype(), out, x, scratch, work, shape, CeilDiv(x.dim(0), work.tile_rows));
}

}  // namespace cadre::cuda
