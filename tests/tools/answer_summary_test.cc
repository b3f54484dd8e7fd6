#include "tools/answer_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre {
namespace {

using ::testing::HasSubstr;

// A sequence whose first token came after 25 ms and whose last after `total_ms`.
v1::FinishedEvent Finished(int64_t tokens, int64_t total_ms) {
  v1::FinishedEvent finished;
  finished.set_reason(v1::FINISH_REASON_LENGTH);
  finished.mutable_usage()->set_prompt_tokens(5);
  finished.mutable_usage()->set_generated_tokens(tokens);
  v1::Timings& timings = *finished.mutable_timings();
  timings.mutable_queue()->set_nanos(5'000'000);
  timings.mutable_prefill()->set_nanos(20'000'000);
  timings.mutable_total()->set_seconds(total_ms / 1000);
  timings.mutable_total()->set_nanos(static_cast<int32_t>(total_ms % 1000 * 1'000'000));
  return finished;
}

// However late, and however close together, they reached the client.
TEST(AnswerSummaryTest, ThePaceIsTheServers) {
  AnswerSummary summary;
  EXPECT_TRUE(summary.empty());
  summary.Add(Finished(21, 2025));
  EXPECT_FALSE(summary.empty());
  EXPECT_EQ(summary.Text(absl::Milliseconds(2030)),
            "21 tokens after a prompt of 5, 10.0 tokens/s, first token after 2030.0 ms, end: length");
}

TEST(AnswerSummaryTest, SequencesAddUp) {
  AnswerSummary summary;
  summary.Add(Finished(11, 525));
  summary.Add(Finished(11, 1025));
  EXPECT_EQ(summary.Text(absl::Milliseconds(30)),
            "22 tokens after a prompt of 5, 20.0 tokens/s, first token after 30.0 ms, 2 sequences");
}

// A time limit ended the second one while it waited.
TEST(AnswerSummaryTest, ASequenceWithoutTokensHasNoPace) {
  AnswerSummary summary;
  summary.Add(Finished(11, 525));
  v1::FinishedEvent waited = Finished(0, 525);
  waited.mutable_timings()->clear_queue();
  waited.mutable_timings()->clear_prefill();
  summary.Add(waited);
  EXPECT_EQ(summary.Text(absl::Milliseconds(30)),
            "11 tokens after a prompt of 5, 20.0 tokens/s, first token after 30.0 ms, 2 sequences");
}

TEST(AnswerSummaryTest, OneTokenHasNoPace) {
  AnswerSummary summary;
  summary.Add(Finished(1, 25));
  EXPECT_EQ(summary.Text(absl::Milliseconds(30)),
            "1 tokens after a prompt of 5, first token after 30.0 ms, end: length");
}

TEST(AnswerSummaryTest, WhatExpertsLostIsTold) {
  v1::FinishedEvent finished = Finished(11, 525);
  finished.mutable_routing()->set_processed(90);
  finished.mutable_routing()->set_dropped(10);
  finished.mutable_routing()->set_gate_weight(50);
  finished.mutable_routing()->set_lost_gate_weight(5);
  finished.mutable_routing()->mutable_capacity()->set_scope(v1::CAPACITY_SCOPE_BATCH);
  AnswerSummary summary;
  summary.Add(finished);
  EXPECT_THAT(summary.Text(absl::Milliseconds(30)),
              HasSubstr(", lost assignments: 10 of 100, fidelity: 0.9000 (depends on the requests beside it)"));
}

}  // namespace
}  // namespace cadre
