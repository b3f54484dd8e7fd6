#include "engine/model/workspace.h"

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/model/arena_layout.h"

namespace cadre {
namespace {

void TakeAttention(ArenaLayout& layout, const ModelConfig& config, int64_t num_tokens, Activations* act) {
  act->q = layout.Take(DType::kF32, {num_tokens, config.num_heads, config.head_dim});
  act->k = layout.Take(DType::kF32, {num_tokens, config.num_kv_heads, config.head_dim});
  act->v = layout.Take(DType::kF32, {num_tokens, config.num_kv_heads, config.head_dim});
  act->attended = layout.Take(DType::kF32, {num_tokens, config.num_heads, config.head_dim});
}

void TakeFfn(ArenaLayout& layout, const ModelConfig& config, int64_t num_tokens, Activations* act) {
  const int64_t top_k = config.router.top_k;
  act->router_logits = layout.Take(DType::kF32, {num_tokens, config.num_experts});
  act->expert_ids = layout.Take(DType::kI32, {num_tokens, top_k});
  act->routing_weights = layout.Take(DType::kF32, {num_tokens, top_k});
  act->probabilities = layout.Take(DType::kF32, {num_tokens, config.num_experts});
  act->log_sum_exp = layout.Take(DType::kF32, {num_tokens});
  act->assignment_states = layout.Take(DType::kI32, {num_tokens, top_k});
  act->order = layout.Take(DType::kI32, {num_tokens * top_k});
  act->offsets = layout.Take(DType::kI32, {config.num_experts + 1});
  act->expert_outputs = layout.Take(DType::kF32, {num_tokens * top_k, config.hidden_size});
  act->mlp_output = layout.Take(DType::kF32, {num_tokens, config.hidden_size});
  act->shared_gate_logits = layout.Take(DType::kF32, {num_tokens, 1});
}

void TakeHead(ArenaLayout& layout, const ModelConfig& config, int64_t head_rows, Activations* act) {
  act->head_input = layout.Take(DType::kF32, {head_rows, config.hidden_size});
  act->logits = layout.Take(DType::kF32, {head_rows, config.vocab_size});
}

Activations LayOut(ArenaLayout& layout, const ModelConfig& config, int64_t num_tokens, int64_t head_rows) {
  const auto num_frequencies = static_cast<int64_t>(config.rope.inverse_frequencies.size());
  Activations act;
  act.hidden = layout.Take(DType::kF32, {num_tokens, config.hidden_size});
  act.normed = layout.Take(DType::kF32, {num_tokens, config.hidden_size});
  act.cos = layout.Take(DType::kF32, {num_tokens, num_frequencies});
  act.sin = layout.Take(DType::kF32, {num_tokens, num_frequencies});

  const int64_t shared_begin = layout.offset();
  TakeAttention(layout, config, num_tokens, &act);
  layout.Rewind(shared_begin);
  TakeFfn(layout, config, num_tokens, &act);
  layout.Rewind(shared_begin);
  TakeHead(layout, config, head_rows, &act);
  return act;
}

}  // namespace

int64_t Workspace::SizeBytes(const ModelConfig& config, int64_t max_tokens, int64_t head_rows) {
  ArenaLayout layout(nullptr);
  LayOut(layout, config, max_tokens, head_rows);
  return layout.size_bytes();
}

absl::StatusOr<Workspace> Workspace::Create(const ModelConfig& config, int64_t max_tokens, int64_t head_rows,
                                            Device& device) {
  const int64_t bytes = SizeBytes(config, max_tokens, head_rows);
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, device.Allocate(static_cast<size_t>(bytes)));
  return Workspace(config, max_tokens, head_rows, std::move(buffer));
}

Activations Workspace::For(int64_t num_tokens) const {
  CADRE_CHECK_GT(num_tokens, int64_t{0});
  CADRE_CHECK_LE(num_tokens, max_tokens_);
  ArenaLayout layout(buffer_.data());
  return LayOut(layout, config_, num_tokens, head_rows_);
}

}  // namespace cadre
