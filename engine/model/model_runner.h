// The seam between the engine's loop and the mathematics. TransformerRunner is the real one; SimulatedRunner answers at
// a configured cost, so that overload, drain and cancellation can be tested without a model.
#ifndef CADRE_ENGINE_MODEL_MODEL_RUNNER_H_
#define CADRE_ENGINE_MODEL_MODEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/experts/expert_cache.h"
#include "engine/experts/expert_id.h"
#include "engine/experts/memory_split.h"
#include "engine/model/forward_batch.h"

namespace cadre {

// Sizes that the engine's loop needs to know of any runner.
struct RunnerLimits {
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;        // positions a sequence may have
  int32_t num_kv_blocks = 0;        // that there may ever be
  int32_t max_sequence_blocks = 0;  // that one sequence may need; 0: all of them. There are never fewer
  int32_t kv_block_size = 0;        // tokens in a block
  int32_t num_moe_layers = 0;
  int32_t num_experts = 0;  // per MoE layer
  int32_t top_k = 0;
  int32_t min_k = kAlwaysTopK;  // fewest experts of a token, where their number varies up to top_k
  bool needs_seeds = false;     // what a row computes depends on the seed of its request
  // > 0: what a prompt's row computes depends on the rows of its group of so many positions; they are computed in one
  // step, all or none.
  int32_t prompt_group = 0;
  // Sampling on the device: rows of logits in a step that has sample_rows, and words of sample_extras. 0: none.
  int32_t max_sample_rows = 0;
  int64_t max_sample_extras = 0;
  // Sequences that may be limited by groups of their own at a time. 0: experts cannot be limited in any way.
  int32_t max_capacity_slots = 0;
  int64_t num_expert_slots = 0;     // of a cache that can keep experts; 0: there is none
  bool can_replay_routing = false;  // whether a batch may have recorded choices
  // Whether a step may be ordered before the one in front of it is finished, and have tokens that are not known yet.
  bool can_order_ahead = false;
};

// Of a runner whose expert slots and KV blocks live from one budget: between which limits it is split, and how at
// first.
struct MemoryRoom {
  MemorySplitOptions limits;
  MemoryShares initial;
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual const RunnerLimits& limits() const = 0;
  // Runs one step; `result` is overwritten (its vectors are reused). A status other than OK fails every request of the
  // step. Engine thread only. REQUIRES: no step is ordered and not finished.
  virtual absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) = 0;
  // The same in two halves: hands a step over, and waits for the oldest of those that were. Steps are computed in the
  // order in which they were handed over. One may be in front of another that is handed over where
  // limits().can_order_ahead, and then token_ids of the later one may be SampledAt(row) of the rows of logits that the
  // earlier one samples. Between the two calls `batch` and `result` stay where they are; what the result holds counts
  // after Finish. A step that could not be ordered is not to be finished. After an error of Finish what a step behind
  // it computes means nothing; it is to be finished all the same. Engine thread only.
  virtual absl::Status Order(const ForwardBatch& batch, ForwardResult* result) { return Forward(batch, result); }
  virtual absl::Status Finish(const ForwardBatch& /*batch*/, ForwardResult* /*result*/) { return absl::OkStatus(); }
  // Whether Forward will fail for ever: its device is lost to this process. Engine thread only.
  virtual bool is_lost() const { return false; }
  // What is added to the scores of experts when they are chosen, [MoE layers, E]; empty where the routers have none. As
  // it was loaded.
  virtual std::vector<float> selection_bias() const { return {}; }
  // Another from the next step on. REQUIRES: selection_bias() is not empty. `bias` must stay as it is until the next
  // step has ended. Engine thread only.
  virtual void SetSelectionBias(std::span<const float> /*bias*/) {}
  // What the expert cache does, where there is one. Engine thread only.
  virtual std::optional<ExpertCacheReport> expert_cache() const { return std::nullopt; }
  // What the expert cache could not read, or could again, since the last call. Engine thread only.
  virtual ExpertFaults TakeExpertFaults() { return {}; }
  // Where experts are, where there is an expert cache; else null: all are on the device. Engine thread only.
  virtual std::shared_ptr<const ExpertPlacement> expert_placement() const { return nullptr; }
  // What other expert caches would have done, where there is one; lives as long as the runner. Any thread.
  virtual ShadowSimulator* shadow_simulator() const { return nullptr; }
  // As ExpertCache::Keep and Place. REQUIRES: there is an expert cache. Engine thread only, between steps.
  virtual void KeepExperts(const std::vector<ExpertId>& /*experts*/) {}
  virtual absl::Duration PlaceExperts() { return absl::InfiniteDuration(); }
  // Who is kept from the start.
  virtual std::vector<ExpertId> kept_experts() const { return {}; }
  // Whether an expert needs no slot, because it lies in the device's memory for good. Any thread.
  virtual bool is_resident(ExpertId /*expert*/) const { return false; }
  // Clears KV blocks whose contents are not to be trusted and which no sequence holds. A device's error is Forward's
  // next status. Engine thread only.
  virtual void ScrubBlocks(std::span<const int32_t> blocks) = 0;
  // Where there is none, what follows is not called.
  virtual std::optional<MemoryRoom> memory_room() const { return std::nullopt; }
  // Lets experts lie in the first `count` slots alone. False while some are still being read into the others: to be
  // called again between steps, until the memory behind these has been given back. INVALID_ARGUMENT, and nothing
  // changes, if kept experts would be left with no free slot. Engine thread only, between steps, as the next three.
  virtual absl::StatusOr<bool> ShrinkExpertSlots(int64_t /*count*/) { return true; }
  // Takes memory for slots up to `count`. RESOURCE_EXHAUSTED, and nothing changes, when there is none.
  virtual absl::Status GrowExpertSlots(int64_t /*count*/) { return absl::OkStatus(); }
  // The same of KV blocks. REQUIRES, to shrink: nobody holds one of the others.
  virtual void ShrinkKvBlocks(int32_t /*count*/) {}
  virtual absl::Status GrowKvBlocks(int32_t /*count*/) { return absl::OkStatus(); }
  // Gives the host's memory behind KV blocks back to the system, where the runner can. Nobody holds
  // the blocks; what they contained is lost; they may be used again, and take memory again then. Engine thread only.
  virtual void ReleaseMemory(std::span<const int32_t> /*blocks*/) {}
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_MODEL_RUNNER_H_
