// The router's work of one step, as the model reports it and the statistics consume it. A value.
#ifndef CADRE_ENGINE_EXPERTS_STEP_ROUTING_H_
#define CADRE_ENGINE_EXPERTS_STEP_ROUTING_H_

#include <cstdint>
#include <vector>

namespace cadre {

// Of a router that gives every token as many experts.
inline constexpr int32_t kAlwaysTopK = -1;

// What one step routed, summed over its rows. Layers count MoE layers only.
struct StepRouting {
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t min_k = kAlwaysTopK;                // fewest experts of a token, where their number varies up to top_k
  int64_t num_tokens = 0;                     // T
  std::vector<int64_t> assignments;           // [num_layers, num_experts]
  std::vector<double> gate_weight;            // [num_layers, num_experts]
  std::vector<double> probability;            // [num_layers, num_experts] sum over rows
  std::vector<double> squared_log_sum_exp;    // [num_layers] sum over rows
  std::vector<int64_t> sequence_assignments;  // [S] over all layers
  std::vector<int64_t> row_assignments;       // [num_layers] counted by row; may be empty where all have top_k
  std::vector<double> sequence_gate_weight;   // [S] over all layers, of all assignments, as the router weighed them
  // What became of the assignments, by AssignmentState of kernels/capacity.h; empty in a step that limited nobody: all
  // were processed. A lost assignment is counted where it was lost, a rerouted one where it went.
  std::vector<int64_t> states;                    // [num_layers, 4, num_experts]
  std::vector<double> lost_gate_weight;           // [num_layers, num_experts]
  std::vector<int64_t> sequence_states;           // [S, 4] over all layers
  std::vector<double> sequence_lost_gate_weight;  // [S] of those that were lost

  bool is_limited() const { return !states.empty(); }
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_STEP_ROUTING_H_
