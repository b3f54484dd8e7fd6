// A runner without a model: it answers at a configured cost, so that overload, drain and cancellation can be measured
// on any machine, and it watches the engine while it does so.
#ifndef CADRE_ENGINE_MODEL_SIMULATED_RUNNER_H_
#define CADRE_ENGINE_MODEL_SIMULATED_RUNNER_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/model/model_runner.h"

namespace cadre {

struct SimulatedOptions {
  RunnerLimits limits = {.vocab_size = 1024,
                         .max_model_len = 4096,
                         .num_kv_blocks = 4096,
                         .kv_block_size = 16,
                         .num_moe_layers = 4,
                         .num_experts = 8,
                         .top_k = 2};
  absl::Duration step_cost = absl::ZeroDuration();   // of a step
  absl::Duration token_cost = absl::ZeroDuration();  // of each row, on top
  // How time passes; absent: the calling thread sleeps. Tests advance a fake clock instead.
  std::function<void(absl::Duration)> pass_time = nullptr;
};

// Whether `model` asks for the simulator: "sim" or "sim:...".
bool IsSimulatedSpec(std::string_view model);

// Reads "sim:key=value,...": step_ms, token_us (decimal numbers), vocab, max_len, blocks, block_size, layers, experts,
// top_k (whole numbers). INVALID_ARGUMENT names the key, the value and the limit.
absl::StatusOr<SimulatedOptions> ParseSimulatedSpec(std::string_view spec);

// Keeps a simulated KV cache: each slot remembers its token, its position and a hash of the whole history up to it. The
// next token is a hash of the history as found through the block table, so it is a function of the prompt and its own
// index, and any mix-up between requests changes the output. Every history that is used is read back and verified:
// INTERNAL names the sequence, the position and the slot when a block is stale, was never recomputed or holds another
// history. Sequences may share blocks that hold the history of each of them; a row written into a block that stands in
// the tables of two sequences is INTERNAL, too.
//
// Logits are one-hot: 64 for the next token, 0 elsewhere. Routing is a hash of (token, position, layer) into K distinct
// experts with gate weight 1/K each.
class SimulatedRunner final : public ModelRunner {
 public:
  explicit SimulatedRunner(SimulatedOptions options);

  const RunnerLimits& limits() const override { return options_.limits; }
  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override;
  void ScrubBlocks(std::span<const int32_t> blocks) override;

  // The first `count` tokens that any engine must answer to `prompt` (with greedy or nearly any other sampling).
  static std::vector<int32_t> ExpectedTokens(std::span<const int32_t> prompt, int32_t count, int32_t vocab_size);

 private:
  struct Slot {
    int32_t token = -1;
    int32_t position = -1;  // -1: never written
    uint64_t history = 0;   // hash of the tokens at positions 0..position
    int64_t step = 0;       // that wrote it
  };

  absl::Status CheckSharing(const ForwardBatch& batch);
  absl::Status StoreRow(const ForwardBatch& batch, int32_t row);
  absl::StatusOr<uint64_t> ReadHistory(const ForwardBatch& batch, int32_t row) const;
  int32_t SlotOf(const ForwardBatch& batch, int32_t sequence, int32_t position) const;
  void RouteRow(const ForwardBatch& batch, int32_t row, ForwardResult* result) const;

  const SimulatedOptions options_;
  std::vector<Slot> slots_;  // [num_kv_blocks * kv_block_size]
  int64_t step_ = 0;
  std::vector<int32_t>
      num_tables_;  // [num_kv_blocks] in how many block tables of the step each stands; 0 between steps
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_SIMULATED_RUNNER_H_
