// What the scheduler decided for one step. A value: tests compare plans with ==.
#ifndef CADRE_ENGINE_SCHEDULE_STEP_PLAN_H_
#define CADRE_ENGINE_SCHEDULE_STEP_PLAN_H_

#include <cstdint>
#include <vector>

#include "engine/request/sequence.h"

namespace cadre {

// Tokens [begin, begin + count) of one sequence run in this step.
struct ScheduledChunk {
  SequenceId sequence = 0;
  int32_t begin = 0;
  int32_t count = 0;
  bool samples = false;     // the chunk ends the known tokens: its last row's logits give the next token
  bool all_logits = false;  // the logits of all its rows are wanted

  int32_t num_logit_rows() const { return all_logits ? count : (samples ? 1 : 0); }

  bool operator==(const ScheduledChunk&) const = default;
};

struct StepPlan {
  std::vector<ScheduledChunk> chunks;  // decodes first, then prefill chunks; each part in order of arrival
  int32_t num_decodes = 0;             // how many of the chunks are decodes
  std::vector<SequenceId> preempted;   // lose their blocks to make room, and wait again; latest arrival first
  int32_t num_yielded = 0;             // how many of the preempted make room for RunningLimit::kFewer, not for blocks
  std::vector<SequenceId> started;     // scheduled for the first time

  bool empty() const { return chunks.empty(); }
  bool operator==(const StepPlan&) const = default;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_STEP_PLAN_H_
