// What the kernels of attention share: where the keys and values of a row are, and how parts of its softmax are joined.
//
// A sequence's positions are cut into splits at absolute multiples of kSplit. Within a split the softmax is computed
// online, in tiles of absolute positions; splits are merged in rising order. So a row's bits depend on its own position
// and sequence alone, whether its splits are computed by one block one after the other or by as many blocks as there
// are splits: which of the two it is, the number of rows decides.
#ifndef CADRE_KERNELS_CUDA_ATTENTION_CUH_
#define CADRE_KERNELS_CUDA_ATTENTION_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/simt.h"

namespace cadre::cuda {

inline constexpr int64_t kSplit = 256;

struct AttentionTensors {
  float* out;                // [T, H, d]
  float* partials;           // [T, H, splits, d + 2]: the sum of values, the largest score, the sum of weights
  const float* q;            // [T, H, d]
  const void* k_cache;       // [num_blocks, G, B, d]
  const void* v_cache;       // like k_cache
  const int32_t* tables;     // [S, max_blocks]
  const int32_t* sequences;  // [T]
  const int32_t* positions;  // [T]
  int64_t num_rows;
  int64_t num_sequences;
  int64_t max_blocks;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t heads_per_kv;
  int64_t block_size;
  int64_t d;
  int64_t max_positions;
  int64_t max_splits;
  float scale;
  int64_t sliding_window;
};

// Positions that a row sees: [begin, end).
struct Range {
  int64_t begin;
  int64_t end;
};
__device__ __forceinline__ Range VisibleTo(int64_t position, int64_t sliding_window) {
  const int64_t first = position - sliding_window + 1;
  return {sliding_window > 0 && first > 0 ? first : 0, position + 1};
}

// Stops the device if the row is of no sequence or no position that there is.
__device__ __forceinline__ void CheckRow(const AttentionTensors& t, int64_t sequence, int64_t position) {
  if (sequence < 0 || sequence >= t.num_sequences || position < 0 || position >= t.max_positions) __trap();
}

// exp(score - largest), where -infinity weighs nothing even if there is nothing larger.
__device__ __forceinline__ float WeightOf(float score, float largest) {
  return score == -INFINITY ? 0.0f : expf(score - largest);
}

// How a later part is joined to those before it: sums and totals become before * keep + later * add.
struct Joint {
  float largest;
  float keep;
  float add;
};
__device__ __forceinline__ Joint JointOf(float largest_before, float largest_later) {
  const float largest = fmaxf(largest_before, largest_later);
  return {largest, WeightOf(largest_before, largest), WeightOf(largest_later, largest)};
}

// The mean of the values. Zeros are positive: which one a sum of nothing but zeros is, may depend on how many there
// were.
__device__ __forceinline__ float MeanOf(float sum, float total) { return sum / total + 0.0f; }

__device__ __forceinline__ float* PartialOf(const AttentionTensors& t, int64_t row, int64_t head, int64_t split) {
  return t.partials + ((row * t.num_heads + head) * t.max_splits + split) * (t.d + 2);
}

// Blocks side by side over the splits of one row and kv head. The host does not know how long sequences are, only how
// long they may be: enough blocks for any device, and few that find nothing to do.
unsigned SplitBlocks(int64_t num_rows_and_heads, int64_t max_splits);
// Joins the splits of each row and head.
cudaError_t LaunchMergeSplits(cudaStream_t stream, const AttentionTensors& t);

// By FMA: caches of any type and heads of any width. If `by_split`, each split has a block, and partials are written.
cudaError_t LaunchAttendFma(cudaStream_t stream, const AttentionTensors& t, DType cache, bool by_split);

// On the tensor cores: bfloat16 caches, and some shapes. `runs` is scratch for RunListBytes.
bool CanAttendOnTensorCores(DType cache, int64_t head_dim, int64_t heads_per_kv);
size_t RunListBytes(int64_t max_rows);
cudaError_t LaunchAttendMma(cudaStream_t stream, const AttentionTensors& t, bool by_split, std::byte* runs);

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_ATTENTION_CUH_
