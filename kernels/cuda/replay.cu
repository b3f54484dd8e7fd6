// ReplayChoices: recorded choices of experts in the place of the router's. One warp for each row.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/router_row.cuh"

namespace cadre::cuda {
namespace {

constexpr int kReplayWarps = 4;

struct ReplayTensors {
  int32_t* expert_ids;            // [T, K]
  float* weights;                 // [T, K]
  const float* logits;            // [T, E]
  const float* probabilities;     // [T, E]
  const int32_t* modes;           // [T]
  const int32_t* recorded_ids;    // [T, K]
  const float* recorded_weights;  // [T, K]
  int num_rows;
  int num_experts;
};

__global__ void __launch_bounds__(kReplayWarps* kWarpSize)
    ReplayChoicesKernel(ReplayTensors t, RouterOptions options, int row_bytes) {
  CADRE_DYNAMIC_SHARED(unsigned char, scratch);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kReplayWarps + warp;
  if (index >= t.num_rows) return;
  const auto mode = static_cast<RowReplay>(t.modes[index]);
  if (mode == RowReplay::kNone) return;
  const int num_experts = t.num_experts;
  const int top_k = static_cast<int>(options.top_k);
  int32_t* const ids = t.expert_ids + index * top_k;
  float* const weights = t.weights + index * top_k;
  const bool is_recorded = mode == RowReplay::kRecordedWeights;
  for (int j = Lane(); j < top_k; j += kWarpSize) {
    const int32_t id = t.recorded_ids[index * top_k + j];
    if (id != kPadding && (id < 0 || id >= num_experts)) __trap();
    ids[j] = id;
    if (is_recorded) weights[j] = t.recorded_weights[index * top_k + j];
  }
  if (is_recorded) return;
  const RouterRow row = RouterRowAt(scratch + warp * row_bytes, num_experts, /*num_groups=*/1);
  for (int e = Lane(); e < num_experts; e += kWarpSize) row.z[e] = Defined(t.logits[index * num_experts + e]);
  // Groups and bias decide who is chosen, and have no part in weights.
  options.num_groups = 1;
  ScoreRow(row, t.probabilities + index * num_experts, /*bias=*/nullptr, num_experts, options);
  if (Lane() == 0) Weigh(weights, ids, row, options);
}

}  // namespace

cudaError_t LaunchReplayChoices(cudaStream_t stream, View expert_ids, View weights, ConstView logits,
                                ConstView probabilities, const RecordedChoices& recorded,
                                const RouterOptions& options) {
  const ReplayTensors tensors = {.expert_ids = Data<int32_t>(expert_ids),
                                 .weights = Data<float>(weights),
                                 .logits = Data<float>(logits),
                                 .probabilities = Data<float>(probabilities),
                                 .modes = Data<int32_t>(recorded.modes),
                                 .recorded_ids = Data<int32_t>(recorded.expert_ids),
                                 .recorded_weights = Data<float>(recorded.weights),
                                 .num_rows = static_cast<int>(logits.dim(0)),
                                 .num_experts = static_cast<int>(logits.dim(1))};
  const size_t row_bytes = RouterRowBytes(logits.dim(1), /*num_groups=*/1);
  const Grid grid = {.blocks = dim3(CeilDiv(logits.dim(0), kReplayWarps)),
                     .threads = dim3(kReplayWarps * kWarpSize),
                     .shared_bytes = kReplayWarps * row_bytes};
  return Launch(stream, grid, ReplayChoicesKernel, tensors, options, static_cast<int>(row_bytes));
}

}  // namespace cadre::cuda
