// Everything that is constant about a served model, as values: what requests are checked against, and what GetModel,
// the log and the metrics tell.
#ifndef CADRE_SERVER_MODEL_CARD_H_
#define CADRE_SERVER_MODEL_CARD_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/model/model_config.h"
#include "engine/model/model_runner.h"
#include "engine/model/transformer_runner.h"
#include "server/config_facts.h"

namespace cadre {

struct ModelCard {
  std::string name;    // what requests call it
  std::string folder;  // of the checkpoint; empty: simulated
  ConfigFacts config_facts;
  std::string family;  // "qwen3_moe", or "simulated"
  std::string device;  // "cpu", or "sim"
  std::string kernels;
  std::string weight_dtype;  // of matrices that are not routed experts'
  std::string expert_dtype;
  std::string kv_dtype;
  int32_t num_layers = 0;
  std::vector<int32_t> moe_layers;  // [MoE layers] index in the model of each
  int32_t hidden_size = 0;          // 0: simulated
  bool has_shared_expert = false;
  std::string routing_scheme = "family";  // how tokens choose experts: engine/model/routing_scheme.h
  std::string routing_description;
  std::string routing_origin;  // what chose it; empty: nothing did
  RunnerLimits limits;
  EngineOptions engine;
  CapacityPolicy capacity;  // at the start
  GenerationDefaults defaults;
  MemoryPlan memory;

  // Tokens that one sequence may have: the context, or less where the whole KV cache is smaller.
  int32_t max_sequence_tokens() const {
    const int32_t most_blocks = limits.max_sequence_blocks > 0 ? limits.max_sequence_blocks : limits.num_kv_blocks;
    const int64_t pool_tokens = int64_t{most_blocks} * limits.kv_block_size;
    return static_cast<int32_t>(std::min<int64_t>(limits.max_model_len, pool_tokens));
  }
};

}  // namespace cadre

#endif  // CADRE_SERVER_MODEL_CARD_H_
