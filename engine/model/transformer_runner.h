// The real model behind the seam: weights, KV cache, workspace and the transformer on one device.
#ifndef CADRE_ENGINE_MODEL_TRANSFORMER_RUNNER_H_
#define CADRE_ENGINE_MODEL_TRANSFORMER_RUNNER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/model_runner.h"
#include "engine/model/weights.h"
#include "kernels/device.h"

namespace cadre {

struct RunnerOptions {
  int32_t max_model_len = 0;              // 0: the model's max_position_embeddings; YaRN may reach further
  int32_t max_num_seqs = 64;              // S of the largest step
  int32_t max_num_batched_tokens = 2048;  // T of the largest step
  int32_t kv_block_size = 16;
  std::optional<DType> kv_dtype;  // absent: the type of the weights
  // KV cache size in bytes; absent: what is left of the device up to what max_num_seqs sequences of max_model_len
  // could use.
  std::optional<int64_t> kv_cache_bytes;
  // Records the work of decode steps at the start and replays it, where the device can (CUDA graphs).
  bool record_steps = true;
  // Samples where the logits are, where the device can.
  bool sample_on_device = true;
};

// Bytes by pool, decided before anything is loaded; printed by the server and answered by GetModel.
struct MemoryPlan {
  int64_t dense_weight_bytes = 0;
  int64_t expert_weight_bytes = 0;
  int64_t kv_cache_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t available_bytes = 0;  // of the device, before loading
  int32_t num_kv_blocks = 0;
  int32_t kv_block_size = 0;
  int32_t max_model_len = 0;
  DType weight_dtype = DType::kBF16;
  DType kv_dtype = DType::kBF16;
  int64_t total_bytes() const { return dense_weight_bytes + expert_weight_bytes + kv_cache_bytes + workspace_bytes; }
};

// RESOURCE_EXHAUSTED when the plan does not fit: says by how much, and which flag helps (--kv-cache-gb,
// --max-model-len, --max-num-batched-tokens). OUT_OF_RANGE for options that are.
absl::StatusOr<MemoryPlan> PlanMemory(const ModelConfig& config, const CheckpointSummary& checkpoint,
                                      const RunnerOptions& options, const Device& device, const Ops& ops);

// Allocates KV cache and workspace as planned, takes over the weights, and records steps. `device` must outlive the
// runner.
absl::StatusOr<std::unique_ptr<ModelRunner>> CreateTransformerRunner(const ModelConfig& config, Weights weights,
                                                                     const MemoryPlan& plan,
                                                                     const RunnerOptions& options, Device* device);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_TRANSFORMER_RUNNER_H_
