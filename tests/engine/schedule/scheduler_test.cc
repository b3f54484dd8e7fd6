// Single decisions, compared as values.
#include "engine/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <limits>
#include <optional>
#include <vector>

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// A scheduler with sequences numbered 0, 1, 2... and a model that always samples token 9.
class SchedulerTest : public testing::Test {
 protected:
  void Build(int32_t num_blocks, const SchedulerOptions& options) {
    pool_ = std::make_unique<BlockPool>(num_blocks);
    scheduler_ = std::make_unique<Scheduler>(options, pool_.get());
  }
  void Arrive(int32_t num_prompt_tokens) {
    const auto id = static_cast<SequenceId>(sequences_.size());
    scheduler_->Add(&sequences_.emplace_back(id, std::vector<int32_t>(static_cast<size_t>(num_prompt_tokens), 1)));
  }
  StepPlan Step(RunningLimit limit = RunningLimit::kNone) {
    const StepPlan plan = scheduler_->Plan(limit);
    scheduler_->Commit(plan);
    for (const ScheduledChunk& chunk : plan.chunks) {
      Sequence& sequence = sequences_[static_cast<size_t>(chunk.sequence)];
      sequence.Advance();
      if (chunk.samples) sequence.AppendToken(9);
    }
    EXPECT_TRUE(scheduler_->Audit().ok()) << scheduler_->Audit().ToString();
    return plan;
  }

  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<Sequence> sequences_;
};

// The pool may shrink to what the longest sequence was promised, and its number says who is accepted.
TEST_F(SchedulerTest, NoSequenceIsPromisedMoreBlocksThanThereAlwaysAre) {
  Build(10, {.block_size = 4, .max_sequence_blocks = 3});
  EXPECT_TRUE(scheduler_->CheckFits(8, 5).ok());  // 12 rows
  EXPECT_THAT(scheduler_->CheckFits(8, 6).message(), testing::HasSubstr("the KV cache holds 12"));
  Arrive(8);
  Arrive(8);
  Step();
  EXPECT_EQ(pool_->num_in_use(), 4);
  EXPECT_TRUE(scheduler_->SetUsableBlocks(3));
  EXPECT_FALSE(pool_->is_drained());  // the sequence that came later has one of the others
  const StepPlan plan = Step();       // the first one wants a third block; who came later gives two, and one is gone
  EXPECT_THAT(plan.preempted, ElementsAre(1));
  EXPECT_THAT(plan.chunks, testing::SizeIs(1));
  EXPECT_TRUE(pool_->is_drained());
  EXPECT_EQ(pool_->num_available(), 0);
}

TEST_F(SchedulerTest, PlansAheadWhatIsOneRowMoreOfEach) {
  Build(6, {.max_num_seqs = 2, .block_size = 4, .max_sequence_blocks = 4});
  for (int i = 0; i < 3; ++i) Arrive(5);
  ASSERT_EQ(Step().chunks.size(), 2u);
  ASSERT_TRUE(scheduler_->SetUsableBlocks(4));  // what the two have, and not the one that each might need to begin
  const auto under_way = [&] {                  // a step of decodes, of which all go on
    scheduler_->Commit(scheduler_->Plan());
    for (size_t s = 0; s < 2; ++s) sequences_[s].Assume(-1);
  };
  under_way();
  const std::optional<StepPlan> ahead = scheduler_->PlanAhead();  // the third has no seat
  ASSERT_TRUE(ahead.has_value());
  EXPECT_EQ(*ahead,
            (StepPlan{.chunks = {{0, 6, 1, true}, {1, 6, 1, true}}, .num_decodes = 2, .preempted = {}, .started = {}}));
  // One ends with the step under way: it has no row, and keeps its seat and its blocks until then.
  sequences_[1].Retract();
  EXPECT_EQ(scheduler_->PlanAhead()->chunks, (std::vector<ScheduledChunk>{{0, 6, 1, true}}));
  sequences_[1].Assume(-1);
  scheduler_->CommitAhead(*ahead);
  for (size_t s = 0; s < 2; ++s) {
    sequences_[s].Settle();
    sequences_[s].AppendToken(9);
    sequences_[s].Assume(-2);
  }
  const std::optional<StepPlan> last = scheduler_->PlanAhead();  // the last rows of their blocks
  ASSERT_TRUE(last.has_value());
  scheduler_->CommitAhead(*last);
  for (size_t s = 0; s < 2; ++s) {
    sequences_[s].Settle();
    sequences_[s].AppendToken(9);
    sequences_[s].Assume(-3);
  }
  EXPECT_EQ(scheduler_->PlanAhead(), std::nullopt) << "one would have to give way";
}

