// Any config.json is either refused or gives sizes that everything after it may trust.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/model/model_config.h"
#include "kernels/check.h"

namespace cadre {
namespace {

void CheckBetween(int64_t value, int64_t min, int64_t max) {
  CADRE_CHECK_GE(value, min);
  CADRE_CHECK_LE(value, max);
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
  CheckBetween(config.router.top_k, 1, config.num_experts);
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

// The input is read as config.json and as generation_config.json: they share no key but eos_token_id.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto config = cadre::ParseModelConfig(json);
  if (config.ok()) cadre::CheckTrustworthy(*config);
  const auto defaults = cadre::ParseGenerationDefaults(json, json);
  if (defaults.ok()) cadre::CheckTrustworthy(*defaults);
  return 0;
}
