#include "engine/model/weight_layout.h"

#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

constexpr char kHeadName[] = "lm_head.weight";

std::vector<int64_t> ToVector(const Shape& shape) {
  std::vector<int64_t> dims;
  dims.reserve(Shape::kMaxRank);
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  return dims;
}

// Names of an expert's three matrices, when each has a tensor of its own.
struct ExpertNames {
  std::string_view gate, up, down;
};

class WeightVisitor {
 public:
  WeightVisitor(const ModelConfig& config, absl::FunctionRef<bool(std::string_view)> is_stored, Weights* weights,
                absl::FunctionRef<absl::Status(const WeightSlot&)> visit)
      : config_(config), is_stored_(is_stored), weights_(*weights), visit_(visit) {}

  absl::Status VisitAll() {
    const int64_t vocab = config_.vocab_size;
    const int64_t hidden = config_.hidden_size;
    weights_.layers.resize(static_cast<size_t>(config_.num_layers));
    CADRE_RETURN_IF_ERROR(Visit("model.embed_tokens.weight", {vocab, hidden}, WeightRole::kTable, weights_.embedding));
    for (layer_ = 0; layer_ < config_.num_layers; ++layer_) {
      prefix_ = absl::StrCat("model.layers.", layer_, ".");
      LayerWeights& layer = weights_.layers[static_cast<size_t>(layer_)];
      CADRE_RETURN_IF_ERROR(VisitAttention(layer));
      CADRE_RETURN_IF_ERROR(Small(Name("post_attention_layernorm.weight"), {hidden}, layer.ffn_norm));
      if (config_.is_moe_layer[static_cast<size_t>(layer_)]) {
        CADRE_RETURN_IF_ERROR(VisitMoe(layer));
      } else {
        CADRE_RETURN_IF_ERROR(VisitMlp("mlp", config_.dense_ffn_size, layer.dense));
      }
    }
    CADRE_RETURN_IF_ERROR(Small("model.norm.weight", {hidden}, weights_.final_norm));
    if (config_.tie_word_embeddings) return absl::OkStatus();
    return Visit(kHeadName, {vocab, hidden}, WeightRole::kHead, weights_.head);
  }

 private:
  std::string Name(std::string_view suffix) const { return absl::StrCat(prefix_, ToAbsl(suffix)); }

  absl::Status Visit(std::string_view name, const Shape& shape, WeightRole role, ConstView& view) {
    return visit_({.stored_name = name, .stored_shape = ToVector(shape), .shape = shape, .role = role, .view = &view});
  }
  absl::Status Matrix(std::string_view name, const Shape& shape, ConstView& view) {
    return Visit(name, shape, WeightRole::kMatrix, view);
  }
  absl::Status Small(std::string_view name, const Shape& shape, ConstView& view) {
    return Visit(name, shape, WeightRole::kSmall, view);
  }

  absl::Status VisitAttention(LayerWeights& layer) {
    const int64_t hidden = config_.hidden_size;
    const int64_t q_width = config_.num_heads * config_.head_dim;
    const int64_t kv_width = config_.num_kv_heads * config_.head_dim;
    CADRE_RETURN_IF_ERROR(Small(Name("input_layernorm.weight"), {hidden}, layer.attention_norm));
    CADRE_RETURN_IF_ERROR(Matrix(Name("self_attn.q_proj.weight"), {q_width, hidden}, layer.q));
    CADRE_RETURN_IF_ERROR(Matrix(Name("self_attn.k_proj.weight"), {kv_width, hidden}, layer.k));
    CADRE_RETURN_IF_ERROR(Matrix(Name("self_attn.v_proj.weight"), {kv_width, hidden}, layer.v));
    if (config_.qkv_bias) {
      CADRE_RETURN_IF_ERROR(Small(Name("self_attn.q_proj.bias"), {q_width}, layer.q_bias));
      CADRE_RETURN_IF_ERROR(Small(Name("self_attn.k_proj.bias"), {kv_width}, layer.k_bias));
      CADRE_RETURN_IF_ERROR(Small(Name("self_attn.v_proj.bias"), {kv_width}, layer.v_bias));
    }
    if (config_.qk_norm != QkNorm::kNone) {
      const bool per_head = config_.qk_norm == QkNorm::kPerHead;
      const int64_t head_dim = config_.head_dim;
      CADRE_RETURN_IF_ERROR(Small(Name("self_attn.q_norm.weight"), {per_head ? head_dim : q_width}, layer.q_norm));
      CADRE_RETURN_IF_ERROR(Small(Name("self_attn.k_norm.weight"), {per_head ? head_dim : kv_width}, layer.k_norm));
    }
    if (config_.o_bias) CADRE_RETURN_IF_ERROR(Small(Name("self_attn.o_proj.bias"), {hidden}, layer.o_bias));
    return Matrix(Name("self_attn.o_proj.weight"), {hidden, q_width}, layer.o);
  }

