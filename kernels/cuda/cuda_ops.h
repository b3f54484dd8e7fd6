// The verbs of kernels/ops.h on a GPU: checks shapes, and orders kernels on one stream.
#ifndef CADRE_KERNELS_CUDA_CUDA_OPS_H_
#define CADRE_KERNELS_CUDA_CUDA_OPS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cadre {

// What the verbs need of the device that they run on. It outlives them.
class CudaOpsHost {
 public:
  virtual ~CudaOpsHost() = default;
  virtual cudaStream_t stream() const = 0;
  virtual absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) = 0;
  virtual void CopyToDevice(View to, const void* from) = 0;
  // A verb cannot fail: what went wrong is the status of the next Synchronize.
  virtual void Note(absl::Status status) = 0;
  virtual void AfterVerb() = 0;
};

class CudaOps final : public Ops {
 public:
  explicit CudaOps(CudaOpsHost* host) : host_(*host) {}

  size_t ScratchBytes(const OpsLimits& limits) const override;
  absl::Status Reserve(const OpsLimits& limits) override;

  void GatherRows(View out, ConstView table, ConstView rows) override;
  void RmsNorm(View out, ConstView x, ConstView weight, float epsilon) override;
  void Linear(View out, ConstView x, ConstView weight, ConstView bias, bool accumulate) override;
  void Clamp(View x, float limit) override;
  void RopeTable(View cos, View sin, ConstView positions, ConstView inverse_frequencies, float amplitude) override;
  void Rope(View x, ConstView cos, ConstView sin) override;
  void WriteKv(View k_cache, View v_cache, ConstView k, ConstView v, ConstView slots) override;
  void PagedAttention(View out, ConstView q, const PagedKv& kv, const AttentionOptions& options) override;
  void RouteTopK(View expert_ids, View weights, View probabilities, View log_sum_exp, ConstView logits,
                 ConstView selection_bias, ConstView row_sequence, const RouterOptions& options) override;
  void AddGateNoise(View logits, ConstView seeds, ConstView row_sequence, ConstView positions, int64_t layer,
                    float deviation) override;
  void HashLogits(View logits, ConstView token_ids, int64_t layer, uint64_t seed) override;
  void ChooseByExpert(View expert_ids, View weights, ConstView probabilities, ConstView row_sequence,
                      ConstView positions, ConstView prompt_lengths, const ExpertChoiceOptions& choice,
                      const RouterOptions& options) override;
  void ReplayChoices(View expert_ids, View weights, ConstView logits, ConstView probabilities,
                     const RecordedChoices& recorded, const RouterOptions& options) override;
  void TallyRouting(const RoutingTally& tally, ConstView expert_ids, ConstView weights, ConstView probabilities,
                    ConstView log_sum_exp, ConstView row_sequence) override;
  bool can_limit_capacity() const override { return true; }
  void LimitCapacity(const LimitedRows& rows, View taken, const CapacityTally& tally, const CapacityInputs& inputs,
                     ConstView logits, ConstView probabilities, ConstView selection_bias,
                     const RouterOptions& options) override;
  void GroupByExpert(View order, View offsets, ConstView expert_ids) override;
  void ExpertFfn(View y, ConstView x, ConstView order, ConstView offsets, std::span<const MlpWeights> experts) override;
  void PlaceExperts(std::span<const MlpWeights> experts) override { Send(experts); }
  void Combine(View x, ConstView y, ConstView weights) override;
  void GatedMlp(View out, ConstView x, const MlpWeights& weights) override;
  void AddGated(View x, ConstView y, ConstView gate_logits) override;
  bool can_sample(int64_t vocab_size) const override { return vocab_size <= cuda::LargestSampleVocab(); }
  void Sample(const SampleOutputs& out, View logits, ConstView rows, View extras) override;
  void FillSampledTokens(View token_ids, ConstView sampled) override;

 private:
  // Sizes of the parts of the scratch, multiples of 256.
  struct ScratchSizes {
    size_t rounded = 0;  // inputs of a product as bfloat16
    size_t attention = 0;
    size_t hidden = 0;  // of gated MLPs
    size_t tiles = 0;
    size_t capacity = 0;
    size_t total() const { return rounded + attention + hidden + tiles + capacity; }
  };
  // The experts of a layer as the kernels read them, beside what was sent.
  struct SentTable {
    std::vector<cuda::ExpertPointers> experts;
    DeviceBuffer on_device;
  };

  static ScratchSizes PlanScratch(const OpsLimits& limits);
  BFloat16* rounded() const { return reinterpret_cast<BFloat16*>(scratch_.data()); }
  cuda::FfnScratch ffn_scratch() const;
  void Order(cudaError_t error, const char* verb);
  // Null, with the error noted, when there is no memory for it.
  const SentTable* Send(std::span<const MlpWeights> experts);

  CudaOpsHost& host_;
  OpsLimits limits_;
  ScratchSizes sizes_;
  DeviceBuffer scratch_;
  std::unordered_map<const MlpWeights*, SentTable> tables_;  // by where the layer's experts stand
};

}  // namespace cadre

#endif  // CADRE_KERNELS_CUDA_CUDA_OPS_H_
