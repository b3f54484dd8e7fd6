// Shared prompts, priorities, tenants and chunks, as decisions of the scheduler.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "engine/schedule/scheduler.h"
#include "tests/support/scheduler_simulation.h"

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// As the fixture of scheduler_test.cc, with a word for the scheduler after each token.
class SchedulerPolicyTest : public testing::Test {
 protected:
  void Build(int32_t num_blocks, const SchedulerOptions& options) {
    pool_ = std::make_unique<BlockPool>(num_blocks);
    scheduler_ = std::make_unique<Scheduler>(options, pool_.get());
  }
  Sequence& Arrive(int32_t num_prompt_tokens, SequenceTraits traits = {}) {
    const auto id = static_cast<SequenceId>(sequences_.size());
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i < num_prompt_tokens; ++i) prompt.push_back(i);
    scheduler_->Add(&sequences_.emplace_back(id, prompt, std::move(traits)));
    return sequences_.back();
  }
  StepPlan Step() {
    const StepPlan plan = scheduler_->Plan();
    scheduler_->Commit(plan);
    for (const ScheduledChunk& chunk : plan.chunks) {
      Sequence& sequence = sequences_[static_cast<size_t>(chunk.sequence)];
      sequence.Advance();
      if (!chunk.samples) continue;
      sequence.AppendToken(9);
      scheduler_->Confirm(&sequence);
    }
    EXPECT_TRUE(scheduler_->Audit().ok()) << scheduler_->Audit().ToString();
    return plan;
  }

  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<Sequence> sequences_;
};

TEST_F(SchedulerPolicyTest, APromptSeenBeforeStartsBehindItsFullBlocks) {
  Build(100, {.max_num_batched_tokens = 64, .block_size = 4});
  Sequence& first = Arrive(10, {.cache_domain = "d"});
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 0, 10, true}}));
  Sequence& second = Arrive(10, {.cache_domain = "d"});
  Arrive(10, {.cache_domain = "e"});
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 10, 1, true}, {1, 8, 2, true}, {2, 0, 10, true}}));
  EXPECT_EQ(second.num_found_tokens(), 8);
  EXPECT_EQ(second.block_table()[0], first.block_table()[0]);
  EXPECT_EQ(second.block_table()[1], first.block_table()[1]);
}

TEST_F(SchedulerPolicyTest, GeneratedTokensAreFoundToo) {
  Build(100, {.max_num_batched_tokens = 64, .block_size = 4});
  Sequence& first = Arrive(6, {.cache_domain = "d"});
  for (int i = 0; i < 7; ++i) Step();
  ASSERT_EQ(first.num_computed_tokens(), 12);
  const std::vector<int32_t> conversation(first.tokens().begin(), first.tokens().end());
  scheduler_->Finish(&first);
  EXPECT_EQ(pool_->num_idle(), 3);
  scheduler_->Add(&sequences_.emplace_back(1, conversation, SequenceTraits{.cache_domain = "d"}));
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{1, 12, 1, true}}));
}

TEST_F(SchedulerPolicyTest, WhatHasNotProvedSoundIsNotShared) {
  Build(100, {.max_num_batched_tokens = 8, .block_size = 4});
  Arrive(16, {.cache_domain = "d"});
  Step();  // a chunk without a token: its values may be anything
  Sequence& second = Arrive(16, {.cache_domain = "d"});
  Step();
  Step();
  EXPECT_EQ(second.num_found_tokens(), 12);  // after the first one's first token
}

TEST_F(SchedulerPolicyTest, AFailedSequenceLeavesNothing) {
  Build(100, {.max_num_batched_tokens = 64, .block_size = 4});
  Sequence& failed = Arrive(10, {.cache_domain = "d"});
  Step();
  EXPECT_EQ(scheduler_->Discard(&failed).size(), 3u);
  EXPECT_EQ(pool_->num_free(), 100);
  Arrive(10, {.cache_domain = "d"});
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{1, 0, 10, true}}));
}

