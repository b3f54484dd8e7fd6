// The smallest config.json with a routing scheme.
#ifndef CADRE_TESTS_SUPPORT_ROUTED_CONFIG_H_
#define CADRE_TESTS_SUPPORT_ROUTED_CONFIG_H_

#include <algorithm>
#include <cstdint>

#include "nlohmann/json.hpp"

namespace cadre {

inline constexpr int64_t kFamilyTopK = 3;

// A small model of `num_experts` with the block `scheme`.
inline nlohmann::json ConfigWith(int64_t num_experts, const nlohmann::json& scheme) {
  nlohmann::json config = {{"model_type", "olmoe"},        {"hidden_size", 16},
                           {"num_hidden_layers", 2},       {"vocab_size", 100},
                           {"num_attention_heads", 2},     {"num_experts", num_experts},
                           {"intermediate_size", 8},       {"num_experts_per_tok", std::min(kFamilyTopK, num_experts)},
                           {"max_position_embeddings", 64}};
  if (!scheme.is_null()) config["cadre"]["routing"] = scheme;
  return config;
}

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_ROUTED_CONFIG_H_
