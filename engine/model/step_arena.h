// What a step sends to the device and what it counts there: one upload before the layers, one download after them.
#ifndef CADRE_ENGINE_MODEL_STEP_ARENA_H_
#define CADRE_ENGINE_MODEL_STEP_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/step_routing.h"
#include "engine/model/forward_batch.h"
#include "engine/model/model_config.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cadre {

// Upper bounds of every step.
struct StepLimits {
  int64_t max_tokens = 0;          // T
  int64_t max_sequences = 0;       // S
  int64_t max_blocks = 0;          // KV blocks of one sequence
  int64_t max_sample_rows = 0;     // 0: the device does not sample
  int64_t max_sample_extras = 0;   // words
  int64_t max_capacity_slots = 0;  // 0: the device limits nobody
};

// How long the arrays of a step are on the device: as a batch has them, or longer, to fit what was recorded.
struct StepShape {
  int64_t num_tokens = 0;      // T
  int64_t num_sequences = 0;   // S
  int64_t max_blocks = 0;      // columns of the block tables
  int64_t num_logit_rows = 0;  // R
  bool samples = false;        // has rows for sampling
  bool is_limited = false;     // has capacities
  bool is_replayed = false;    // has recorded choices of experts

  friend bool operator==(const StepShape&, const StepShape&) = default;
};
StepShape ShapeOf(const ForwardBatch& batch);

// A ForwardBatch as tensors. Behind its rows, padding (kernels/ops.h).
struct StepInputs {
  View token_ids;       // [T] i32
  View positions;       // [T] i32
  View row_sequence;    // [T] i32
  View kv_slots;        // [T] i32
  View block_tables;    // [S, max_blocks] i32
  View logit_rows;      // [R] i32
  View sample_rows;     // [R, SampleRow] i32, or empty
  View sample_extras;   // [max_sample_extras] i32
  View prompt_lengths;  // [S] i32
  View seeds;           // [S, 2] i32: words, the low one first
  View capacity;        // [S, SequenceCapacity] i32, or [0, SequenceCapacity]
  // Without elements in a step without recorded choices.
  View recorded_modes;       // [T] i32
  View recorded_expert_ids;  // [L, T, K] i32
  View recorded_weights;     // [L, T, K]

  // Empty views in such a step.
  RecordedChoices RecordedLayer(int64_t moe_layer) const;
};

// The tallies of all L MoE layers of one step.
struct StepTallies {
  View assignments;           // [L, E] i64
  View gate_weight;           // [L, E] f64
  View probability;           // [L, E] f64
  View squared_log_sum_exp;   // [L] f64
  View sequence_assignments;  // [S] i64, over all layers
  View row_assignments;       // [L] i64
  View sequence_gate_weight;  // [S] f64, over all layers
  // Without elements in a step that limits nobody.
  View states;                     // [L, 4, E] i64
  View lost_gate_weight;           // [L, E] f64
  View sequence_states;            // [S, 4] i64, over all layers
  View sequence_lost_gate_weight;  // [S] f64

  RoutingTally Layer(int64_t moe_layer) const;
  // REQUIRES: the step limits somebody.
  CapacityTally LimitedLayer(int64_t moe_layer) const;
};

// Owns the device memory of the step's inputs, tallies and sampled tokens, and its mirror in staging memory of the
// host. The tallies travel with the inputs as zeros: each step starts counting from nothing, and no verb is needed for
// it. Steps of one shape have their tensors at the same places.
class StepArena {
 public:
  static int64_t SizeBytes(const ModelConfig& config, const StepLimits& limits);
  static absl::StatusOr<StepArena> Create(const ModelConfig& config, const StepLimits& limits, Device& device);

  // Copies `batch` to the device, in one piece, padded to `shape`, which is not smaller. The views below are those of
  // the last upload. Nothing else may be uploaded before the device has ended the step.
  void Upload(const ForwardBatch& batch, const StepShape& shape, Device& device);
  const StepInputs& inputs() const { return on_device_.inputs; }
  const StepTallies& tallies() const { return on_device_.tallies; }
  const SampleOutputs& sampled() const { return on_device_.sampled; }

  // Orders tallies and sampled tokens back to the host, in one piece; the readers below see them after
  // Device::Synchronize.
  void Download(Device& device);
  void ReadRouting(StepRouting* routing) const;
  void ReadSampled(SampledRows* rows) const;

 private:
  // The same step in one of the two memories.
  struct Image {
    StepInputs inputs;
    StepTallies tallies;
    SampleOutputs sampled;
    // In bytes: what goes up are the inputs, and the tallies as zeros, and as much of the extras as there are; what
    // comes back are tallies and sampled tokens.
    int64_t tallies_begin = 0;
    int64_t tallies_end = 0;
    int64_t sampled_end = 0;  // where extras begin
    int64_t end = 0;
  };
  // Returns the bytes that are to go up.
  int64_t FillSampling(const ForwardBatch& batch);
  // What all steps have in common.
  struct Sizes {
    int64_t num_moe_layers = 0;
    int64_t num_experts = 0;
    int64_t top_k = 0;
    int64_t num_extras = 0;  // words that there is room for
  };
  static Sizes SizesOf(const ModelConfig& config, const StepLimits& limits);
  static Image LayOut(std::byte* base, const StepShape& shape, const Sizes& sizes);

  StepArena(const Sizes& sizes, int32_t min_k, DeviceBuffer device_memory, DeviceBuffer host_memory)
      : sizes_(sizes), min_k_(min_k), device_memory_(std::move(device_memory)), host_memory_(std::move(host_memory)) {}

  Sizes sizes_;
  int32_t min_k_;
  DeviceBuffer device_memory_;
  DeviceBuffer host_memory_;  // staging
  int64_t num_tokens_ = 0;    // of the batch
  int64_t num_sequences_ = 0;
  int64_t num_sampled_ = 0;
  Image on_device_;
  Image on_host_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_STEP_ARENA_H_
