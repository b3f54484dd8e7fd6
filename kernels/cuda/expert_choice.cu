// ChooseByExpert: experts take the rows of a prompt's group that they fit best. One warp for each row, whose lanes ask
// for their experts how many rows of the group come before it.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/router_row.cuh"

namespace cadre::cuda {
namespace {

constexpr int kWarps = 4;

struct ChoiceTensors {
  int32_t* expert_ids;            // [T, K]
  float* weights;                 // [T, K]
  const float* probabilities;     // [T, E]
  const int32_t* row_sequence;    // [T]
  const int32_t* positions;       // [T]
  const int32_t* prompt_lengths;  // [S]
  int num_rows;
  int num_experts;
  int num_sequences;
  int top_k;
  int group;
  float scaling_factor;
  double factor;
};

// Rows that each expert takes of `count`.
__device__ __forceinline__ int PlacesOf(const ChoiceTensors& t, int count) {
  const double share = ceil(t.factor * static_cast<double>(count) / static_cast<double>(t.num_experts));
  if (share >= static_cast<double>(count)) return count;
  return share < 1.0 ? 1 : static_cast<int>(share);
}

__global__ void __launch_bounds__(kWarps* kWarpSize) ChooseByExpertKernel(ChoiceTensors t, int warp_bytes) {
  CADRE_DYNAMIC_SHARED(unsigned char, scratch);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int index = static_cast<int>(blockIdx.x) * kWarps + warp;
  if (index >= t.num_rows) return;
  const int32_t s = t.row_sequence[index];
  if (s == kPadding) return;
  if (s < 0 || s >= t.num_sequences) __trap();
  const int length = t.prompt_lengths[s];
  const int position = t.positions[index];
  if (position >= length) return;  // it is not of the prompt
  const int begin = position / t.group * t.group;
  const int count = min(t.group, length - begin);
  const int first = index - (position - begin);
  if (first < 0 || first + count > t.num_rows) __trap();
  if (t.row_sequence[first] != s || t.row_sequence[first + count - 1] != s || t.positions[first] != begin) __trap();

  uint8_t* const taken = scratch + warp * warp_bytes;
  const int places = PlacesOf(t, count);
  const float* const p = t.probabilities + static_cast<int64_t>(index) * t.num_experts;
  for (int e = Lane(); e < t.num_experts; e += kWarpSize) {
    const float own = p[e];
    int rank = 0;
    for (int row = first; row < first + count; ++row) {
      const float other = t.probabilities[static_cast<int64_t>(row) * t.num_experts + e];
      rank += other > own || (other == own && row < index) ? 1 : 0;
    }
    taken[e] = rank < places ? 0 : 1;
  }
  __syncwarp();
  int32_t* const ids = t.expert_ids + static_cast<int64_t>(index) * t.top_k;
  float* const weights = t.weights + static_cast<int64_t>(index) * t.top_k;
  for (int j = 0; j < t.top_k; ++j) {
    const int best = BestFree(p, taken, t.num_experts);
    __syncwarp();
    if (Lane() == 0) {
      if (best != kNone) taken[best] = 1;
      ids[j] = best == kNone ? kPadding : best;
      weights[j] = best == kNone ? 0.0f : p[best] * t.scaling_factor;
    }
    __syncwarp();
  }
}

}  // namespace

cudaError_t LaunchChooseByExpert(cudaStream_t stream, View expert_ids, View weights, ConstView probabilities,
                                 ConstView row_sequence, ConstView positions, ConstView prompt_lengths,
                                 const ExpertChoiceOptions& choice, const RouterOptions& options) {
  const ChoiceTensors tensors = {.expert_ids = Data<int32_t>(expert_ids),
                                 .weights = Data<float>(weights),
                                 .probabilities = Data<float>(probabilities),
                                 .row_sequence = Data<int32_t>(row_sequence),
                                 .positions = Data<int32_t>(positions),
                                 .prompt_lengths = Data<int32_t>(prompt_lengths),
                                 .num_rows = static_cast<int>(probabilities.dim(0)),
                                 .num_experts = static_cast<int>(probabilities.dim(1)),
                                 .num_sequences = static_cast<int>(prompt_lengths.dim(0)),
                                 .top_k = static_cast<int>(options.top_k),
                                 .group = static_cast<int>(choice.group),
                                 .scaling_factor = options.scaling_factor,
                                 .factor = choice.factor};
  const auto warp_bytes = static_cast<size_t>((probabilities.dim(1) + 15) / 16 * 16);
  const Grid grid = {.blocks = dim3(CeilDiv(probabilities.dim(0), kWarps)),
                     .threads = dim3(kWarps * kWarpSize),
                     .shared_bytes = kWarps * warp_bytes};
  return Launch(stream, grid, ChooseByExpertKernel, tensors, static_cast<int>(warp_bytes));
}

}  // namespace cadre::cuda
