// What the kernels of gated MLPs share: which rows meet which expert, as a list of tiles made on the device.
#ifndef CADRE_KERNELS_CUDA_FFN_WORK_CUH_
#define CADRE_KERNELS_CUDA_FFN_WORK_CUH_

#include <cstdint>

#include "kernels/cuda/cuda_kernels.h"

namespace cadre::cuda {

// Rows [first, first + count) in the caller's order, of one expert. count is 0 behind the end of the list.
struct __align__(16) RowTile {
  int32_t expert;
  int32_t first;
  int32_t count;
  int32_t unused;
};

struct FfnShape {
  int64_t num_rows;  // in the caller's order: assignments, or rows of x
  int64_t d;
  int64_t f;
};

// What a block works on. Without a list there is one MLP for all rows.
struct FfnWork {
  const RowTile* tiles;           // or null
  const ExpertPointers* experts;  // or null: `only`
  ExpertPointers only;
  const int32_t* order;  // caller's order -> assignment, or null: row i is row i
  int32_t top_k;         // assignments of a row
  int32_t tile_rows;     // most rows of a tile

  __device__ RowTile Tile(unsigned index, int64_t num_rows) const {
    if (tiles != nullptr) return tiles[index];
    const int64_t first = static_cast<int64_t>(index) * tile_rows;
    const int64_t rest = num_rows - first;
    return {0, static_cast<int32_t>(first), static_cast<int32_t>(rest < tile_rows ? rest : tile_rows), 0};
  }
  __device__ ExpertPointers Expert(int index) const {
    if (experts == nullptr) return only;
    return experts[index];
  }
  __device__ int32_t Assignment(int32_t row) const { return order == nullptr ? row : order[row]; }
};

// Most tiles that a list can have: every expert may end in one that is not full. The grid has as many blocks; those
// beyond the list end at once, so that the host needs to know no counts.
constexpr int64_t MaxTiles(int64_t num_assignments, int64_t num_experts, int64_t tile_rows) {
  return num_assignments / tile_rows + (num_assignments < num_experts ? num_assignments : num_experts);
}

// Fills tiles [max_tiles] from the offsets [E + 1], in rising order of experts; those that are absent get none.
cudaError_t LaunchMakeTiles(cudaStream_t stream, RowTile* tiles, const int32_t* offsets, const ExpertPointers* experts,
                            int num_experts, int tile_rows, int max_tiles);

// hidden [num_rows, F] is scratch; out [num_rows, D] in the order of assignments. One kernel by FMA, for all types and
// shapes, and one for bfloat16 on the tensor cores: REQUIRES CanUseTensorCores of all matrices there; `rounded` [T, D]
// is scratch.
cudaError_t LaunchFfnFma(cudaStream_t stream, DType dtype, View out, ConstView x, float* hidden, const FfnWork& work,
                         const FfnShape& shape, unsigned num_tiles);
cudaError_t LaunchFfnMma(cudaStream_t stream, View out, ConstView x, BFloat16* rounded, BFloat16* hidden,
                         const FfnWork& work, const FfnShape& shape, unsigned num_tiles);

// Rows of a tile for each of them.
int32_t FfnFmaTileRows();
int32_t FfnMmaTileRows(int64_t rows_of_an_expert, const FfnShape& shape);

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_FFN_WORK_CUH_
