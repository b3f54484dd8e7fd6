// A step from its plan until its tokens are told: what the runner reads and writes meanwhile.
#ifndef CADRE_ENGINE_ORDERED_STEP_H_
#define CADRE_ENGINE_ORDERED_STEP_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/model/forward_batch.h"
#include "engine/schedule/step_plan.h"

namespace cadre {

struct OrderedStep {
  StepPlan plan;
  ForwardBatch batch;
  ForwardResult result;
  StepReport report;
  absl::Time begin;
  bool is_ahead = false;     // ordered before the step in front of it was finished
  bool is_finished = false;  // the runner is done with it: `status` is what came of it
  absl::Status status;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_ORDERED_STEP_H_
