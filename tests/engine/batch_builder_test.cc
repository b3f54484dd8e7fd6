#include "engine/batch_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(BatchBuilderTest, LaysOutADecodeAndAChunk) {
  Sequence decode(3, {11, 12, 13});
  decode.Schedule(3, std::vector<int32_t>{7});
  decode.Advance();
  decode.AppendToken(14);
  decode.Schedule(1, {});
  Sequence prompt(5, {21, 22, 23, 24, 25, 26, 27});
  prompt.Schedule(2, std::vector<int32_t>{2});
  prompt.Advance();
  prompt.Schedule(4, std::vector<int32_t>{9});
  const StepPlan plan{.chunks = {{3, 3, 1, true}, {5, 2, 4, false}}, .num_decodes = 1, .preempted = {}, .started = {}};

  ForwardBatch batch;
  batch.token_ids = {1, 2, 3};  // of an earlier step
  const Sequence* const sequences[] = {&decode, &prompt};
  BuildForwardBatch(plan, sequences, 4, &batch);

  EXPECT_THAT(batch.token_ids, ElementsAre(14, 23, 24, 25, 26));
  EXPECT_THAT(batch.positions, ElementsAre(3, 2, 3, 4, 5));
  EXPECT_THAT(batch.row_sequence, ElementsAre(0, 1, 1, 1, 1));
  EXPECT_THAT(batch.kv_slots, ElementsAre(7 * 4 + 3, 2 * 4 + 2, 2 * 4 + 3, 9 * 4, 9 * 4 + 1));
  EXPECT_THAT(batch.block_tables, ElementsAre(7, 0, 2, 9));
  EXPECT_THAT(batch.logit_rows, ElementsAre(0));
  EXPECT_EQ(batch.num_sequences, 2);
  EXPECT_EQ(batch.max_blocks, 2);
}

TEST(BatchBuilderTest, WantsTheLogitsOfEveryRowWhereThePlanSaysSo) {
  Sequence prompt(5, {21, 22, 23, 24, 25});
  prompt.Schedule(3, std::vector<int32_t>{2});
  Sequence other(6, {31, 32});
  other.Schedule(2, std::vector<int32_t>{3});
  const StepPlan plan{.chunks = {{5, 0, 3, false, true}, {6, 0, 2, true, false}}, .preempted = {}, .started = {5, 6}};
  ForwardBatch batch;
  const Sequence* const sequences[] = {&prompt, &other};
  BuildForwardBatch(plan, sequences, 4, &batch);
  EXPECT_THAT(batch.logit_rows, ElementsAre(0, 1, 2, 4));
}

TEST(BatchBuilderTest, AnEmptyPlanIsAnEmptyBatch) {
  ForwardBatch batch;
  batch.logit_rows = {4};
  BuildForwardBatch({}, {}, 16, &batch);
  EXPECT_EQ(batch.num_tokens(), 0);
  EXPECT_EQ(batch.num_sequences, 0);
  EXPECT_THAT(batch.logit_rows, IsEmpty());
}

TEST(BatchBuilderDeathTest, APlanThatWasNotCommittedEndsTheProcess) {
  Sequence sequence(1, {1, 2});
  const StepPlan plan{.chunks = {{1, 0, 2, true}}, .preempted = {}, .started = {1}};
  const Sequence* const sequences[] = {&sequence};
  ForwardBatch batch;
  EXPECT_DEATH(BuildForwardBatch(plan, sequences, 4, &batch), "num_scheduled_tokens");
}

}  // namespace
}  // namespace cadre