TEST_F(SchedulerPolicyTest, APromptWhoseLogitsAreWantedIsComputedInFull) {
  Build(100, {.max_num_seqs = 32, .max_num_batched_tokens = 64, .block_size = 4});
  Arrive(10, {.cache_domain = "d"});
  Step();
  Sequence& second = Arrive(10, {.cache_domain = "d", .needs_prompt_logits = true});
  EXPECT_EQ(Step().chunks[1], (ScheduledChunk{1, 0, 10, true, true}));
  EXPECT_EQ(second.block_table()[0], sequences_[0].block_table()[0]);  // and shared then
}

TEST_F(SchedulerPolicyTest, SiblingsWaitForTheirLeaderAndShareItsPrompt) {
  Build(100, {.max_num_batched_tokens = 8, .block_size = 4, .prefix_cache = {.keeps_idle = false}});
  Arrive(14, {.cache_domain = "request 0"});
  Arrive(14, {.cache_domain = "request 0", .leader = 0});
  Arrive(14, {.cache_domain = "request 0", .leader = 0});
  Arrive(3);
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 0, 8, false}}));
  // Who comes later is not held up by those who wait.
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 8, 6, true}, {3, 0, 2, false}}));
  EXPECT_EQ(Step().chunks,
            (std::vector<ScheduledChunk>{{0, 14, 1, true}, {3, 2, 1, true}, {1, 12, 2, true}, {2, 12, 2, true}}));
  EXPECT_EQ(pool_->ref_count(sequences_[0].block_table()[2]), 3);
}

TEST_F(SchedulerPolicyTest, SiblingsGoOnWithoutTheirLeader) {
  Build(100, {.max_num_batched_tokens = 64, .block_size = 4});
  Sequence& leader = Arrive(14, {.cache_domain = "d"});
  Arrive(14, {.cache_domain = "d", .leader = 0});
  Sequence& last = Arrive(14, {.cache_domain = "d", .leader = 0});
  scheduler_->Finish(&last);
  scheduler_->Finish(&leader);
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{1, 0, 14, true}}));
}

TEST_F(SchedulerPolicyTest, APreemptedSequenceFindsItsBlocksAgain) {
  Build(8, {.max_num_batched_tokens = 64, .block_size = 4});
  Arrive(7, {.cache_domain = "d"});
  Sequence& second = Arrive(6, {.cache_domain = "e"});
  StepPlan plan;
  while (plan.preempted.empty()) plan = Step();
  ASSERT_THAT(plan.preempted, ElementsAre(1));
  const int32_t computed = second.peak_computed_tokens();
  ASSERT_GE(computed, 12);
  scheduler_->Finish(&sequences_[0]);
  const StepPlan again = Step();
  EXPECT_EQ(again.chunks[0].sequence, 1);
  EXPECT_GT(again.chunks[0].begin, 0);
  EXPECT_EQ(second.num_found_tokens(), 0);  // it had computed them itself
  EXPECT_EQ(second.peak_computed_tokens(), second.num_computed_tokens());
}

TEST_F(SchedulerPolicyTest, PromptsBesideDecodesAreCutShort) {
  Build(100, {.max_num_batched_tokens = 64, .block_size = 4, .max_prefill_chunk = 5});
  Arrive(40);
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 0, 40, true}}));  // nobody waits for a token
  Arrive(12);
  Arrive(12);
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 40, 1, true}, {1, 0, 5, false}}));
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 41, 1, true}, {1, 5, 5, false}}));
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 42, 1, true}, {1, 10, 2, true}, {2, 0, 3, false}}));
}

TEST_F(SchedulerPolicyTest, TheVictimIsTheLatestOfTheLowestPriority) {
  Build(12, {.max_num_batched_tokens = 64, .block_size = 4});
  Arrive(6, {.priority = -1});
  Arrive(6, {.priority = 1});
  Arrive(6, {.priority = -1});
  EXPECT_THAT(Step().started, ElementsAre(1, 0, 2));
  std::vector<SequenceId> victims;
  while (victims.size() < 2) {
    const StepPlan plan = Step();
    victims.insert(victims.end(), plan.preempted.begin(), plan.preempted.end());
  }
  EXPECT_THAT(victims, ElementsAre(2, 0));
}

