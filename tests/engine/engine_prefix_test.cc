// Shared prompts, from request to answer, over the simulated runner: it reads every history back.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

using Code = absl::StatusCode;

int64_t RowsOf(const EngineHarness& harness) {
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  return snapshot.prefill_tokens + snapshot.decode_tokens;
}

void RunAudited(EngineHarness& harness) {
  while (harness.engine->Step()) ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
}

TEST(EnginePrefixTest, ASecondRequestComputesOnlyWhatIsNew) {
  EngineHarness harness;
  const Ticket first = harness.MustSubmit(MakePrompt(30, 1), 6);
  RunAudited(harness);
  EXPECT_EQ(RowsOf(harness), 35);
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_cached, 8);  // 35 rows are 8 full blocks
  const Ticket second = harness.MustSubmit(MakePrompt(30, 1), 6);
  RunAudited(harness);
  EXPECT_EQ(RowsOf(harness), 35 + 7);
  EXPECT_EQ(second.sink->token_ids(), harness.Expected(second, 6));
  // The next turn of the conversation.
  std::vector<int32_t> turn = second.prompt;
  for (int32_t token : second.sink->token_ids()) turn.push_back(token);
  turn.push_back(5);
  const Ticket third = harness.MustSubmit(turn, 4);
  RunAudited(harness);
  EXPECT_EQ(third.sink->token_ids(), harness.Expected(third, 4));
  EXPECT_EQ(RowsOf(harness), 35 + 7 + (37 - 32) + 3);
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.prefix_lookup_tokens, 30 + 30 + 37);
  EXPECT_EQ(snapshot.prefix_hit_tokens, 28 + 32);
  EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
  EXPECT_EQ(snapshot.kv_blocks_free + snapshot.kv_blocks_cached, snapshot.kv_blocks_total);
}

// The leader computes the prompt; each sibling only what stands behind the last full block of it.
TEST(EnginePrefixTest, TheSequencesOfARequestShareItsPromptAlsoWithoutACache) {
  for (const PrefixCacheScope scope : {PrefixCacheScope::kOff, PrefixCacheScope::kTenant}) {
    HarnessOptions options;
    options.engine.prefix_cache = scope;
    options.engine.max_num_batched_tokens = 12;  // the prompt takes three steps
    EngineHarness harness(options);
    const Ticket ticket = harness.MustSubmit(MakePrompt(30, 1), 5, [](Request& request) { request.num_sequences = 4; });
    RunAudited(harness);
    EXPECT_EQ(RowsOf(harness), 30 + 3 * 2 + 4 * 4);
    EXPECT_TRUE(ticket.sink->summary().status.ok());
    EXPECT_EQ(harness.engine->Snapshot().kv_blocks_in_use, 0);
    EXPECT_EQ(harness.engine->Snapshot().kv_blocks_cached > 0, scope == PrefixCacheScope::kTenant);
  }
}

int64_t RowsOfTheSecond(PrefixCacheScope scope, const char* tenant, const char* salt) {
  HarnessOptions options;
  options.engine.prefix_cache = scope;
  EngineHarness harness(options);
  const auto of_tenant = [](const char* name, const char* its_salt) {
    return [=](Request& request) {
      request.tenant = name;
      request.cache_salt = its_salt;
    };
  };
  harness.MustSubmit(MakePrompt(30, 1), 1, of_tenant("victim", "s"));
  harness.RunUntilIdle();
  harness.MustSubmit(MakePrompt(30, 1), 1, of_tenant(tenant, salt));
  RunAudited(harness);
  return RowsOf(harness) - 30;
}

TEST(EnginePrefixTest, AnotherTenantOrSaltFindsNothing) {
  EXPECT_EQ(RowsOfTheSecond(PrefixCacheScope::kTenant, "victim", "s"), 2);
  EXPECT_EQ(RowsOfTheSecond(PrefixCacheScope::kTenant, "attacker", "s"), 30);
  EXPECT_EQ(RowsOfTheSecond(PrefixCacheScope::kTenant, "victim", "t"), 30);
  EXPECT_EQ(RowsOfTheSecond(PrefixCacheScope::kShared, "attacker", "s"), 2);
  EXPECT_EQ(RowsOfTheSecond(PrefixCacheScope::kShared, "attacker", "t"), 30);
  EXPECT_EQ(RowsOfTheSecond(PrefixCacheScope::kOff, "victim", "s"), 30);
}

