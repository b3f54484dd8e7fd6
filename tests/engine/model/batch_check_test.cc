#include "engine/model/batch_check.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/test_sequence.h"

namespace cadre {
namespace {

constexpr RunnerLimits kLimits = {.vocab_size = 101,
                                  .max_model_len = 64,
                                  .num_kv_blocks = 10,
                                  .kv_block_size = 4,
                                  .num_moe_layers = 1,
                                  .num_experts = 2,
                                  .top_k = 1,
                                  .max_sample_rows = 6,
                                  .max_sample_extras = 20};

class BatchCheckDeathTest : public testing::Test {
 protected:
  BatchCheckDeathTest() {
    const Chunk chunk = {.sequence = &sequence_, .num_tokens = 6};
    batch_ = NextBatch({&chunk, 1}, kLimits.kv_block_size);
  }
  void Run() { CheckBatch(batch_, kLimits); }

  TestSequence sequence_ = {.tokens = {0, 1, 2, 3, 4, 100}, .blocks = {2, 9}, .num_computed = 0};
  ForwardBatch batch_;
};

TEST_F(BatchCheckDeathTest, AcceptsAGoodBatch) {
  Run();
  TestSequence other = {.tokens = {5, 6}, .blocks = {0}, .num_computed = 1};
  sequence_.num_computed = 3;
  const std::vector<Chunk> chunks = {{&sequence_, 3}, {&other, 1}};
  batch_ = NextBatch(chunks, kLimits.kv_block_size);
  batch_.logit_rows = {};
  Run();
}

TEST_F(BatchCheckDeathTest, SlotOfAnotherSequence) {
  batch_.kv_slots[5] = 0;
  EXPECT_DEATH(Run(), "kv_slots");
}
TEST_F(BatchCheckDeathTest, TokenOutsideTheVocabulary) {
  batch_.token_ids[0] = 101;
  EXPECT_DEATH(Run(), "101 vs. 101");
}
TEST_F(BatchCheckDeathTest, TokenThatNobodySamples) {
  batch_.token_ids[0] = SampledAt(0);
  EXPECT_DEATH(Run(), "token") << "no step may be in front";
  RunnerLimits limits = kLimits;
  limits.can_order_ahead = true;
  CheckBatch(batch_, limits);
  batch_.token_ids[0] = SampledAt(kLimits.max_sample_rows);
  EXPECT_DEATH(CheckBatch(batch_, limits), "token");
}
TEST_F(BatchCheckDeathTest, BlockThatDoesNotExist) {
  batch_.block_tables[1] = kLimits.num_kv_blocks;
  EXPECT_DEATH(Run(), "num_kv_blocks");
}
TEST_F(BatchCheckDeathTest, PositionPastTheBlockTable) {
  batch_.positions[5] = 8;
  EXPECT_DEATH(Run(), "max_blocks");
}
TEST_F(BatchCheckDeathTest, PositionPastTheModel) {
  batch_.positions[5] = 64;
  EXPECT_DEATH(Run(), "max_model_len");
}
TEST_F(BatchCheckDeathTest, GapBetweenPositions) {
  batch_.positions[5] = 6;
  batch_.kv_slots[5] = 9 * kLimits.kv_block_size + 2;
  EXPECT_DEATH(Run(), "positions");
}
TEST_F(BatchCheckDeathTest, LogitRowTwice) {
  batch_.logit_rows = {3, 3};
  EXPECT_DEATH(Run(), "row_before");
}
TEST_F(BatchCheckDeathTest, ArraysOfDifferentLength) {
  batch_.row_sequence.pop_back();
  EXPECT_DEATH(Run(), "row_sequence");
}
TEST_F(BatchCheckDeathTest, SampleRowsFollowTheRowsOfLogits) {
  batch_.sample_rows.resize(6);
  Run();
  batch_.sample_rows.resize(5);
  EXPECT_DEATH(Run(), "sample_rows");
}
TEST_F(BatchCheckDeathTest, ListsAndMasksBeyondTheirBuffer) {
  batch_.sample_rows.assign(6, {.is_wanted = 1, .mask = 4, .edits = 8, .num_forbidden = 1, .num_biased = 1});
  batch_.sample_extras.resize(14);
  Run();
  batch_.sample_rows[2].num_seen = 1;
  EXPECT_DEATH(Run(), "num_extras");
  batch_.sample_rows[2] = {.is_wanted = 1, .mask = 11};
  EXPECT_DEATH(Run(), "num_extras");
  batch_.sample_rows[2].is_wanted = 0;
  Run();
  batch_.sample_extras.resize(21);
  EXPECT_DEATH(Run(), "max_sample_extras");
}
TEST_F(BatchCheckDeathTest, NoTokens) {
  batch_ = ForwardBatch();
  EXPECT_DEATH(Run(), "num_tokens");
}

}  // namespace
}  // namespace cadre
