// What the engine learns about its own pace: how long steps take, and how much requests use of what they may.
#ifndef CADRE_ENGINE_SERVICE_METER_H_
#define CADRE_ENGINE_SERVICE_METER_H_

#include <cstdint>

#include "absl/time/time.h"
#include "engine/request/sequence.h"
#include "engine/schedule/service_estimate.h"
#include "engine/schedule/step_cost_model.h"
#include "engine/schedule/step_plan.h"

namespace cadre {

// Engine thread only; its state is a value for all.
class ServiceMeter {
 public:
  // `max_prompt_rows`: of a step that also decodes.
  ServiceMeter(int32_t max_num_seqs, int32_t max_prompt_rows);

  // A step that did `plan` took so long.
  void ObserveStep(const StepPlan& plan, absl::Duration duration);
  // A sequence ran for the first time.
  void ObserveStart(const Sequence& sequence);
  // A sequence ended normally.
  void ObserveEnd(const Sequence& sequence);

  // The running work, counted anew.
  void ClearRunning() { state_.running = {}; }
  void AddRunning(const Sequence& sequence);

  const ServiceState& state() const { return state_; }

 private:
  StepCostModel costs_;
  ServiceState state_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SERVICE_METER_H_
