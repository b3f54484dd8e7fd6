// Gated MLPs by FMA: the experts chosen for each row, and shared or dense ones.
//
// Work is a list of tiles made on the device: up to kDotRows rows of one expert. The grid is the largest list that
// there can be; blocks beyond the list end at once, so that the host needs to know no counts.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/dot_rows.cuh"

namespace cadre::cuda {
namespace {

constexpr int kFfnWarps = 8;

// Blocks side by side over the weight rows of a matrix. Tiles follow one another in the same dimension of the grid: the
// others end at 65,535.
__host__ __device__ constexpr unsigned PanelsOf(int64_t n) { return CeilDiv(n, kFfnWarps); }

// Rows [first, first + count) in the caller's order, of one expert. count is 0 behind the end of the list.
struct __align__(16) RowTile {
  int32_t expert;
  int32_t first;
  int32_t count;
  int32_t unused;
};

// In rising order of experts, by one warp.
__global__ void __launch_bounds__(kWarpSize)
    MakeTilesKernel(RowTile* tiles, const int32_t* offsets, const ExpertPointers* experts, int num_experts,
                    int max_tiles) {
  const int lane = static_cast<int>(threadIdx.x);
  int before = 0;
  for (int first_expert = 0; first_expert < num_experts; first_expert += kWarpSize) {
    const int e = first_expert + lane;
    const int begin = e < num_experts ? offsets[e] : 0;
    const int end = e < num_experts && experts[e].gate != nullptr ? offsets[e + 1] : begin;
    const int num_tiles = (end - begin + kDotRows - 1) / kDotRows;
    int through = num_tiles;  // inclusive sum over the lanes
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const int other = __shfl_up_sync(kAllLanes, through, offset);
      if (lane >= offset) through += other;
    }
    for (int i = 0; i < num_tiles; ++i) {
      const int first = begin + i * kDotRows;
      const int count = end - first < kDotRows ? end - first : kDotRows;
      tiles[before + through - num_tiles + i] = {.expert = e, .first = first, .count = count, .unused = 0};
    }
    before += __shfl_sync(kAllLanes, through, kWarpSize - 1);
  }
  for (int i = before + lane; i < max_tiles; i += kWarpSize) tiles[i] = {};
}

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

  __device__ RowTile Tile(unsigned index, int64_t num_rows) const {
    if (tiles != nullptr) return tiles[index];
    const int64_t first = static_cast<int64_t>(index) * kDotRows;
    const int64_t rest = num_rows - first;
    return {0, static_cast<int32_t>(first), static_cast<int32_t>(rest < kDotRows ? rest : kDotRows), 0};
  }
  __device__ ExpertPointers Expert(int index) const {
    if (experts == nullptr) return only;
    return experts[index];
  }
  __device__ int32_t Assignment(int32_t row) const { return order == nullptr ? row : order[row]; }
};

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

cudaError_t LaunchFfn(cudaStream_t stream, DType dtype, View out, ConstView x, float* hidden, const FfnWork& work,
                      const FfnShape& shape, unsigned num_tiles) {
  const Grid gate_up = {.blocks = dim3(PanelsOf(shape.f) * num_tiles), .threads = dim3(kFfnWarps * kWarpSize)};
  const Grid down = {.blocks = dim3(PanelsOf(shape.d) * num_tiles), .threads = dim3(kFfnWarps * kWarpSize)};
  return DispatchFloat(dtype, [&]<typename W>() {
    const cudaError_t error = Launch(stream, gate_up, GateUpKernel<W>, hidden, Data<float>(x), work, shape);
    if (error != cudaSuccess) return error;
    return Launch(stream, down, DownKernel<W>, Data<float>(out), hidden, work, shape);
  });
}

// Every expert may end in a tile that is not full.
int64_t MaxTiles(int64_t num_assignments, int64_t num_experts) {
  const int64_t num_touched = num_assignments < num_experts ? num_assignments : num_experts;
  return num_assignments / kDotRows + num_touched;
}

}  // namespace

size_t ExpertFfnTileBytes(int64_t num_assignments, int64_t num_experts) {
  return static_cast<size_t>(MaxTiles(num_assignments, num_experts)) * sizeof(RowTile);
}

cudaError_t LaunchExpertFfn(cudaStream_t stream, View y, ConstView x, ConstView order, ConstView offsets,
                            const ExpertTable& table, const FfnScratch& scratch) {
  const int64_t num_assignments = order.dim(0);
  const int64_t num_experts = offsets.dim(0) - 1;
  RowTile* const tiles = reinterpret_cast<RowTile*>(scratch.tiles);
  const auto max_tiles = static_cast<int>(MaxTiles(num_assignments, num_experts));
  const cudaError_t error = Launch(stream, {.blocks = dim3(1), .threads = dim3(kWarpSize)}, MakeTilesKernel, tiles,
                                   Data<int32_t>(offsets), table.experts, static_cast<int>(num_experts), max_tiles);
  if (error != cudaSuccess) return error;
  const FfnWork work = {.tiles = tiles,
                        .experts = table.experts,
                        .only = {},
                        .order = Data<int32_t>(order),
                        .top_k = static_cast<int32_t>(num_assignments / x.dim(0))};
  return LaunchFfn(stream, table.dtype, y, x, scratch.hidden, work, {num_assignments, x.dim(1), table.ffn_size},
                   static_cast<unsigned>(max_tiles));
}

cudaError_t LaunchGatedMlp(cudaStream_t stream, View out, ConstView x, const MlpWeights& weights,
                           const FfnScratch& scratch) {
  const FfnWork work = {.tiles = nullptr,
                        .experts = nullptr,
                        .only = {weights.gate.raw(), weights.up.raw(), weights.down.raw()},
                        .order = nullptr,
                        .top_k = 1};
  return LaunchFfn(stream, weights.gate.dtype(), out, x, scratch.hidden, work,
                   {x.dim(0), x.dim(1), weights.gate.dim(0)}, CeilDiv(x.dim(0), kDotRows));
}

}  // namespace cadre::cuda
