// PagedAttention over [num_blocks, G, B, d] caches: which kernels run, and what joins the splits that they leave.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/dispatch.h"

namespace cadre::cuda {
namespace {

// Up to this many rows, splits are computed by blocks of their own.
constexpr int64_t kMaxSplitRows = 64;
// Blocks of a step that are enough: several for each multiprocessor of a large device.
constexpr int64_t kSplitBlocks = 2048;

// One warp for each row (x) and head (y).
__global__ void __launch_bounds__(kWarpSize) MergeSplitsKernel(AttentionTensors t) {
  const int64_t row = blockIdx.x;
  const int64_t head = blockIdx.y;
  if (t.sequences[row] == kPadding) return;
  const Range visible = VisibleTo(t.positions[row], t.sliding_window);
  const int64_t num_splits = (visible.end + kSplit - 1) / kSplit - visible.begin / kSplit;
  for (int64_t column = threadIdx.x; column < t.d; column += kWarpSize) {
    float sum = 0.0f;
    float largest = -INFINITY;
    float total = 0.0f;
    for (int64_t split = 0; split < num_splits; ++split) {
      const float* const from = PartialOf(t, row, head, split);
      const Joint joint = JointOf(largest, from[t.d]);
      sum = sum * joint.keep + from[column] * joint.add;
      total = total * joint.keep + from[t.d + 1] * joint.add;
      largest = joint.largest;
    }
    t.out[(row * t.num_heads + head) * t.d + column] = MeanOf(sum, total);
  }
}

int64_t MaxSplits(int64_t max_positions, int64_t sliding_window) {
  const int64_t seen = sliding_window > 0 && sliding_window < max_positions ? sliding_window : max_positions;
  return (seen + kSplit - 1) / kSplit + 1;  // a window may begin within a split
}

}  // namespace

unsigned SplitBlocks(int64_t num_rows_and_heads, int64_t max_splits) {
  const int64_t wanted = CeilDiv(kSplitBlocks, num_rows_and_heads);
  return static_cast<unsigned>(wanted < max_splits ? wanted : max_splits);
}

cudaError_t LaunchMergeSplits(cudaStream_t stream, const AttentionTensors& t) {
  const Grid grid = {.blocks = dim3(static_cast<unsigned>(t.num_rows), static_cast<unsigned>(t.num_heads)),
                     .threads = dim3(kWarpSize)};
  return Launch(stream, grid, MergeSplitsKernel, t);
}

size_t AttentionScratchBytes(const OpsLimits& limits) {
  const int64_t split_rows = limits.max_tokens < kMaxSplitRows ? limits.max_tokens : kMaxSplitRows;
  const int64_t floats = split_rows * limits.num_heads * MaxSplits(limits.max_positions, 0) * (limits.head_dim + 2);
  const size_t of_splits = static_cast<size_t>(floats) * sizeof(float);
  // Few rows need the one, many rows the other.
  const size_t of_runs = RunListBytes(limits.max_tokens);
  return of_splits > of_runs ? of_splits : of_runs;
}

cudaError_t LaunchPagedAttention(cudaStream_t stream, View out, ConstView q, const PagedKv& kv,
                                 const AttentionOptions& options, int64_t max_positions, std::byte* scratch) {
  const int64_t num_rows = q.dim(0);
  if (num_rows == 0) return cudaSuccess;
  const int64_t in_tables = kv.block_tables.dim(1) * kv.k_cache.dim(2);
  const int64_t reachable = in_tables < max_positions ? in_tables : max_positions;
  const AttentionTensors tensors = {.out = Data<float>(out),
                                    .partials = reinterpret_cast<float*>(scratch),
                                    .q = Data<float>(q),
                                    .k_cache = kv.k_cache.raw(),
                                    .v_cache = kv.v_cache.raw(),
                                    .tables = Data<int32_t>(kv.block_tables),
                                    .sequences = Data<int32_t>(kv.row_sequence),
                                    .positions = Data<int32_t>(kv.positions),
                                    .num_rows = num_rows,
                                    .num_sequences = kv.block_tables.dim(0),
                                    .max_blocks = kv.block_tables.dim(1),
                                    .num_heads = q.dim(1),
                                    .num_kv_heads = kv.k_cache.dim(1),
                                    .heads_per_kv = q.dim(1) / kv.k_cache.dim(1),
                                    .block_size = kv.k_cache.dim(2),
                                    .d = q.dim(2),
                                    .max_positions = reachable,
                                    .max_splits = MaxSplits(reachable, options.sliding_window),
                                    .scale = options.scale,
                                    .sliding_window = options.sliding_window};
  const bool by_split = num_rows <= kMaxSplitRows;
  const DType cache = kv.k_cache.dtype();
  const cudaError_t error = CanAttendOnTensorCores(cache, tensors.d, tensors.heads_per_kv)
                                ? LaunchAttendMma(stream, tensors, by_split, scratch)
                                : LaunchAttendFma(stream, tensors, cache, by_split);
  if (error != cudaSuccess || !by_split) return error;
  return LaunchMergeSplits(stream, tensors);
}

}  // namespace cadre::cuda
