// The seam between the engine's loop and the mathematics. TransformerRunner is the real one; SimulatedRunner answers at
// a configured cost, so that overload, drain and cancellation can be tested without a model.
#ifndef CADRE_ENGINE_MODEL_MODEL_RUNNER_H_
#define CADRE_ENGINE_MODEL_MODEL_RUNNER_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "engine/model/forward_batch.h"

namespace cadre {

// Sizes that the engine's loop needs to know of any runner.
struct RunnerLimits {
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;  // positions a sequence may have
  int32_t num_kv_blocks = 0;
  int32_t kv_block_size = 0;  // tokens in a block
  int32_t num_moe_layers = 0;
  int32_t num_experts = 0;  // per MoE layer
  int32_t top_k = 0;
  // Sampling on the device: rows of logits in a step that has sample_rows, and words of sample_extras. 0: none.
  int32_t max_sample_rows = 0;
  int64_t max_sample_extras = 0;
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual const RunnerLimits& limits() const = 0;
  // Runs one step; `result` is overwritten (its vectors are reused). A status other than OK fails every request of the
  // step. Engine thread only.
  virtual absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) = 0;
  // Whether Forward will fail for ever: its device is lost to this process. Engine thread only.
  virtual bool is_lost() const { return false; }
  // Clears KV blocks whose contents are not to be trusted and which no sequence holds. A device's error is Forward's
  // next status. Engine thread only.
  virtual void ScrubBlocks(std::span<const int32_t> blocks) = 0;
  // Gives the host's memory behind KV blocks back to the system, where the runner can. Nobody holds
  // the blocks; what they contained is lost; they may be used again, and take memory again then. Engine thread only.
  virtual void ReleaseMemory(std::span<const int32_t> /*blocks*/) {}
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_MODEL_RUNNER_H_
