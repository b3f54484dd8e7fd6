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
// host: two that take turns where the device runs beside the host, so that a step can be ordered while the one before
// it is computed. The tallies travel with the
// inputs as zeros: each step starts counting from nothing, and no verb is needed for it. Steps of one shape have their
// tensors at the same places; the sampled tokens of any are at one place, where the step behind it finds them.
class StepArena {
 public:
  static int64_t SizeBytes(const ModelConfig& config, const StepLimits& limits);
  static absl::StatusOr<StepArena> Create(const ModelConfig& config, const StepLimits& limits, Device& device);

  // Steps that may be uploaded and not released at a time.
  int64_t max_steps() const { return static_cast<int64_t>(mirrors_.size()); }
  int64_t num_steps() const { return num_uploaded_ - num_released_; }

  // Copies `batch` to the device, in one piece, padded to `shape`, which is not smaller. The views below are those of
  // the last upload. REQUIRES: num_steps() < max_steps().
  void Upload(const ForwardBatch& batch, const StepShape& shape, Device& device);
  const StepInputs& inputs() const { return on_device_.inputs; }
  const StepTallies& tallies() const { return on_device_.tallies; }
  const SampleOutputs& sampled() const { return on_device_.sampled; }
  // Where Sample leaves its tokens, whatever the step's shape: [max_sample_rows] i32.
  View last_tokens() const;

  // Orders tallies and sampled tokens back to the host.
  void Download(Device& device);
  // Those of the oldest step that was uploaded and not released, which the device must have ended.
  void ReadRouting(StepRouting* routing) const;
  void ReadSampled(SampledRows* rows) const;
  // Nothing more is wanted of that step, and the device has ended it.
  void Release();

 private:
  // The same step in one of the two memories.
  struct Image {
    StepInputs inputs;
    StepTallies tallies;
    SampleOutputs sampled;
    // In bytes: what goes up are the inputs, and the tallies as zeros, and as much of the extras as there are; what
    // comes back are tallies and what is said of sampled tokens, and these from the beginning of the arena.
    int64_t inputs_begin = 0;
    int64_t tallies_begin = 0;
    int64_t tallies_end = 0;
    int64_t sampled_end = 0;  // where extras begin
    int64_t end = 0;
  };
  // A step as the host has it.
  struct Mirror {
    DeviceBuffer memory = {};  // staging
    Image image = {};
    int64_t num_tokens = 0;  // of the batch
    int64_t num_sequences = 0;
    int64_t num_sampled = 0;
  };
  // Returns where that ends which is to go up.
  static int64_t FillSampling(const ForwardBatch& batch, const Mirror& mirror);
  // Of the step with this number, from 0.
  size_t MirrorOf(int64_t step) const { return static_cast<size_t>(step) % mirrors_.size(); }
  const Mirror& oldest() const;
  // What all steps have in common.
  struct Sizes {
    int64_t num_moe_layers = 0;
    int64_t num_experts = 0;
    int64_t top_k = 0;
    int64_t num_extras = 0;       // words that there is room for
    int64_t max_sample_rows = 0;  // of any step
  };
  static Sizes SizesOf(const ModelConfig& config, const StepLimits& limits);
  static Image LayOut(std::byte* base, const StepShape& shape, const Sizes& sizes);

  StepArena(const Sizes& sizes, int32_t min_k, DeviceBuffer device_memory)
      : sizes_(sizes), min_k_(min_k), device_memory_(std::move(device_memory)) {}

  Sizes sizes_;
  int32_t min_k_;
  DeviceBuffer device_memory_;
  Image on_device_;
  std::vector<Mirror> mirrors_;
  int64_t num_uploaded_ = 0;  // steps
  int64_t num_released_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_STEP_ARENA_H_