  absl::Status VisitMlp(std::string_view module, int64_t ffn_size, MlpWeights& mlp) {
    const int64_t hidden = config_.hidden_size;
    const std::string base = absl::StrCat(Name(module), ".");
    CADRE_RETURN_IF_ERROR(Matrix(base + "gate_proj.weight", {ffn_size, hidden}, mlp.gate));
    CADRE_RETURN_IF_ERROR(Matrix(base + "up_proj.weight", {ffn_size, hidden}, mlp.up));
    return Matrix(base + "down_proj.weight", {hidden, ffn_size}, mlp.down);
  }

  absl::Status VisitMoe(LayerWeights& layer) {
    const int64_t hidden = config_.hidden_size;
    // Mixtral's module was renamed to `mlp` in transformers 5.
    const bool is_mixtral = config_.family == ModelFamily::kMixtral;
    const bool is_renamed = !is_mixtral || is_stored_(Name("mlp.gate.weight"));
    const std::string module = is_renamed ? "mlp" : "block_sparse_moe";
    CADRE_RETURN_IF_ERROR(Small(Name(module + ".gate.weight"), {config_.num_experts, hidden}, layer.router));
    layer.experts.resize(static_cast<size_t>(config_.num_experts));
    const std::string experts = Name(module + ".experts.");
    CADRE_RETURN_IF_ERROR(is_stored_(experts + "gate_up_proj") ? VisitFusedExperts(experts, layer)
                                                               : VisitSeparateExperts(experts, layer));
    if (config_.shared_expert_ffn_size == 0) return absl::OkStatus();
    CADRE_RETURN_IF_ERROR(VisitMlp(module + ".shared_expert", config_.shared_expert_ffn_size, layer.shared_expert));
    return Small(Name(module + ".shared_expert_gate.weight"), {1, hidden}, layer.shared_expert_gate);
  }

  absl::Status VisitSeparateExperts(const std::string& experts, LayerWeights& layer) {
    const ExpertNames names = config_.family == ModelFamily::kMixtral
                                  ? ExpertNames{".w1.weight", ".w3.weight", ".w2.weight"}
                                  : ExpertNames{".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"};
    const int64_t hidden = config_.hidden_size;
    const int64_t ffn_size = config_.expert_ffn_size;
    for (int64_t e = 0; e < config_.num_experts; ++e) {
      MlpWeights& expert = layer.experts[static_cast<size_t>(e)];
      const std::array<std::pair<std::string_view, ConstView*>, 3> matrices = {
          {{names.gate, &expert.gate}, {names.up, &expert.up}, {names.down, &expert.down}}};
      for (const auto& [suffix, view] : matrices) {
        const Shape shape = view == &expert.down ? Shape{hidden, ffn_size} : Shape{ffn_size, hidden};
        const std::string name = absl::StrCat(experts, e, ToAbsl(suffix));
        CADRE_RETURN_IF_ERROR(visit_({.stored_name = name,
                                      .stored_shape = ToVector(shape),
                                      .shape = shape,
                                      .expert_layer = layer_,
                                      .view = view}));
      }
    }
    return absl::OkStatus();
  }

  absl::Status VisitFusedExperts(const std::string& experts, LayerWeights& layer) {
    const int64_t num_experts = config_.num_experts;
    const int64_t hidden = config_.hidden_size;
    const int64_t ffn_size = config_.expert_ffn_size;
    const int64_t matrix_size = ffn_size * hidden;
    const std::string gate_up = experts + "gate_up_proj";
    const std::string down = experts + "down_proj";
    for (int64_t e = 0; e < num_experts; ++e) {
      MlpWeights& expert = layer.experts[static_cast<size_t>(e)];
      WeightSlot slot{.stored_name = gate_up,
                      .stored_shape = {num_experts, 2 * ffn_size, hidden},
                      .first_element = 2 * e * matrix_size,
                      .shape = {ffn_size, hidden},
                      .expert_layer = layer_,
                      .view = &expert.gate};
      CADRE_RETURN_IF_ERROR(visit_(slot));
      slot.first_element += matrix_size;
      slot.view = &expert.up;
      CADRE_RETURN_IF_ERROR(visit_(slot));
      CADRE_RETURN_IF_ERROR(visit_({.stored_name = down,
                                    .stored_shape = {num_experts, hidden, ffn_size},
                                    .first_element = e * matrix_size,
                                    .shape = {hidden, ffn_size},
                                    .expert_layer = layer_,
                                    .view = &expert.down}));
    }
    return absl::OkStatus();
  }

  const ModelConfig& config_;
  absl::FunctionRef<bool(std::string_view)> is_stored_;
  Weights& weights_;
  absl::FunctionRef<absl::Status(const WeightSlot&)> visit_;
  int64_t layer_ = 0;
  std::string prefix_;
};

}  // namespace

absl::Status VisitWeights(const ModelConfig& config, absl::FunctionRef<bool(std::string_view)> is_stored,
                          Weights* weights, absl::FunctionRef<absl::Status(const WeightSlot&)> visit) {
  return WeightVisitor(config, is_stored, weights, visit).VisitAll();
}

bool IsIgnoredTensor(const ModelConfig& config, std::string_view name) {
  return absl::EndsWith(ToAbsl(name), ".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == kHeadName);
}

}  // namespace cadre