TEST_F(SchedulerTest, WhoIsRetiredHoldsItsBlocksUntilTheStepHasEnded) {
  Build(8, {.max_num_seqs = 4, .block_size = 4});
  for (int i = 0; i < 2; ++i) Arrive(6);
  Step();
  scheduler_->Commit(scheduler_->Plan());
  const int32_t in_use = pool_->num_in_use();
  scheduler_->Retire(&sequences_[0]);
  EXPECT_EQ(pool_->num_in_use(), in_use);
  EXPECT_TRUE(scheduler_->Audit().ok()) << scheduler_->Audit();
  scheduler_->ReleaseRetired();
  EXPECT_EQ(pool_->num_in_use(), in_use - 2);
  EXPECT_TRUE(scheduler_->Audit().ok()) << scheduler_->Audit();
}

TEST_F(SchedulerTest, CountsTheBlocksThatThoseInLineLack) {
  Build(6, {.max_num_seqs = 8, .max_num_batched_tokens = 64, .block_size = 4});
  Arrive(12);
  Step();
  EXPECT_EQ(scheduler_->CountMissingBlocks(8), 0);
  for (int i = 0; i < 3; ++i) Arrive(8);  // three blocks each, with the spare one; two are left
  Step();
  ASSERT_EQ(scheduler_->num_in_line(), 3);
  EXPECT_EQ(scheduler_->CountMissingBlocks(8), 3 * 3 - pool_->num_available());
  EXPECT_EQ(scheduler_->CountMissingBlocks(1), 3 - pool_->num_available());
  EXPECT_EQ(scheduler_->CountMissingBlocks(0), 0);
}

TEST_F(SchedulerTest, CutsAPromptIntoChunks) {
  Build(100, {.max_num_batched_tokens = 8, .block_size = 4});
  Arrive(20);
  EXPECT_EQ(Step(), (StepPlan{.chunks = {{0, 0, 8, false}}, .preempted = {}, .started = {0}}));
  EXPECT_EQ(Step(), (StepPlan{.chunks = {{0, 8, 8, false}}, .preempted = {}, .started = {}}));
  EXPECT_EQ(Step(), (StepPlan{.chunks = {{0, 16, 4, true}}, .preempted = {}, .started = {}}));
  EXPECT_EQ(Step(), (StepPlan{.chunks = {{0, 20, 1, true}}, .num_decodes = 1, .preempted = {}, .started = {}}));
}

// Where rows of a prompt depend on the others of their group, a chunk ends with a group or with the prompt.
TEST_F(SchedulerTest, CutsAPromptIntoWholeGroups) {
  Build(100, {.max_num_batched_tokens = 10, .block_size = 4});
  const auto arrive = [&](int32_t num_prompt_tokens) {
    const auto id = static_cast<SequenceId>(sequences_.size());
    scheduler_->Add(&sequences_.emplace_back(id, std::vector<int32_t>(static_cast<size_t>(num_prompt_tokens), 1),
                                             SequenceTraits{.cache_domain = "all", .prompt_group = 8}));
  };
  arrive(19);
  arrive(3);
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 0, 8, false}}));  // the second does not fit behind it
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 8, 8, false}}));
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 16, 3, true}, {1, 0, 3, true}}));
  scheduler_->Confirm(&sequences_[0]);
  scheduler_->Confirm(&sequences_[1]);
  // Of the first prompt, two groups are for others to find, and of a prompt that is shorter than a group nothing is.
  arrive(20);
  EXPECT_EQ(Step().chunks.back(), (ScheduledChunk{2, 16, 4, true}));
  arrive(15);
  EXPECT_EQ(Step().chunks.back(), (ScheduledChunk{3, 8, 7, true}));
}

TEST_F(SchedulerTest, DecodesComeFirstAndPromptsShareTheRest) {
  Build(100, {.max_num_batched_tokens = 8, .block_size = 4});
  Arrive(10);
  Arrive(3);
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 0, 8, false}}));
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 8, 2, true}, {1, 0, 3, true}}));
  Arrive(20);
  const StepPlan plan = Step();
  EXPECT_EQ(plan.chunks, (std::vector<ScheduledChunk>{{0, 10, 1, true}, {1, 3, 1, true}, {2, 0, 6, false}}));
  EXPECT_EQ(plan.num_decodes, 2);
}

