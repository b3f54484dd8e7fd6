// What tests of the memory plan share: devices of any size, and a model that is large on paper.
#ifndef CADRE_TESTS_ENGINE_MODEL_PAPER_DEVICE_H_
#define CADRE_TESTS_ENGINE_MODEL_PAPER_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "engine/model/memory_plan.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/random_model.h"

namespace cadre {

inline constexpr int64_t kGiB = int64_t{1} << 30;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kExpertBytes = 336 * kMiB;  // of the large model, 256 of them

// A device that has as much memory as the test says; nothing is allocated on it.
class PaperDevice final : public Device {
 public:
  explicit PaperDevice(int64_t available_bytes, bool shares_host_memory = true, int64_t mapped_bytes = 0)
      : available_bytes_(available_bytes),
        shares_host_memory_(shares_host_memory),
        mapped_bytes_(mapped_bytes),
        device_(CreateCpuDevice({.num_threads = 1}).value()) {}

  std::string name() const override { return "paper"; }
  std::string kernels() const override { return "none"; }
  absl::StatusOr<DeviceBuffer> Allocate(size_t) override { return absl::ResourceExhaustedError("made of paper"); }
  size_t AvailableBytes() const override { return static_cast<size_t>(available_bytes_); }
  bool shares_host_memory() const override { return shares_host_memory_; }
  size_t AvailableMappedBytes() const override { return static_cast<size_t>(mapped_bytes_); }
  void CopyToDevice(View, const void*) override {}
  void CopyToHost(void*, ConstView) override {}
  absl::Status Synchronize() override { return absl::OkStatus(); }
  Ops& ops() override { return device_->ops(); }

 private:
  int64_t available_bytes_;
  bool shares_host_memory_;
  int64_t mapped_bytes_;
  std::unique_ptr<Device> device_;
};

// Mixtral 8x7B.
inline ModelConfig LargeConfig() {
  ModelConfig config = SmallConfig(ModelFamily::kMixtral);
  config.hidden_size = 4096;
  config.num_layers = 32;
  config.is_moe_layer.assign(32, true);
  config.num_heads = 32;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 32000;
  config.num_experts = 8;
  config.expert_ffn_size = 14336;
  config.max_position_embeddings = 32768;
  return config;
}

inline CheckpointSummary LargeSummary() {
  CheckpointSummary summary;
  summary.dtype = DType::kBF16;
  summary.dense_bytes = 3 * kGiB;
  summary.expert_bytes = 84 * kGiB;
  summary.one_expert_bytes = kExpertBytes;
  return summary;
}

// On a CPU.
inline absl::StatusOr<MemoryPlan> Plan(const ModelConfig& config, const CheckpointSummary& summary,
                                       const RunnerOptions& options, int64_t available_bytes) {
  PaperDevice device(available_bytes);
  return PlanMemory(config, summary, options, device, device.ops());
}

}  // namespace cadre

#endif  // CADRE_TESTS_ENGINE_MODEL_PAPER_DEVICE_H_
