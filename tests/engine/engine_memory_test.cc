// What the engine gives up when the host's memory runs short, and that no answer changes for it.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "engine/request/refusal.h"
#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

// Submits a request that nobody waits for.
Refusal Try(EngineHarness& harness, int32_t prompt_tokens = 8) {
  Ticket ticket{.prompt = MakePrompt(prompt_tokens, 99)};
  const absl::Status status = harness.engine->Submit(harness.MakeRequest(ticket, 1));
  if (status.ok()) {
    ticket.cancel->Cancel();
    return Refusal::kNone;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  return RefusalOf(status);
}

TEST(EngineMemoryTest, AShortenedQueueTakesAQuarterAndWhoWaitsStays) {
  HarnessOptions options;
  options.engine.max_queue_requests = 8;
  EngineHarness harness(options);
  std::vector<Ticket> waiting;
  for (int i = 0; i < 4; ++i) waiting.push_back(harness.MustSubmit(MakePrompt(8, i), 3));
  harness.engine->SetMemoryPressure(MemoryPressure::kShortenQueue);
  EXPECT_EQ(Try(harness), Refusal::kQueueFull);
  harness.RunUntilIdle();
  for (const Ticket& ticket : waiting) EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 3));
  harness.MustSubmit(MakePrompt(8, 10), 1);
  harness.MustSubmit(MakePrompt(8, 11), 1);
  EXPECT_EQ(Try(harness), Refusal::kQueueFull);
  harness.engine->SetMemoryPressure(MemoryPressure::kNone);
  EXPECT_EQ(Try(harness), Refusal::kNone);
  harness.RunUntilIdle();
}

TEST(EngineMemoryTest, AShortenedQueueStillTakesTheLargestRequestAlone) {
  HarnessOptions options;
  options.engine.max_queue_tokens = 100;
  EngineHarness harness(options);
  harness.engine->SetMemoryPressure(MemoryPressure::kShortenQueue);
  const Ticket large = harness.MustSubmit(MakePrompt(100, 1), 2);
  EXPECT_EQ(Try(harness, 1), Refusal::kQueueFull);
  harness.RunUntilIdle();
  EXPECT_EQ(large.sink->token_ids(), harness.Expected(large, 2));
}

TEST(EngineMemoryTest, FromRefuseOnNobodyNewIsTakenAndWhoRunsGoesOn) {
  EngineHarness harness;
  const Ticket running = harness.MustSubmit(MakePrompt(20, 1), 6);
  ASSERT_TRUE(harness.engine->Step());
  for (const auto level : {MemoryPressure::kRefuse, MemoryPressure::kEvict, MemoryPressure::kPreempt}) {
    harness.engine->SetMemoryPressure(level);
    EXPECT_EQ(Try(harness), Refusal::kMemoryPressure);
  }
  harness.RunUntilIdle();
  EXPECT_EQ(running.sink->token_ids(), harness.Expected(running, 6));
  EXPECT_EQ(harness.engine->Snapshot().memory_preemptions, 0);  // the last one that runs is left alone
}

TEST(EngineMemoryTest, EvictGivesUpWhatIsCachedAndTheMemoryBehindIt) {
  EngineHarness harness;
  harness.MustSubmit(MakePrompt(40, 1), 2);
  harness.RunUntilIdle();
  ASSERT_EQ(harness.engine->Snapshot().kv_blocks_cached, 10);
  harness.engine->SetMemoryPressure(MemoryPressure::kRefuse);
  harness.engine->Step();
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_cached, 10);
  EXPECT_TRUE(harness.runner->released.empty());

  harness.engine->SetMemoryPressure(MemoryPressure::kEvict);
  harness.engine->Step();
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_cached, 0);
  EXPECT_EQ(harness.engine->Snapshot().kv_block_evictions, 10);
  const std::set<int32_t> released(harness.runner->released.begin(), harness.runner->released.end());
  EXPECT_EQ(std::ssize(released), harness.engine->Snapshot().kv_blocks_total);
  // Once, not in every turn.
  harness.runner->released.clear();
  harness.engine->SetMemoryPressure(MemoryPressure::kEvict);
  harness.engine->Step();
  EXPECT_TRUE(harness.runner->released.empty());
}

