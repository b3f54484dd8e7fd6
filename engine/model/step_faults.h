// Assignments of one step that nobody computed, because the weights of their experts could not be read.
#ifndef CADRE_ENGINE_MODEL_STEP_FAULTS_H_
#define CADRE_ENGINE_MODEL_STEP_FAULTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/step_routing.h"
#include "kernels/capacity.h"

namespace cadre {

struct LostAssignment {
  int64_t moe_layer = 0;
  int32_t expert = 0;
  int32_t sequence = 0;  // of the step
  float gate_weight = 0.0f;
  AssignmentState state = AssignmentState::kProcessed;  // what it was counted as
};

struct SequenceFault {
  int32_t sequence = 0;  // of the step
  absl::Status status;   // UNAVAILABLE, names the first expert that was missing
};

// Assignments of one sequence of the step, over all layers: whether their expert was in memory when the layer began.
struct ExpertCacheUse {
  int64_t hits = 0;
  int64_t misses = 0;
  // Of the experts of its misses that were read, each once for a layer; who shares one with others has all of it.
  int64_t bytes = 0;
};

struct StepFaults {
  std::vector<LostAssignment> lost;
  std::vector<SequenceFault> sequences;  // once each

  bool empty() const { return lost.empty(); }
  void Clear() {
    lost.clear();
    sequences.clear();
  }
};

// Counts what was lost as dropped.
void CountFaults(const StepFaults& faults, StepRouting* routing);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_STEP_FAULTS_H_
