// The activations of one step. Allocated once for the largest step; a smaller one uses the front of it.
#ifndef CADRE_ENGINE_MODEL_WORKSPACE_H_
#define CADRE_ENGINE_MODEL_WORKSPACE_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "kernels/device.h"
#include "kernels/view.h"

namespace cadre {

// T rows of the step; float32 except where noted. The three groups below `sin` share memory: a layer is done with
// attention before its FFN begins, and with all layers before the head begins.
struct Activations {
  View hidden;  // [T, D] the residual stream
  View normed;  // [T, D]
  View cos;     // [T, d/2]
  View sin;     // [T, d/2]

  View q;         // [T, H, d]
  View k;         // [T, G, d]
  View v;         // [T, G, d]
  View attended;  // [T, H, d]

  View router_logits;       // [T, E]
  View expert_ids;          // [T, K] i32
  View routing_weights;     // [T, K]
  View probabilities;       // [T, E]
  View log_sum_exp;         // [T]
  View assignment_states;   // [T, K] i32
  View order;               // [T * K] i32
  View offsets;             // [E + 1] i32
  View expert_outputs;      // [T * K, D]
  View mlp_output;          // [T, D] of a shared expert or a dense layer
  View shared_gate_logits;  // [T, 1]

  View head_input;  // [N, D], N rows at a time
  View logits;      // [N, V]
};

class Workspace {
 public:
  // Bytes for steps of up to `max_tokens` rows whose logits are computed `head_rows` at a time. Saturates.
  static int64_t SizeBytes(const ModelConfig& config, int64_t max_tokens, int64_t head_rows);
  static absl::StatusOr<Workspace> Create(const ModelConfig& config, int64_t max_tokens, int64_t head_rows,
                                          Device& device);

  int64_t head_rows() const { return head_rows_; }
  // Views for a step of `num_tokens` rows.
  Activations For(int64_t num_tokens) const;

 private:
  Workspace(const ModelConfig& config, int64_t max_tokens, int64_t head_rows, DeviceBuffer buffer)
      : config_(config), max_tokens_(max_tokens), head_rows_(head_rows), buffer_(std::move(buffer)) {}

  ModelConfig config_;
  int64_t max_tokens_;
  int64_t head_rows_;
  DeviceBuffer buffer_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_WORKSPACE_H_
