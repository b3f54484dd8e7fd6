#include "engine/model/step_faults.h"

#include <algorithm>
#include <cstddef>

namespace cadre {
namespace {

constexpr auto kStates = static_cast<size_t>(kNumAssignmentStates);

// A step that limited nobody counts no states: all were processed.
void CountStates(StepRouting* routing) {
  if (routing->is_limited()) return;
  const auto num_experts = static_cast<size_t>(routing->num_experts);
  const size_t num_sequences = routing->sequence_assignments.size();
  routing->states.assign(routing->assignments.size() * kStates, 0);
  for (size_t layer = 0; layer < static_cast<size_t>(routing->num_layers); ++layer) {
    std::copy_n(routing->assignments.begin() + static_cast<std::ptrdiff_t>(layer * num_experts), num_experts,
                routing->states.begin() + static_cast<std::ptrdiff_t>(layer * kStates * num_experts));
  }
  routing->lost_gate_weight.assign(routing->assignments.size(), 0.0);
  routing->sequence_states.assign(num_sequences * kStates, 0);
  for (size_t s = 0; s < num_sequences; ++s) {
    routing->sequence_states[s * kStates] = routing->sequence_assignments[s];
  }
  routing->sequence_lost_gate_weight.assign(num_sequences, 0.0);
}
static_assert(static_cast<int>(AssignmentState::kProcessed) == 0);

}  // namespace

void CountFaults(const StepFaults& faults, StepRouting* routing) {
  if (faults.empty()) return;
  CountStates(routing);
  const auto num_experts = static_cast<size_t>(routing->num_experts);
  for (const LostAssignment& lost : faults.lost) {
    const auto layer = static_cast<size_t>(lost.moe_layer);
    const auto expert = static_cast<size_t>(lost.expert);
    const auto sequence = static_cast<size_t>(lost.sequence);
    const auto was = static_cast<size_t>(lost.state);
    constexpr auto kDropped = static_cast<size_t>(AssignmentState::kDropped);
    --routing->states[(layer * kStates + was) * num_experts + expert];
    ++routing->states[(layer * kStates + kDropped) * num_experts + expert];
    routing->lost_gate_weight[layer * num_experts + expert] += lost.gate_weight;
    --routing->sequence_states[sequence * kStates + was];
    ++routing->sequence_states[sequence * kStates + kDropped];
    routing->sequence_lost_gate_weight[sequence] += lost.gate_weight;
  }
}

}  // namespace cadre
