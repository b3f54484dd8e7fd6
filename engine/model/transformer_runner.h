// The real model behind the seam: weights, KV cache, workspace and the transformer on one device.
#ifndef CADRE_ENGINE_MODEL_TRANSFORMER_RUNNER_H_
#define CADRE_ENGINE_MODEL_TRANSFORMER_RUNNER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/clock.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/memory_split.h"
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
  // Lets steps be ordered before those in front of them are finished, where the device can and has all experts.
  bool order_ahead = true;
  // Memory for routed experts: fewer bytes than all of them take make it a cache. Absent: all of them if they fit, else
  // what is left.
  std::optional<int64_t> expert_cache_bytes = std::nullopt;
  // Whether memory may move between expert slots and KV blocks: both have addresses for all that either may ever get.
  // Where one of their sizes is given, all experts are in memory, or the device is not the host's, it has no effect.
  bool moves_memory = false;
  // Of the host, for all routed experts where the device has memory of its own that does not hold them. Absent: what is
  // available, less a reserve.
  std::optional<int64_t> expert_host_bytes = std::nullopt;
  EvictionPolicyKind expert_policy = EvictionPolicyKind::kNextUse;
  int expert_read_threads = 4;
  int expert_ahead_threads = 0;  // to read experts on before they are needed
  // Assignments of each expert, [MoE layers, E], by which a cache of experts that are read from the checkpoint is
  // filled at the start; empty: it starts empty.
  std::vector<int64_t> expert_profile = {};
  // So many of the most used of them do not give way. REQUIRES: less than the plan's num_expert_slots.
  int64_t num_kept_experts = 0;
  // Of the host, for what the engine learns of single tokens' experts; above 0 it may ask for their choices.
  int64_t profile_bytes = 0;
  // Of the host, for recorded choices of requests in flight; 0: no request brings any.
  int64_t replay_bytes = 0;
  // By which experts that could not be read are tried again; null: the machine's. Outlives the runner.
  const Clock* clock = nullptr;
};

// Bytes by pool, decided before anything is loaded; printed by the server and answered by GetModel.
struct MemoryPlan {
  int64_t dense_weight_bytes = 0;
  int64_t expert_weight_bytes = 0;  // of the device's memory: all routed experts, the slots, or the resident experts
  int64_t all_expert_bytes = 0;     // of the checkpoint's
  int64_t num_expert_slots = 0;     // 0: all experts are in the device's memory
  // In memory of the host that the device reads: all routed experts, beside slots of the device; or slots, beside
  // num_resident_experts that lie in the device for good, where the host does not hold all either.
  int64_t host_expert_bytes = 0;
  int64_t num_resident_experts = 0;
  int64_t kv_cache_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t available_bytes = 0;                             // of the device, before loading
  int32_t num_kv_blocks = 0;                               // at the start, as what is above
  std::optional<MemorySplitOptions> split = std::nullopt;  // where slots and blocks may become others
  int32_t kv_block_size = 0;
  int32_t max_model_len = 0;
  DType weight_dtype = DType::kBF16;  // CheckpointSummary::matrix_dtype
  DType expert_dtype = DType::kBF16;
  DType kv_dtype = DType::kBF16;
  ExpertPlace expert_place() const {
    if (num_expert_slots == 0) return ExpertPlace::kDevice;
    return host_expert_bytes > 0 && num_resident_experts == 0 ? ExpertPlace::kHost : ExpertPlace::kCheckpoint;
  }
  // Of the device.
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
