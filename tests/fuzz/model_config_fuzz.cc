// Any config.json is either refused or gives sizes that everything after it may trust.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/model/model_config.h"
#include "engine/model/routing_scheme.h"
#include "kernels/check.h"

namespace cadre {
namespace {

void CheckBetween(int64_t value, int64_t min, int64_t max) {
  CADRE_CHECK_GE(value, min);
  CADRE_CHECK_LE(value, max);
}

void CheckRouter(const ModelConfig& config) {
  const RouterOptions& router = config.router;
  CheckBetween(router.top_k, 1, config.num_experts);
  CheckBetween(router.num_groups, 1, config.num_experts);
  CADRE_CHECK_EQ(config.num_experts % router.num_groups, 0);
  CheckBetween(router.num_kept_groups, 1, router.num_groups);
  CheckBetween(router.top_k, 1, config.num_experts / router.num_groups * router.num_kept_groups);
  CheckBetween(router.min_k, 1, router.top_k);
  CheckBetween(router.max_choice, 0, router.top_k);
  CheckBetween(router.spill_over, 0, config.num_experts);
  CADRE_CHECK(router.top_p >= 0.0f && router.top_p <= 1.0f);
  CADRE_CHECK(router.threshold >= 0.0f && router.threshold <= 1.0f);
  CADRE_CHECK(router.top_p == 0.0f || router.threshold == 0.0f);
  CADRE_CHECK(std::isfinite(config.routing.noise) && config.routing.noise >= 0.0f);
  CheckBetween(config.routing.expert_choice.group, 0, 4096);
  if (config.routing.expert_choice.group > 0) CADRE_CHECK(config.routing.expert_choice.factor > 0.0);
  CADRE_CHECK(std::isfinite(router.scaling_factor) && router.scaling_factor > 0.0f);
  const auto num_biases = static_cast<int64_t>(config.routing.selection_bias.size());
  CADRE_CHECK(num_biases == 0 || num_biases == config.num_moe_layers() * config.num_experts);
  for (const float bias : config.routing.selection_bias) CADRE_CHECK(std::isfinite(bias));
  CADRE_CHECK(!DescribeRouter(config).empty());
}

void CheckTrustworthy(const ModelConfig& config) {
  CheckBetween(config.hidden_size, 1, kMaxHiddenSize);
  CheckBetween(config.num_layers, 1, kMaxLayers);
  CheckBetween(config.num_heads, 1, kMaxHeads);
  CheckBetween(config.num_kv_heads, 1, config.num_heads);
  CADRE_CHECK_EQ(config.num_heads % config.num_kv_heads, 0);
  CheckBetween(config.head_dim, 2, kMaxHeadDim);
  CADRE_CHECK_EQ(config.head_dim % 2, 0);
  CheckBetween(config.vocab_size, 1, kMaxVocabSize);
  CheckBetween(config.max_position_embeddings, 1, kMaxPositionEmbeddings);
  CheckBetween(config.num_experts, 1, kMaxExpertsPerLayer);
  CheckBetween(config.num_layers * config.num_experts, 1, kMaxExperts);
  CheckBetween(config.expert_ffn_size, 1, kMaxFfnSize);
  CheckBetween(config.shared_expert_ffn_size, 0, kMaxFfnSize);
  CheckRouter(config);
  CADRE_CHECK_EQ(static_cast<int64_t>(config.is_moe_layer.size()), config.num_layers);
  CheckBetween(config.num_moe_layers(), 1, config.num_layers);
  if (config.num_moe_layers() < config.num_layers) CheckBetween(config.dense_ffn_size, 1, kMaxFfnSize);
  CADRE_CHECK(std::isfinite(config.rms_norm_eps));
  CADRE_CHECK(!config.clip_qkv.has_value() || *config.clip_qkv > 0.0f);
  CADRE_CHECK_EQ(static_cast<int64_t>(config.rope.inverse_frequencies.size()), config.head_dim / 2);
  for (const float frequency : config.rope.inverse_frequencies) CADRE_CHECK(std::isfinite(frequency));
  CADRE_CHECK(std::isfinite(config.rope.amplitude) && config.rope.amplitude > 0.0f);
}

void CheckTrustworthy(const GenerationDefaults& defaults) {
  CADRE_CHECK(defaults.temperature >= 0.0f && std::isfinite(defaults.temperature));
  CADRE_CHECK_GE(defaults.top_k, 0);
  CADRE_CHECK(defaults.top_p > 0.0f && defaults.top_p <= 1.0f);
  CADRE_CHECK(defaults.min_p >= 0.0f && defaults.min_p <= 1.0f);
  CADRE_CHECK_GE(defaults.max_new_tokens.value_or(1), 1);
  for (const int32_t id : defaults.eos_token_ids) CADRE_CHECK_GE(id, 0);
}

}  // namespace
}  // namespace cadre

// The input is read as config.json, as generation_config.json (they share no key but eos_token_id), and as a routing
// scheme for a model of 24 experts.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto config = cadre::ParseModelConfig(json);
  if (config.ok()) cadre::CheckTrustworthy(*config);
  const auto defaults = cadre::ParseGenerationDefaults(json, json);
  if (defaults.ok()) cadre::CheckTrustworthy(*defaults);
  constexpr std::string_view kModel = R"({"model_type": "olmoe", "hidden_size": 16, "num_hidden_layers": 2,
      "vocab_size": 100, "num_attention_heads": 2, "num_experts": 24, "intermediate_size": 8,
      "num_experts_per_tok": 3})";
  const auto routed = cadre::ParseModelConfig(kModel, json);
  if (routed.ok()) cadre::CheckTrustworthy(*routed);
  return 0;
}
