// The list of tiles of gated MLPs.
#include "kernels/cuda/ffn_work.cuh"
#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {
namespace {

// In rising order of experts, by one warp.
__global__ void __launch_bounds__(kWarpSize)
    MakeTilesKernel(RowTile* tiles, const int32_t* offsets, const ExpertPointers* experts, int num_experts,
                    int tile_rows, int max_tiles) {
  const int lane = static_cast<int>(threadIdx.x);
  int before = 0;
  for (int first_expert = 0; first_expert < num_experts; first_expert += kWarpSize) {
    const int e = first_expert + lane;
    const int begin = e < num_experts ? offsets[e] : 0;
    const int end = e < num_experts && experts[e].gate != nullptr ? offsets[e + 1] : begin;
    const int num_tiles = (end - begin + tile_rows - 1) / tile_rows;
    int through = num_tiles;  // inclusive sum over the lanes
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const int other = __shfl_up_sync(kAllLanes, through, offset);
      if (lane >= offset) through += other;
    }
    for (int i = 0; i < num_tiles; ++i) {
      const int first = begin + i * tile_rows;
      const int count = end - first < tile_rows ? end - first : tile_rows;
      tiles[before + through - num_tiles + i] = {.expert = e, .first = first, .count = count, .unused = 0};
    }
    before += __shfl_sync(kAllLanes, through, kWarpSize - 1);
  }
  for (int i = before + lane; i < max_tiles; i += kWarpSize) tiles[i] = {};
}

}  // namespace

cudaError_t LaunchMakeTiles(cudaStream_t stream, RowTile* tiles, const int32_t* offsets, const ExpertPointers* experts,
                            int num_experts, int tile_rows, int max_tiles) {
  return Launch(stream, {.blocks = dim3(1), .threads = dim3(kWarpSize)}, MakeTilesKernel, tiles, offsets, experts,
                num_experts, tile_rows, max_tiles);
}

}  // namespace cadre::cuda
