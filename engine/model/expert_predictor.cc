#include "engine/model/expert_predictor.h"

#include <algorithm>
#include <cstddef>

#include "engine/base/status_macros.h"
#include "engine/experts/expert_id.h"
#include "engine/model/arena_layout.h"

namespace cadre {
namespace {

struct Guess {
  View normed;         // [T, D]
  View logits;         // [T, E]
  View ids;            // [T, K] i32
  View weights;        // [T, K]
  View probabilities;  // [T, E]
  View log_sum_exp;    // [T]
};

Guess LayOut(ArenaLayout& layout, const ModelConfig& config, int64_t num_tokens) {
  return {.normed = layout.Take(DType::kF32, {num_tokens, config.hidden_size}),
          .logits = layout.Take(DType::kF32, {num_tokens, config.num_experts}),
          .ids = layout.Take(DType::kI32, {num_tokens, config.router.top_k}),
          .weights = layout.Take(DType::kF32, {num_tokens, config.router.top_k}),
          .probabilities = layout.Take(DType::kF32, {num_tokens, config.num_experts}),
          .log_sum_exp = layout.Take(DType::kF32, {num_tokens})};
}

}  // namespace

int64_t ExpertPredictor::SizeBytes(const ModelConfig& config) {
  ArenaLayout layout(nullptr);
  LayOut(layout, config, kMaxRows);
  return layout.size_bytes();
}

absl::StatusOr<ExpertPredictor> ExpertPredictor::Create(const ModelConfig& config, Device* device) {
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, device->Allocate(static_cast<size_t>(SizeBytes(config))));
  return ExpertPredictor(config, std::move(buffer), device);
}

ExpertPredictor::ExpertPredictor(const ModelConfig& config, DeviceBuffer buffer, Device* device)
    : config_(config), buffer_(std::move(buffer)), device_(device), scores_(static_cast<size_t>(config.num_experts)) {}

absl::StatusOr<std::span<const PredictedExpert>> ExpertPredictor::Predict(const LayerWeights& weights,
                                                                          const LayerRouting& routing,
                                                                          const Activations& act) {
  predicted_.clear();
  const int64_t num_rows = act.hidden.dim(0);
  if (num_rows > kMaxRows) return predicted_;
  Ops& ops = device_->ops();
  ArenaLayout layout(buffer_.data());
  const Guess guess = LayOut(layout, config_, num_rows);
  ops.RmsNorm(guess.normed, act.hidden, weights.ffn_norm, config_.rms_norm_eps);
  ComputeGate(ops, config_, weights, routing, guess.normed, guess.logits);
  ops.RouteTopK(guess.ids, guess.weights, guess.probabilities, guess.log_sum_exp, guess.logits, routing.selection_bias,
                routing.row_sequence, config_.router);
  ids_.resize(static_cast<size_t>(guess.ids.num_elements()));
  weights_.resize(ids_.size());
  device_->CopyToHost(ids_.data(), guess.ids);
  device_->CopyToHost(weights_.data(), guess.weights);
  CADRE_RETURN_IF_ERROR(device_->Synchronize());

  std::ranges::fill(scores_, 0.0);
  for (size_t a = 0; a < ids_.size(); ++a) {
    if (ids_[a] != kPadding) scores_[static_cast<size_t>(ids_[a])] += weights_[a];
  }
  const int64_t first = routing.moe_layer * config_.num_experts;
  for (int64_t e = 0; e < config_.num_experts; ++e) {
    if (const double score = scores_[static_cast<size_t>(e)]; score > 0.0) {
      predicted_.push_back({.expert = static_cast<ExpertId>(first + e), .score = score});
    }
  }
  return predicted_;
}

}  // namespace cadre