// What a stranger can measure is time; in steps and rows, a stranger's probe looks the same whether its prompt was
// served to somebody else or not.
TEST(EnginePrefixTest, AProbeTellsAStrangerNothing) {
  const auto probe = [](bool was_asked) {
    EngineHarness harness;
    harness.MustSubmit(MakePrompt(40, was_asked ? 1 : 2), 3, [](Request& request) { request.tenant = "victim"; });
    harness.RunUntilIdle();
    const absl::Time begin = harness.clock->Now();
    const size_t num_steps = harness.observer.steps.size();
    harness.MustSubmit(MakePrompt(40, 1), 1, [](Request& request) { request.tenant = "attacker"; });
    harness.RunUntilIdle();
    int64_t rows = 0;
    for (size_t i = num_steps; i < harness.observer.steps.size(); ++i) rows += harness.observer.steps[i].prefill_tokens;
    return std::pair(rows, harness.clock->Now() - begin);
  };
  EXPECT_EQ(probe(true), probe(false));
}

TEST(EnginePrefixTest, ARequestWithNanLogitsFailsAloneAndIsScrubbed) {
  EngineHarness harness;
  const Ticket neighbor = harness.MustSubmit(MakePrompt(21, 2), 12);
  const Ticket poisoned = harness.MustSubmit(MakePrompt(30, 1), 12);
  int step = 0;
  harness.runner->after = [&](const ForwardBatch&, ForwardResult* result) {
    // Its fourth token: some of its blocks are in the cache by then.
    if (++step == 4) std::fill_n(result->logits.begin() + 512, 512, std::numeric_limits<float>::quiet_NaN());
  };
  RunAudited(harness);
  EXPECT_EQ(poisoned.sink->summary().status.code(), Code::kInternal);
  EXPECT_EQ(neighbor.sink->token_ids(), harness.Expected(neighbor, 12));
  EXPECT_EQ(harness.runner->scrubbed.size(), 9u);  // ceil(33 / 4)
  const int64_t rows = RowsOf(harness);
  const Ticket again = harness.MustSubmit(poisoned.prompt, 1);
  RunAudited(harness);
  EXPECT_EQ(RowsOf(harness) - rows, 30);  // nothing of it is found
  EXPECT_EQ(again.sink->token_ids(), harness.Expected(again, 1));
}

TEST(EnginePrefixTest, AFailedStepScrubsItsRequests) {
  EngineHarness harness;
  const Ticket failed = harness.MustSubmit(MakePrompt(10, 2), 5);
  int step = 0;
  harness.runner->before = [&](const ForwardBatch&) {
    return ++step == 3 ? absl::UnavailableError("device lost") : absl::OkStatus();
  };
  RunAudited(harness);
  EXPECT_EQ(failed.sink->summary().status.code(), Code::kUnavailable);
  EXPECT_EQ(harness.runner->scrubbed.size(), 3u);
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_cached, 0);
}

// The pool is far too small for all: blocks are shared, evicted, preempted and found again.
TEST(EnginePrefixTest, CrowdedPoolsChangeNoToken) {
  for (const int32_t num_blocks : {14, 20, 40}) {
    HarnessOptions options;
    options.limits.num_kv_blocks = num_blocks;
    options.engine.max_num_seqs = 8;
    options.engine.max_num_batched_tokens = 24;
    options.engine.max_prefill_chunk = 8;
    EngineHarness harness(options);
    std::vector<Ticket> tickets;
    for (int32_t i = 0; i < 60; ++i) {
      std::vector<int32_t> prompt = MakePrompt(10 + i % 5, i % 3);
      for (int32_t j = 0; j < i % 7; ++j) prompt.push_back(i);
      tickets.push_back(harness.MustSubmit(prompt, 10 + i % 11, [&](Request& request) {
        request.priority = i % 4 == 0 ? 1 : 0;
        request.tenant = i % 5 == 0 ? "a" : "b";
      }));
    }
    RunAudited(harness);
    for (int32_t i = 0; i < 60; ++i) {
      const Ticket& ticket = tickets[static_cast<size_t>(i)];
      EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 10 + i % 11)) << i;
      EXPECT_LE(ticket.sink->summary().num_preemptions, 3);
    }
    const EngineSnapshot snapshot = harness.engine->Snapshot();
    EXPECT_GT(snapshot.prefix_hit_tokens, 100);
    EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
    EXPECT_GE(snapshot.preemptions, num_blocks == 14 ? 1 : 0);
  }
}

}  // namespace
}  // namespace cadre