TEST_F(SchedulerTest, NobodyOvertakesTheFirstInLine) {
  Build(10, {.max_num_batched_tokens = 100, .block_size = 4});
  Arrive(12);
  EXPECT_THAT(Step().started, ElementsAre(0));
  Arrive(32);  // 8 blocks, 7 are free
  Arrive(1);
  EXPECT_THAT(Step().started, IsEmpty());
  scheduler_->Finish(&sequences_[0]);
  EXPECT_THAT(Step().started, ElementsAre(1));  // the last would need a spare block for each of two
  scheduler_->Finish(&sequences_[1]);
  EXPECT_THAT(Step().started, ElementsAre(2));
}

TEST_F(SchedulerTest, NoMoreSequencesThanAllowedOrThanRows) {
  Build(100, {.max_num_seqs = 2, .max_num_batched_tokens = 100, .block_size = 4});
  for (int i = 0; i < 4; ++i) Arrive(4);
  EXPECT_THAT(Step().started, ElementsAre(0, 1));
  EXPECT_THAT(Step().started, IsEmpty());
  EXPECT_EQ(scheduler_->num_waiting(), 2);
  Build(100, {.max_num_seqs = 64, .max_num_batched_tokens = 3, .block_size = 4});
  EXPECT_EQ(scheduler_->options().max_num_seqs, 3);
}

TEST_F(SchedulerTest, TheLatestArrivalGivesWayAndKeepsItsPlace) {
  Build(6, {.max_num_batched_tokens = 100, .block_size = 4});
  Arrive(7);
  Arrive(3);  // 2 + 1 blocks, and one spare for each
  EXPECT_THAT(Step().started, ElementsAre(0, 1));
  for (int i = 0; i < 5; ++i) EXPECT_THAT(Step().preempted, IsEmpty());
  // 0 has 12 tokens computed in 3 blocks, 1 has 8 in 2; one block is free, and both need one.
  ASSERT_EQ(sequences_[0].num_computed_tokens(), 12);
  ASSERT_EQ(sequences_[1].num_computed_tokens(), 8);
  Arrive(2);
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 12, 1, true}}));  // 1 keeps its blocks and waits a turn
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Step().chunks.size(), 1u);
  const StepPlan plan = Step();  // 0 needs a fifth block
  EXPECT_THAT(plan.preempted, ElementsAre(1));
  EXPECT_THAT(plan.started, IsEmpty());  // nobody is admitted in a step that preempts
  EXPECT_EQ(sequences_[1].state(), SequenceState::kWaiting);
  scheduler_->Finish(&sequences_[0]);
  const StepPlan again = Step();
  EXPECT_EQ(again.chunks[0], (ScheduledChunk{1, 0, 9, true}));  // recomputed, before the later arrival
  EXPECT_EQ(again.num_decodes, 0);
  EXPECT_EQ(sequences_[1].num_preemptions(), 1);
  EXPECT_THAT(again.started, ElementsAre(2));
}

TEST_F(SchedulerTest, AnEarlierPromptTakesBlocksFromALaterDecode) {
  Build(8, {.max_num_batched_tokens = 5, .block_size = 4});
  Arrive(16);
  Step();
  Arrive(3);
  // 0 still needs 2 blocks for its prompt, so that 1 enters when it fits beside that.
  while (!sequences_[1].started()) Step();
  while (pool_->num_free() > 0) Step();
  ASSERT_EQ(sequences_[0].state(), SequenceState::kDecode);
  StepPlan plan = Step();
  while (plan.preempted.empty()) {
    EXPECT_EQ(plan.chunks.front().sequence, 0);
    plan = Step();
  }
  EXPECT_THAT(plan.preempted, ElementsAre(1));
}

TEST_F(SchedulerTest, LogitsOfAPromptStayWithinTheRowsOfLogits) {
  Build(100, {.max_num_seqs = 4, .max_num_batched_tokens = 100, .block_size = 4, .max_logit_rows = 8});
  Arrive(3);
  Step();
  scheduler_->Add(
      &sequences_.emplace_back(1, std::vector<int32_t>(20, 1), SequenceTraits{.needs_prompt_logits = true}));
  // Eight rows of logits, one for each of the two, and half of the other six.
  EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{0, 3, 1, true}, {1, 0, 4, false, true}}));
  Arrive(2);
  EXPECT_EQ(Step().chunks,
            (std::vector<ScheduledChunk>{{0, 4, 1, true}, {1, 4, 4, false, true}, {2, 0, 2, true, false}}));
  while (sequences_[1].state() == SequenceState::kPrefill) {
    int32_t num_logits = 0;
    for (const ScheduledChunk& chunk : Step().chunks) num_logits += chunk.num_logit_rows();
    EXPECT_LE(num_logits, 8);
  }
  EXPECT_EQ(Step().chunks[1], (ScheduledChunk{1, 20, 1, true}));  // a decode wants its own row only
}

