// An engine over the simulated runner, driven step by step with a clock that moves only when told.
#ifndef CADRE_TESTS_SUPPORT_ENGINE_HARNESS_H_
#define CADRE_TESTS_SUPPORT_ENGINE_HARNESS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/base/check.h"
#include "engine/base/clock.h"
#include "engine/engine.h"
#include "engine/model/simulated_runner.h"
#include "tests/support/ahead_runner.h"
#include "tests/support/recording_sink.h"

namespace cadre {

// Sits between the engine and the simulator and may spoil a step.
class InterceptedRunner final : public ModelRunner {
 public:
  explicit InterceptedRunner(SimulatedOptions options, std::shared_ptr<const ExpertPlacement> placement = nullptr)
      : simulator_(std::move(options)), placement_(std::move(placement)) {}

  const RunnerLimits& limits() const override { return simulator_.limits(); }
  std::shared_ptr<const ExpertPlacement> expert_placement() const override { return placement_; }
  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override {
    if (before) {
      if (absl::Status status = before(batch); !status.ok()) return status;
    }
    absl::Status status = simulator_.Forward(batch, result);
    if (after) after(batch, result);
    return status;
  }

  // Where limits().can_order_ahead, nothing is computed before Finish; `before` and `after` see it then.
  absl::Status Order(const ForwardBatch& batch, ForwardResult* result) override {
    if (on_order) {
      if (absl::Status status = on_order(batch); !status.ok()) return status;
    }
    if (!limits().can_order_ahead) return Forward(batch, result);
    steps_.Order(batch);
    most_ordered = std::max(most_ordered, steps_.num_ordered());
    return absl::OkStatus();
  }
  absl::Status Finish(const ForwardBatch& batch, ForwardResult* result) override {
    if (!limits().can_order_ahead) return absl::OkStatus();
    return steps_.Finish(batch, result,
                         [this](const ForwardBatch& known, ForwardResult* to) { return Forward(known, to); });
  }
  size_t num_ordered() const { return steps_.num_ordered(); }

  void ScrubBlocks(std::span<const int32_t> blocks) override {
    EXPECT_EQ(steps_.num_ordered(), 0u) << "a step may still write there";
    scrubbed.insert(scrubbed.end(), blocks.begin(), blocks.end());
    simulator_.ScrubBlocks(blocks);
  }

  void ReleaseMemory(std::span<const int32_t> blocks) override {
    released.insert(released.end(), blocks.begin(), blocks.end());
    simulator_.ScrubBlocks(blocks);
  }

  std::vector<int32_t> scrubbed;
  std::vector<int32_t> released;
  size_t most_ordered = 0;  // at a time
  std::function<absl::Status(const ForwardBatch&)> on_order;
  std::function<absl::Status(const ForwardBatch&)> before;
  std::function<void(const ForwardBatch&, ForwardResult*)> after;

 private:
  SimulatedRunner simulator_;
  AheadSteps steps_;
  const std::shared_ptr<const ExpertPlacement> placement_;
};

// Counts what it hears.
class CountingObserver final : public EngineObserver {
 public:
  void OnStep(const StepReport& report) override {
    steps.push_back(report);
    if (on_step) on_step();
  }
  void OnFinish(const FinishSummary& summary) override { finishes.push_back(summary); }

  std::vector<StepReport> steps;
  std::vector<FinishSummary> finishes;
  std::function<void()> on_step;
};

// A request in flight, as its owner sees it.
struct Ticket {
  std::vector<int32_t> prompt;
  std::shared_ptr<RecordingSink> sink = std::make_shared<RecordingSink>();
  std::shared_ptr<CancelFlag> cancel = std::make_shared<CancelFlag>();
};

struct HarnessOptions {
  EngineOptions engine;
  RunnerLimits limits = {.vocab_size = 512,
                         .max_model_len = 512,
                         .num_kv_blocks = 256,
                         .kv_block_size = 4,
                         .num_moe_layers = 3,
                         .num_experts = 8,
                         .top_k = 2};
  absl::Duration step_cost = absl::Milliseconds(10);
  const Tokenizer* tokenizer = nullptr;
  std::shared_ptr<const ExpertPlacement> placement = nullptr;  // what the runner says of its experts, for ever
};

struct EngineHarness {
  explicit EngineHarness(const HarnessOptions& options = {}) {
    SimulatedOptions simulated{.limits = options.limits, .step_cost = options.step_cost};
    simulated.pass_time = [clock_ptr = clock.get()](absl::Duration cost) { clock_ptr->Advance(cost); };
    auto owned_runner = std::make_unique<InterceptedRunner>(std::move(simulated), options.placement);
    runner = owned_runner.get();
    engine = std::make_unique<Engine>(options.engine, std::move(owned_runner), options.tokenizer, clock, &observer);
  }

  // However a test ends, its books are in order, and who is idle holds no block.
  ~EngineHarness() {
    if (engine == nullptr) return;
    EXPECT_TRUE(engine->Audit().ok()) << engine->Audit();
    const EngineSnapshot snapshot = engine->Snapshot();
    if (snapshot.admitted_requests == snapshot.num_finished()) {
      EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
    }
  }

  // A greedy request for token ids.
  Request MakeRequest(const Ticket& ticket, int32_t max_tokens) const {
    Request request;
    request.prompt = ticket.prompt;
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = 0.0f;
    request.arrival = clock->Now();
    request.wants_text = false;
    request.sink = ticket.sink;
    request.cancel = ticket.cancel;
    return request;
  }

  // The same, changed by `edit` and handed over.
  Ticket MustSubmit(std::vector<int32_t> prompt, int32_t max_tokens,
                    const std::function<void(Request&)>& edit = nullptr) {
    Ticket ticket{.prompt = std::move(prompt)};
    Request request = MakeRequest(ticket, max_tokens);
    if (edit) edit(request);
    const absl::Status status = engine->Submit(std::move(request));
    CADRE_CHECK(status.ok());
    return ticket;
  }

  // What the model says to `ticket`, whoever else is served.
  std::vector<int32_t> Expected(const Ticket& ticket, int32_t count) const {
    return SimulatedRunner::ExpectedTokens(ticket.prompt, count, engine->limits().vocab_size);
  }

  void RunUntilIdle() {
    while (engine->Step()) ASSERT_TRUE(engine->Audit().ok()) << engine->Audit();
  }

  std::shared_ptr<FakeClock> clock = std::make_shared<FakeClock>();
  CountingObserver observer;
  InterceptedRunner* runner = nullptr;  // the engine's
  std::unique_ptr<Engine> engine;
};

// What lets the engine order steps ahead of the host, which the runner of a harness then does.
inline void RunAhead(HarnessOptions* options) {
  options->limits.can_order_ahead = true;
  options->limits.max_sample_rows = 64;
  options->limits.max_sample_extras = 1024;
}

// A prompt of `length` tokens that differ from those of other `salt`s.
inline std::vector<int32_t> MakePrompt(int32_t length, int32_t salt) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < length; ++i) prompt.push_back((salt * 7919 + i * 31 + 1) % 512);
  return prompt;
}

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_ENGINE_HARNESS_H_
