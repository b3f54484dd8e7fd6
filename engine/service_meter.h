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
  // A sequence that may end early has ended: by itself, or in another way.
  void ObserveEnd(const Sequence& sequence, bool by_itself);
  // So many sequences run; `for_blocks`: others wait for nothing but blocks.
  void ObserveSeats(int32_t num_running, bool for_blocks);

  // The running work, counted anew.
  void ClearRunning() { state_.running = {}; }
  void AddRunning(const Sequence& sequence, bool may_end_early);

  const ServiceState& state() const { return state_; }

 private:
  const int32_t max_num_seqs_;
  StepCostModel costs_;
  ServiceState state_;
  // Of sequences that may end early, the latest weigh most: how many tokens they generated, how many ended by
  // themselves.
  double output_tokens_;
  double num_own_ends_ = 1.0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SERVICE_METER_H_