// Nothing becomes idle then: what is preempted is free at once, and so is what ends.
TEST(EngineMemoryTest, WithoutAPrefixCacheWhatIsPreemptedIsGivenBackToo) {
  HarnessOptions options;
  options.engine.prefix_cache = PrefixCacheScope::kOff;
  EngineHarness harness(options);
  std::vector<Ticket> tickets;
  for (int i = 0; i < 2; ++i) tickets.push_back(harness.MustSubmit(MakePrompt(40, i), 20));
  harness.engine->Step();
  harness.engine->SetMemoryPressure(MemoryPressure::kEvict);
  harness.engine->Step();
  const int64_t held = harness.engine->Snapshot().kv_blocks_in_use;
  harness.runner->released.clear();

  harness.engine->SetMemoryPressure(MemoryPressure::kPreempt);
  for (int i = 0; i < 2; ++i) harness.engine->Step();
  EXPECT_EQ(std::ssize(harness.runner->released), held / 2);
  harness.runner->released.clear();
  harness.RunUntilIdle();
  EXPECT_GE(std::ssize(harness.runner->released), held);
  for (const Ticket& ticket : tickets) EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 20));
}

// The runner forgets what was in the blocks, so whoever still used one would answer wrongly.
TEST(EngineMemoryTest, NoBlockIsGivenBackWhileSomebodyUsesIt) {
  EngineHarness harness;
  harness.MustSubmit(MakePrompt(40, 1), 2);
  harness.RunUntilIdle();
  std::vector<Ticket> tickets;
  for (int i = 0; i < 6; ++i) tickets.push_back(harness.MustSubmit(MakePrompt(40, i / 2), 20));
  for (int i = 0; i < 3; ++i) harness.engine->Step();
  harness.engine->SetMemoryPressure(MemoryPressure::kEvict);
  while (harness.engine->Step()) {
    ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
    ASSERT_EQ(harness.engine->Snapshot().kv_blocks_cached > 0 && harness.engine->Snapshot().running_requests == 6,
              false);
  }
  for (const Ticket& ticket : tickets) EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 20));
}

TEST(EngineMemoryTest, EachReadingAtPreemptPutsOneSequenceBackUntilOneRuns) {
  EngineHarness harness;
  std::vector<Ticket> tickets;
  for (int i = 0; i < 4; ++i) tickets.push_back(harness.MustSubmit(MakePrompt(10, i), 30));
  harness.engine->Step();
  ASSERT_EQ(harness.engine->Snapshot().running_requests, 4);
  for (const int64_t running : {3, 2, 1, 1, 1}) {
    harness.engine->SetMemoryPressure(MemoryPressure::kPreempt);
    for (int i = 0; i < 2; ++i) {
      harness.engine->Step();
      ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
      EXPECT_EQ(harness.engine->Snapshot().running_requests, running);
    }
  }
  EXPECT_EQ(harness.engine->Snapshot().memory_preemptions, 3);
  EXPECT_EQ(harness.engine->Snapshot().preemptions, 3);
  EXPECT_FALSE(harness.runner->released.empty());
  // While it lasts they go one by one; afterwards together.
  while (tickets[0].sink->num_finished() == 0) ASSERT_TRUE(harness.engine->Step());
  harness.engine->Step();
  EXPECT_EQ(harness.engine->Snapshot().running_requests, 1);
  harness.engine->SetMemoryPressure(MemoryPressure::kNone);
  for (int i = 0; i < 2; ++i) harness.engine->Step();
  EXPECT_EQ(harness.engine->Snapshot().running_requests, 3);
  harness.RunUntilIdle();
  for (const Ticket& ticket : tickets) EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 30));
}

// However long it lasts, everybody is served, and preempted no more often than for want of blocks.
TEST(EngineMemoryTest, EndlessPressureStarvesNobody) {
  EngineHarness harness;
  std::vector<Ticket> tickets;
  for (int i = 0; i < 12; ++i) tickets.push_back(harness.MustSubmit(MakePrompt(10 + i, i), 12));
  harness.engine->Step();
  int turn = 0;
  do {
    harness.engine->SetMemoryPressure(++turn % 7 < 4 ? MemoryPressure::kPreempt : MemoryPressure::kNone);
    ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
    ASSERT_LT(turn, 5000);
  } while (harness.engine->Step());
  for (const Ticket& ticket : tickets) {
    EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 12));
    EXPECT_LE(ticket.sink->summary().num_preemptions, 4);
  }
  EXPECT_GT(harness.engine->Snapshot().memory_preemptions, 5);
}

}  // namespace
}  // namespace cadre