TEST_F(SchedulerTest, FinishingReleasesBlocksInEveryState) {
  Build(20, {.max_num_seqs = 2, .max_num_batched_tokens = 6, .block_size = 4});
  Arrive(4);
  Step();
  Arrive(20);
  Step();
  Arrive(4);
  ASSERT_EQ(sequences_[0].state(), SequenceState::kDecode);
  ASSERT_EQ(sequences_[1].state(), SequenceState::kPrefill);
  ASSERT_EQ(sequences_[2].state(), SequenceState::kWaiting);
  for (Sequence& sequence : sequences_) {
    scheduler_->Finish(&sequence);
    EXPECT_TRUE(scheduler_->Audit().ok()) << scheduler_->Audit().ToString();
  }
  EXPECT_EQ(pool_->num_in_use(), 0);
  EXPECT_TRUE(scheduler_->Plan().empty());
}

TEST_F(SchedulerTest, FitsToTheTokenAndToTheBlock) {
  Build(4, {.block_size = 4, .max_model_len = 20});
  EXPECT_TRUE(scheduler_->CheckFits(16, 1).ok());  // the one generated token is never fed back
  EXPECT_TRUE(scheduler_->CheckFits(1, 16).ok());
  EXPECT_EQ(scheduler_->CheckFits(16, 2).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(scheduler_->CheckFits(20, 1).message(),
            "prompt has 20 tokens and max_tokens is 1, together more than the model's limit of 20 tokens");
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  EXPECT_FALSE(scheduler_->CheckFits(kHuge, kHuge).ok());
  EXPECT_FALSE(scheduler_->CheckFits(1, kHuge).ok());
}

TEST_F(SchedulerTest, APoolOfOneBlockServesOneAfterTheOther) {
  Build(1, {.block_size = 4});
  for (int i = 0; i < 3; ++i) Arrive(3);
  for (SequenceId id = 0; id < 3; ++id) {
    EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{id, 0, 3, true}}));
    EXPECT_EQ(Step().chunks, (std::vector<ScheduledChunk>{{id, 3, 1, true}}));
    scheduler_->Finish(&sequences_[static_cast<size_t>(id)]);
  }
  EXPECT_TRUE(scheduler_->Plan().empty());
}

TEST_F(SchedulerTest, WithoutNewOnesWhoRunsGoesOnAndOneEntersWhenNobodyRuns) {
  Build(100, {.block_size = 4});
  for (int i = 0; i < 3; ++i) Arrive(4);
  EXPECT_THAT(Step(RunningLimit::kNoNew).started, ElementsAre(0));
  EXPECT_THAT(Step(RunningLimit::kNoNew).started, IsEmpty());
  EXPECT_THAT(Step().started, ElementsAre(1, 2));
  EXPECT_EQ(Step(RunningLimit::kNoNew).num_decodes, 3);
}

TEST_F(SchedulerTest, WithFewerTheLeastSeniorYieldsOneByOneAndTheLastRunsOn) {
  Build(100, {.block_size = 4});
  for (int i = 0; i < 3; ++i) Arrive(4);
  Step();
  for (const SequenceId victim : {2, 1}) {
    const StepPlan plan = Step(RunningLimit::kFewer);
    EXPECT_THAT(plan.preempted, ElementsAre(victim));
    EXPECT_EQ(plan.num_yielded, 1);
  }
  const StepPlan last = Step(RunningLimit::kFewer);
  EXPECT_THAT(last.preempted, IsEmpty());
  EXPECT_EQ(last.num_yielded, 0);
  EXPECT_EQ(scheduler_->num_running(), 1);
  EXPECT_THAT(Step().preempted, IsEmpty());
  EXPECT_EQ(scheduler_->num_running(), 3);
}

// What is counted as yielded is not what blocks were taken for.
TEST_F(SchedulerTest, WhoIsPreemptedForBlocksHasNotYielded) {
  Build(6, {.block_size = 4});
  for (int i = 0; i < 3; ++i) Arrive(6);
  Step();
  int64_t num_yielded = 0;
  int64_t num_preempted = 0;
  for (int i = 0; i < 8; ++i) {
    const StepPlan plan = Step();
    num_yielded += plan.num_yielded;
    num_preempted += std::ssize(plan.preempted);
  }
  EXPECT_EQ(num_yielded, 0);
  EXPECT_GT(num_preempted, 0);
}

}  // namespace
}  // namespace cadre
