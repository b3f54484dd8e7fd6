// Who goes first where experts decide: over the simulator, whose tokens go where the test says. Half of the experts are
// in memory, for ever; even tokens need these, odd ones the others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "engine/experts/expert_placement.h"
#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

using testing::ElementsAre;

using Edit = std::function<void(Request&)>;

std::shared_ptr<const ExpertPlacement> HalfOf(const RunnerLimits& limits) {
  ExpertPlacement placement;
  for (int32_t i = 0; i < limits.num_moe_layers * limits.num_experts; ++i) {
    const bool is_here = i % limits.num_experts < limits.num_experts / 2;
    placement.tiers.push_back(is_here ? ExpertTier::kDevice : ExpertTier::kCheckpoint);
  }
  return std::make_shared<const ExpertPlacement>(std::move(placement));
}

// One sequence runs at a time, in one step of 10 ms.
struct Server {
  explicit Server(EngineOptions engine = {}, bool has_cache = true) {
    HarnessOptions options;
    engine.max_num_seqs = 1;
    engine.prefix_cache = PrefixCacheScope::kOff;
    engine.routing_sample_steps = 1;
    options.engine = engine;
    if (has_cache) options.placement = HalfOf(options.limits);
    harness = std::make_unique<EngineHarness>(options);
    harness->runner->after = [limits = options.limits](const ForwardBatch& batch, ForwardResult* result) {
      for (size_t i = 0; i < result->expert_ids.size(); ++i) {
        const auto top_k = static_cast<size_t>(limits.top_k);
        const size_t row = i / top_k % batch.token_ids.size();
        const int32_t half = batch.token_ids[row] % 2 == 0 ? 0 : limits.num_experts / 2;
        result->expert_ids[i] = half + static_cast<int32_t>(i % top_k);
      }
    };
    // All that comes later is known by then, and how long a step takes.
    std::vector<int32_t> all(500);
    std::iota(all.begin(), all.end(), 0);
    harness->MustSubmit(all, 1);
    for (int i = 0; i < 20; ++i) harness->MustSubmit({1, 2}, 1);
    harness->RunUntilIdle();
    harness->runner->before = [this](const ForwardBatch& batch) {
      order.push_back(batch.token_ids.front());
      return absl::OkStatus();
    };
  }

  // A prompt of tokens that are as even or odd as the first one, which is its name.
  Ticket Submit(int32_t name, const Edit& edit = nullptr) {
    tickets.push_back(harness->MustSubmit({name, name + 2, name + 4}, 1, edit));
    return tickets.back();
  }
  void SubmitEven(int count) {
    for (int i = 0; i < count; ++i) Submit(100 + 2 * i);
  }
  EngineSnapshot Run() {
    harness->RunUntilIdle();
    return harness->engine->Snapshot();
  }

  std::unique_ptr<EngineHarness> harness;
  std::vector<int32_t> order;  // names
  std::vector<Ticket> tickets;
};

EngineOptions Aware() {
  EngineOptions options;
  options.expert_aware_scheduling = true;
  return options;
}

TEST(EngineExpertAwareTest, WhatIsInMemoryGoesFirstAndNobodyWaitsForEver) {
  Server server(Aware());
  for (const int32_t odd : {1, 3, 5}) server.Submit(odd);
  server.SubmitEven(10);
  const EngineSnapshot snapshot = server.Run();
  EXPECT_THAT(server.order, ElementsAre(100, 102, 104, 106, 108, 110, 112, 114, 1, 3, 5, 116, 118));
  EXPECT_EQ(snapshot.preferred_sequences, 8);
  EXPECT_EQ(snapshot.passed_over, 3 * 8);
  for (const Ticket& ticket : server.tickets) {
    EXPECT_EQ(ticket.sink->token_ids(), SimulatedRunner::ExpectedTokens(ticket.prompt, 1, 512));
  }
}

TEST(EngineExpertAwareTest, OffAndWithoutACacheItIsFirstComeFirstServed) {
  for (const bool has_cache : {true, false}) {
    Server server(has_cache ? EngineOptions() : Aware(), has_cache);
    server.Submit(1);
    server.SubmitEven(2);
    const EngineSnapshot snapshot = server.Run();
    EXPECT_THAT(server.order, ElementsAre(1, 100, 102));
    EXPECT_EQ(snapshot.preferred_sequences, 0);
  }
}

TEST(EngineExpertAwareTest, ADeadlineThatWouldBeMissedIsNotPassedOver) {
  for (const bool is_tight : {true, false}) {
    EngineOptions options = Aware();
    options.deadline_admission = true;
    Server server(options);
    server.Submit(1, [&](Request& request) {
      request.deadline = request.arrival + (is_tight ? absl::Milliseconds(60) : absl::Seconds(10));
    });
    server.SubmitEven(10);
    server.Run();
    EXPECT_EQ(server.order.front(), is_tight ? 1 : 100);
    EXPECT_TRUE(server.tickets.front().sink->summary().status.ok());
  }
}

TEST(EngineExpertAwareTest, WhatATimeLimitCutsOffIsNotPassedOver) {
  Server server(Aware());
  server.Submit(1, [](Request& request) { request.time_limit = absl::Hours(1); });
  server.SubmitEven(2);
  server.Run();
  EXPECT_THAT(server.order, ElementsAre(1, 100, 102));
}

// It was accepted because it would not wait for longer than 60 ms; 55 of these are gone, or none.
TEST(EngineExpertAwareTest, WhoHasWaitedLongIsNotPassedOver) {
  for (const bool has_waited : {true, false}) {
    EngineOptions options = Aware();
    options.max_queue_wait = absl::Milliseconds(60);
    Server server(options);
    server.Submit(1);
    server.SubmitEven(2);
    if (has_waited) server.harness->clock->Advance(absl::Milliseconds(55));
    server.Run();
    EXPECT_EQ(server.order.front(), has_waited ? 1 : 100);
  }
}

// The other sequences of a request that has begun are next, whoever else waits.
TEST(EngineExpertAwareTest, WhoHasBegunIsNotPassedOver) {
  Server server(Aware());
  server.Submit(1, [](Request& request) { request.num_sequences = 3; });
  server.harness->engine->Step();
  server.SubmitEven(2);
  server.Run();
  EXPECT_THAT(server.order, ElementsAre(1, 1, 1, 100, 102));
}

}  // namespace
}  // namespace cadre
