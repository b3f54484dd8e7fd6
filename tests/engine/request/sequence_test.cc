#include "engine/request/sequence.h"

#include <gtest/gtest.h>

#include <vector>

namespace cadre {
namespace {

TEST(SequenceTest, LivesFromWaitingToFinished) {
  Sequence sequence(7, {1, 2, 3, 4, 5});
  EXPECT_EQ(sequence.state(), SequenceState::kWaiting);
  EXPECT_FALSE(sequence.started());
  sequence.Schedule(3, std::vector<int32_t>{10, 11});
  EXPECT_EQ(sequence.state(), SequenceState::kPrefill);
  EXPECT_TRUE(sequence.started());
  EXPECT_EQ(sequence.num_scheduled_tokens(), 3);
  EXPECT_EQ(sequence.num_computed_tokens(), 0);
  sequence.Advance();
  EXPECT_EQ(sequence.num_computed_tokens(), 3);
  sequence.Schedule(2, std::vector<int32_t>{12});
  sequence.Advance();
  sequence.AppendToken(6);
  EXPECT_EQ(sequence.state(), SequenceState::kDecode);
  EXPECT_EQ(sequence.num_generated_tokens(), 1);
  EXPECT_EQ(sequence.num_uncomputed_tokens(), 1);
  EXPECT_EQ(sequence.tokens().back(), 6);
  EXPECT_EQ(sequence.Finish(), (std::vector<int32_t>{10, 11, 12}));
  EXPECT_EQ(sequence.state(), SequenceState::kFinished);
  EXPECT_TRUE(sequence.block_table().empty());
}

// The row of a token that is not known yet is scheduled beside the one that gives it.
TEST(SequenceTest, WhatIsAssumedIsSettledOrRetracted) {
  Sequence sequence(7, {1, 2, 3});
  sequence.Schedule(3, std::vector<int32_t>{10});
  sequence.Advance();
  sequence.AppendToken(4);
  sequence.Schedule(1, {});
  sequence.Assume(-5);
  EXPECT_EQ(sequence.tokens().back(), -5);
  EXPECT_EQ(sequence.num_computed_tokens(), 4);
  EXPECT_EQ(sequence.num_uncomputed_tokens(), 1);
  sequence.Retract();
  EXPECT_EQ(sequence.num_tokens(), 4);
  EXPECT_EQ(sequence.num_computed_tokens(), 3);
  EXPECT_EQ(sequence.peak_computed_tokens(), 3);
  EXPECT_EQ(sequence.num_scheduled_tokens(), 1);
  sequence.Assume(-6);
  sequence.Schedule(1, std::vector<int32_t>{11});
  sequence.Settle();
  EXPECT_FALSE(sequence.is_assumed());
  sequence.AppendToken(5);
  EXPECT_EQ(sequence.tokens().back(), 5);
  EXPECT_EQ(sequence.num_computed_tokens(), 4);
  EXPECT_EQ(sequence.num_scheduled_tokens(), 1);
  sequence.Advance();
  sequence.AppendToken(6);
  EXPECT_EQ(sequence.num_generated_tokens(), 3);
  EXPECT_EQ(sequence.peak_computed_tokens(), 5);
}

TEST(SequenceTest, PreemptionForgetsTheComputedAndKeepsTheGenerated) {
  Sequence sequence(0, {1, 2, 3});
  sequence.Schedule(3, std::vector<int32_t>{4});
  sequence.Advance();
  sequence.AppendToken(9);
  sequence.Schedule(1, {});
  sequence.Advance();
  sequence.AppendToken(8);
  EXPECT_EQ(sequence.Preempt(), std::vector<int32_t>{4});
  EXPECT_EQ(sequence.state(), SequenceState::kWaiting);
  EXPECT_EQ(sequence.num_tokens(), 5);
  EXPECT_EQ(sequence.num_computed_tokens(), 0);
  EXPECT_EQ(sequence.peak_computed_tokens(), 4);
  EXPECT_EQ(sequence.num_preemptions(), 1);
  EXPECT_TRUE(sequence.started());
  // The fifth token was never computed: it is new, not recomputed.
  EXPECT_EQ(sequence.CountRecomputed(5), 4);
  EXPECT_EQ(sequence.CountRecomputed(3), 3);
  sequence.Schedule(3, std::vector<int32_t>{1});
  sequence.Advance();
  EXPECT_EQ(sequence.CountRecomputed(2), 1);
  sequence.Schedule(2, {});
  sequence.Advance();
  EXPECT_EQ(sequence.peak_computed_tokens(), 5);
  sequence.AppendToken(7);
  EXPECT_EQ(sequence.state(), SequenceState::kDecode);
}

TEST(SequenceDeathTest, InvalidTransitionsEndTheProcess) {
  Sequence finished(0, {1});
  finished.Finish();
  EXPECT_DEATH(finished.Finish(), "finished -> finished");
  Sequence waiting(1, {1});
  EXPECT_DEATH(waiting.Preempt(), "waiting -> waiting");
  Sequence ahead(2, {1, 2});
  EXPECT_DEATH(ahead.AppendToken(3), "num_uncomputed_tokens");
  EXPECT_DEATH(ahead.Schedule(3, {}), "num_uncomputed_tokens");
}

}  // namespace
}  // namespace cadre
