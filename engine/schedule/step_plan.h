// What the scheduler decided for one step. A value: tests compare plans with ==.
#ifndef CADRE_ENGINE_SCHEDULE_STEP_PLAN_H_
#define CADRE_ENGINE_SCHEDULE_STEP_PLAN_H_

#include <cstdint>
#include <vector>

namespace cadre {

// Identity of a sequence inside one engine; never reused.
using SequenceId = int64_t;

// Tokens [begin, begin + count) of one sequence run in this step.
struct ScheduledChunk {
  SequenceId sequence = 0;
  int32_t begin = 0;
  int32_t count = 0;
  bool samples = false;  // the chunk ends the known tokens: its last row's logits give the next token

  bool operator==(const ScheduledChunk&) const = default;
};

struct StepPlan {
  std::vector<ScheduledChunk> chunks;     // decodes first, then prefill chunks
  std::vector<SequenceId> preempted;      // lost their blocks to make room, and wait again
  std::vector<SequenceId> started;        // scheduled for the first time
  std::vector<SequenceId> unschedulable;  // can never fit into the KV pool; to be failed by the engine

  bool empty() const { return chunks.empty(); }
  bool operator==(const StepPlan&) const = default;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_STEP_PLAN_H_
