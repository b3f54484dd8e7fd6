// An engine over the simulated runner with a thread of its own, audited after every step.
#ifndef CADRE_TESTS_SUPPORT_RUNNING_ENGINE_H_
#define CADRE_TESTS_SUPPORT_RUNNING_ENGINE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/model/simulated_runner.h"
#include "tests/support/engine_harness.h"

namespace cadre {

// Audits on the engine thread, after each step.
class AuditingObserver final : public EngineObserver {
 public:
  void OnStep(const StepReport&) override {
    ++num_steps;
    if (absl::Status status = engine->Audit(); !status.ok()) failure = status;
  }
  void OnFinish(const FinishSummary&) override { ++num_finished; }

  const Engine* engine = nullptr;
  std::atomic<int64_t> num_steps = 0;
  std::atomic<int64_t> num_finished = 0;
  absl::Status failure;  // read after the engine has stopped
};

struct RunningEngine {
  explicit RunningEngine(EngineOptions options, absl::Duration step_cost = absl::ZeroDuration()) {
    SimulatedOptions simulated{.step_cost = step_cost};
    simulated.limits.num_kv_blocks = 48;
    simulated.limits.kv_block_size = 4;
    simulated.limits.vocab_size = 512;
    engine = std::make_unique<Engine>(options, std::make_unique<SimulatedRunner>(std::move(simulated)), nullptr, clock,
                                      &observer);
    observer.engine = engine.get();
    engine->Start();
  }

  // Whatever happened, every step left the books in order.
  ~RunningEngine() {
    engine.reset();
    EXPECT_TRUE(observer.failure.ok()) << observer.failure;
  }

  absl::Status Submit(const Ticket& ticket, int32_t max_tokens, absl::Duration timeout = absl::InfiniteDuration()) {
    Request request;
    request.prompt = ticket.prompt;
    request.sampling.max_tokens = max_tokens;
    request.arrival = clock->Now();
    request.deadline = request.arrival + timeout;
    request.wants_text = false;
    request.sink = ticket.sink;
    request.cancel = ticket.cancel;
    return engine->Submit(std::move(request));
  }

  std::shared_ptr<const MonotonicClock> clock = std::make_shared<MonotonicClock>();
  AuditingObserver observer;
  std::unique_ptr<Engine> engine;
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_RUNNING_ENGINE_H_