// A stream of sequences of high priority cannot preempt the same one again and again.
TEST_F(SchedulerPolicyTest, NobodyIsPreemptedMoreThanThreeTimes) {
  Build(10, {.max_num_batched_tokens = 64, .block_size = 4, .fair_queue = {.priority_tokens = 100'000}});
  Sequence& low = Arrive(4, {.max_tokens = 30, .priority = -1});
  Step();
  int64_t steps = 0;
  while (low.num_generated_tokens() < 30) {
    ASSERT_LT(++steps, 2000);
    if (scheduler_->num_running() + scheduler_->num_waiting() < 4) Arrive(6, {.max_tokens = 20, .priority = 1});
    Step();
    for (Sequence& sequence : sequences_) {
      if (&sequence != &low && sequence.state() != SequenceState::kFinished && sequence.num_generated_tokens() >= 20) {
        scheduler_->Finish(&sequence);
      }
    }
  }
  EXPECT_EQ(low.num_preemptions(), Scheduler::kMaxPreemptions);
}

// ---- shares, in numbers ----

// Serves tenants that keep so many requests in flight each, and returns the tokens of each one over the same steps.
std::vector<int64_t> ServedTokens(const std::vector<int32_t>& in_flight) {
  SchedulerSimulation simulation(
      {.max_num_seqs = 20, .max_num_batched_tokens = 64, .block_size = 4, .max_model_len = 200}, 600);
  const auto name = [](size_t tenant) { return std::string(1, static_cast<char>('a' + tenant)); };
  // Of many lengths, so that seats become free one at a time.
  std::vector<int32_t> num_arrived(in_flight.size(), 0);
  const auto next_length = [&](size_t tenant) { return 20 + num_arrived[tenant]++ * 13 % 21; };
  for (int step = 0; step < 3000; ++step) {
    for (size_t tenant = 0; tenant < in_flight.size(); ++tenant) {
      while (simulation.num_in_flight(name(tenant)) < in_flight[tenant]) {
        const int32_t length = next_length(tenant);
        EXPECT_TRUE(simulation
                        .Arrive({.num_prompt_tokens = 10,
                                 .max_tokens = length,
                                 .num_generated = length,
                                 .tenant = name(tenant),
                                 .is_cached = false})
                        .ok());
      }
    }
    EXPECT_TRUE(simulation.Step().ok());
  }
  std::vector<int64_t> tokens;
  for (size_t tenant = 0; tenant < in_flight.size(); ++tenant) tokens.push_back(simulation.rows_of(name(tenant)));
  return tokens;
}

// Twenty seats for ten tenants: two each. One asks for twenty, nine ask for one each.
TEST(SchedulerFairnessTest, OneGreedyTenantTakesNothingFromTheOthers) {
  std::vector<int32_t> modest(10, 1);
  modest[0] = 0;
  const std::vector<int64_t> alone = ServedTokens(modest);
  std::vector<int32_t> greedy(10, 1);
  greedy[0] = 20;
  const std::vector<int64_t> together = ServedTokens(greedy);
  for (size_t tenant = 1; tenant < 10; ++tenant) {
    EXPECT_GE(together[tenant] * 100, alone[tenant] * 95) << "tenant " << tenant;
  }
  EXPECT_GT(together[0], 8 * together[1]);  // and what the nine leave is used
}

TEST(SchedulerFairnessTest, BackloggedTenantsGetEqualSharesHoweverManyRequestsTheyHave) {
  const std::vector<int64_t> tokens = ServedTokens({60, 40, 25, 25});
  for (const int64_t share : tokens) {
    EXPECT_GE(share * 100, tokens[0] * 95);
    EXPECT_LE(share * 100, tokens[0] * 105);
  }
}

}  // namespace
}  // namespace cadre
