// The router's work of one step, as the model reports it and the statistics consume it. A value.
#ifndef CADRE_ENGINE_EXPERTS_STEP_ROUTING_H_
#define CADRE_ENGINE_EXPERTS_STEP_ROUTING_H_

#include <cstdint>
#include <vector>

namespace cadre {

// What one step routed, summed over its rows. Layers count MoE layers only.
struct StepRouting {
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int64_t num_tokens = 0;                     // T
  std::vector<int64_t> assignments;           // [num_layers, num_experts]
  std::vector<double> gate_weight;            // [num_layers, num_experts]
  std::vector<double> probability;            // [num_layers, num_experts] sum over rows
  std::vector<double> squared_log_sum_exp;    // [num_layers] sum over rows
  std::vector<int64_t> sequence_assignments;  // [S] over all layers
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_STEP_ROUTING_H_
