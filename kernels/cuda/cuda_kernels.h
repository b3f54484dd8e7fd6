// The kernels, as the verbs of CudaOps order them: each function orders its launches on a stream and returns the error
// of the launch itself. Shapes are those of kernels/ops.h and have been checked; all memory is the device's. What a
// kernel finds wrong in the contents (an id out of range) stops the device: cudaErrorLaunchFailure at the next wait.
#ifndef CADRE_KERNELS_CUDA_CUDA_KERNELS_H_
#define CADRE_KERNELS_CUDA_CUDA_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/ops.h"
#include "kernels/view.h"

namespace cadre::cuda {

// An empty kernel: cudaErrorNoKernelImageForDevice when this build has none for the current device.
cudaError_t ProbeKernels();

// Widest head that attention computes.
inline constexpr int64_t kMaxAttentionHeadDim = 256;

cudaError_t LaunchGatherRows(cudaStream_t stream, View out, ConstView table, ConstView rows);
cudaError_t LaunchFillSampledTokens(cudaStream_t stream, View token_ids, ConstView sampled);
cudaError_t LaunchRmsNorm(cudaStream_t stream, View out, ConstView x, ConstView weight, float epsilon);
cudaError_t LaunchClamp(cudaStream_t stream, View x, float limit);
cudaError_t LaunchLinear(cudaStream_t stream, View out, ConstView x, ConstView weight, ConstView bias, bool accumulate);
// Whether products with such weights run on the tensor cores: bfloat16, of a depth that is a multiple of 32.
bool CanUseTensorCores(DType weights, int64_t depth);
// out[i] = x[i] as bfloat16.
cudaError_t LaunchRound(cudaStream_t stream, BFloat16* out, ConstView x);
// REQUIRES: CanUseTensorCores. `rounded` is scratch for x, [T, K].
cudaError_t LaunchLinearMma(cudaStream_t stream, View out, ConstView x, ConstView weight, ConstView bias,
                            bool accumulate, BFloat16* rounded);
cudaError_t LaunchRopeTable(cudaStream_t stream, View cos, View sin, ConstView positions, ConstView inverse_frequencies,
                            float amplitude);
cudaError_t LaunchRope(cudaStream_t stream, View x, ConstView cos, ConstView sin);

cudaError_t LaunchWriteKv(cudaStream_t stream, View k_cache, View v_cache, ConstView k, ConstView v, ConstView slots);
size_t AttentionScratchBytes(const OpsLimits& limits);
cudaError_t LaunchPagedAttention(cudaStream_t stream, View out, ConstView q, const PagedKv& kv,
                                 const AttentionOptions& options, int64_t max_positions, std::byte* scratch);

// Dynamic shared memory of a block.
size_t RouteTopKSharedBytes(int64_t num_experts, int64_t num_groups);
cudaError_t LaunchRouteTopK(cudaStream_t stream, View expert_ids, View weights, View probabilities, View log_sum_exp,
                            ConstView logits, ConstView selection_bias, ConstView row_sequence,
                            const RouterOptions& options);
cudaError_t LaunchAddGateNoise(cudaStream_t stream, View logits, ConstView seeds, ConstView row_sequence,
                               ConstView positions, int64_t layer, float deviation);
cudaError_t LaunchHashLogits(cudaStream_t stream, View logits, ConstView token_ids, int64_t layer, uint64_t seed);
cudaError_t LaunchChooseByExpert(cudaStream_t stream, View expert_ids, View weights, ConstView probabilities,
                                 ConstView row_sequence, ConstView positions, ConstView prompt_lengths,
                                 const ExpertChoiceOptions& choice, const RouterOptions& options);
cudaError_t LaunchReplayChoices(cudaStream_t stream, View expert_ids, View weights, ConstView logits,
                                ConstView probabilities, const RecordedChoices& recorded, const RouterOptions& options);
cudaError_t LaunchTallyRouting(cudaStream_t stream, const RoutingTally& tally, ConstView expert_ids, ConstView weights,
                               ConstView probabilities, ConstView log_sum_exp, ConstView row_sequence);
size_t LimitCapacitySharedBytes(int64_t num_experts, int64_t num_groups);
size_t LimitCapacityScratchBytes(int64_t num_assignments);
cudaError_t LaunchLimitCapacity(cudaStream_t stream, const LimitedRows& rows, View taken, const CapacityTally& tally,
                                const CapacityInputs& inputs, ConstView logits, ConstView probabilities,
                                ConstView selection_bias, const RouterOptions& options, std::byte* scratch);
size_t GroupByExpertSharedBytes(int64_t num_experts);
cudaError_t LaunchGroupByExpert(cudaStream_t stream, View order, View offsets, ConstView expert_ids);

// The matrices of one gated MLP on the device; null where they are absent.
struct ExpertPointers {
  const void* gate = nullptr;  // [F, D]
  const void* up = nullptr;    // [F, D]
  const void* down = nullptr;  // [D, F]
};
// The experts of one layer, all of one shape and dtype.
struct ExpertTable {
  const ExpertPointers* experts = nullptr;  // [E], on the device
  DType dtype = DType::kBF16;
  int64_t ffn_size = 0;  // F
};
struct FfnScratch {
  BFloat16* rounded = nullptr;  // [T, D]
  float* hidden = nullptr;      // [A or T, F]
  std::byte* tiles = nullptr;   // ExpertFfnTileBytes
};
size_t ExpertFfnTileBytes(int64_t num_assignments, int64_t num_experts);
cudaError_t LaunchExpertFfn(cudaStream_t stream, View y, ConstView x, ConstView order, ConstView offsets,
                            const ExpertTable& table, const FfnScratch& scratch);
cudaError_t LaunchGatedMlp(cudaStream_t stream, View out, ConstView x, const MlpWeights& weights,
                           const FfnScratch& scratch);

// Most tokens that LaunchSample chooses from.
int64_t LargestSampleVocab();
cudaError_t LaunchSample(cudaStream_t stream, const SampleOutputs& out, View logits, ConstView rows, View extras);

cudaError_t LaunchCombine(cudaStream_t stream, View x, ConstView y, ConstView weights);
cudaError_t LaunchAddGated(cudaStream_t stream, View x, ConstView y, ConstView gate_logits);

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_CUDA_KERNELS_H_
