// What the engine has to say for the log. Everything is passed on to another observer.
#ifndef CADRE_SERVER_ENGINE_LOG_H_
#define CADRE_SERVER_ENGINE_LOG_H_

#include "engine/base/clock.h"
#include "engine/engine.h"
#include "server/fault_log.h"

namespace cadre {

class EngineLog final : public EngineObserver {
 public:
  // `next` outlives this.
  explicit EngineLog(EngineObserver* next) : next_(next) {}

  void OnStep(const StepReport& report) override { next_->OnStep(report); }
  void OnFinish(const FinishSummary& summary) override { next_->OnFinish(summary); }
  // As FaultLog says.
  void OnExpertFaults(const ExpertFaults& faults) override;
  void OnMemoryMove(const MemoryMove& move, const JointBudgetReport& report) override;

 private:
  EngineObserver* const next_;
  const MonotonicClock clock_;
  FaultLog fault_log_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_ENGINE_LOG_H_
