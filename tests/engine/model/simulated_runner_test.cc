// The simulator is a detector: each kind of mix-up that it is there to find is made here once.
#include "engine/model/simulated_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace cadre {
namespace {

constexpr int32_t kBlockSize = 4;

SimulatedOptions Options() {
  SimulatedOptions options;
  options.limits.vocab_size = 100;
  options.limits.num_kv_blocks = 8;
  options.limits.kv_block_size = kBlockSize;
  return options;
}

// Rows [begin, begin + tokens.size()) of one sequence; logits of the last.
void AddRows(const std::vector<int32_t>& tokens, int32_t begin, const std::vector<int32_t>& blocks,
             ForwardBatch* batch) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int32_t position = begin + static_cast<int32_t>(i);
    batch->token_ids.push_back(tokens[i]);
    batch->positions.push_back(position);
    batch->row_sequence.push_back(batch->num_sequences);
    batch->kv_slots.push_back(blocks[static_cast<size_t>(position / kBlockSize)] * kBlockSize + position % kBlockSize);
  }
  batch->max_blocks = 2;
  batch->block_tables.insert(batch->block_tables.end(), {blocks[0], blocks.size() > 1 ? blocks[1] : 0});
  ++batch->num_sequences;
  batch->logit_rows.push_back(batch->num_tokens() - 1);
}

int32_t ArgMaxOfRow(const ForwardResult& result, size_t row) {
  const auto begin = result.logits.begin() + static_cast<std::ptrdiff_t>(row * 100);
  return static_cast<int32_t>(std::max_element(begin, begin + 100) - begin);
}

TEST(SimulatedRunnerTest, AnswersTheHashOfTheHistory) {
  SimulatedRunner runner(Options());
  const std::vector<int32_t> prompt{5, 6, 7, 8, 9};
  const std::vector<int32_t> expected = SimulatedRunner::ExpectedTokens(prompt, 2, 100);
  ForwardBatch batch;
  AddRows({5, 6, 7}, 0, {3, 1}, &batch);
  ForwardResult result;
  ASSERT_TRUE(runner.Forward(batch, &result).ok());
  batch = {};
  AddRows({1, 2}, 0, {2}, &batch);  // a neighbor
  AddRows({8, 9}, 3, {3, 1}, &batch);
  ASSERT_TRUE(runner.Forward(batch, &result).ok());
  EXPECT_EQ(ArgMaxOfRow(result, 1), expected[0]);
  EXPECT_EQ(ArgMaxOfRow(result, 0), SimulatedRunner::ExpectedTokens(std::vector<int32_t>{1, 2}, 1, 100)[0]);
  batch = {};
  AddRows({expected[0]}, 5, {3, 1}, &batch);
  ASSERT_TRUE(runner.Forward(batch, &result).ok());
  EXPECT_EQ(ArgMaxOfRow(result, 0), expected[1]);
}

TEST(SimulatedRunnerTest, FindsABlockThatTwoSequencesShare) {
  SimulatedRunner runner(Options());
  ForwardResult result;
  ForwardBatch batch;
  AddRows({1, 2}, 0, {3}, &batch);
  AddRows({4, 5}, 0, {3}, &batch);
  EXPECT_NE(runner.Forward(batch, &result).message().find("2 sequences hold"), absl::string_view::npos);

  batch = {};
  AddRows({1, 2, 3}, 0, {4}, &batch);
  ASSERT_TRUE(runner.Forward(batch, &result).ok());
  batch = {};
  AddRows({7, 8}, 0, {4}, &batch);
  ASSERT_TRUE(runner.Forward(batch, &result).ok());
  batch = {};
  AddRows({9}, 3, {4}, &batch);  // the first again, over the second's tokens
  EXPECT_NE(runner.Forward(batch, &result).message().find("another history"), absl::string_view::npos);
}

TEST(SimulatedRunnerTest, FindsTokensThatWereNeverRecomputed) {
  SimulatedRunner runner(Options());
  ForwardResult result;
  ForwardBatch batch;
  AddRows({3}, 2, {5}, &batch);
  EXPECT_NE(runner.Forward(batch, &result).message().find("holds position -1"), absl::string_view::npos);
}

TEST(SimulatedRunnerTest, FindsASlotOutsideTheBlockTable) {
  SimulatedRunner runner(Options());
  ForwardResult result;
  ForwardBatch batch;
  AddRows({3, 4}, 0, {5}, &batch);
  batch.kv_slots[1] = 0;
  EXPECT_NE(runner.Forward(batch, &result).message().find("writes slot 0"), absl::string_view::npos);
}

TEST(SimulatedRunnerTest, RoutesEachRowToDistinctExperts) {
  SimulatedOptions options = Options();
  options.limits.num_moe_layers = 3;
  options.limits.num_experts = 5;
  options.limits.top_k = 4;
  SimulatedRunner runner(options);
  ForwardBatch batch;
  AddRows({1, 2, 3}, 0, {0}, &batch);
  AddRows({4}, 0, {1}, &batch);
  batch.keep_expert_ids = true;
  ForwardResult result;
  ASSERT_TRUE(runner.Forward(batch, &result).ok());
  EXPECT_EQ(result.routing.sequence_assignments, (std::vector<int64_t>{3 * 3 * 4, 1 * 3 * 4}));
  std::vector<int64_t> counts(3 * 5, 0);
  for (size_t place = 0; place < 3 * 4; ++place) {
    std::vector<bool> chosen(5, false);
    for (size_t k = 0; k < 4; ++k) {
      const auto expert = static_cast<size_t>(result.expert_ids[place * 4 + k]);
      EXPECT_FALSE(chosen[expert]);
      chosen[expert] = true;
      ++counts[place / 4 * 5 + expert];
    }
  }
  EXPECT_EQ(result.routing.assignments, counts);
  EXPECT_NEAR(std::accumulate(result.routing.gate_weight.begin(), result.routing.gate_weight.end(), 0.0), 3 * 4, 1e-9);
}

TEST(SimulatedRunnerTest, CostsWhatItIsToldTo) {
  SimulatedOptions options = Options();
  options.step_cost = absl::Milliseconds(5);
  options.token_cost = absl::Microseconds(20);
  absl::Duration passed;
  options.pass_time = [&](absl::Duration cost) { passed += cost; };
  SimulatedRunner runner(options);
  ForwardBatch batch;
  AddRows({1, 2, 3}, 0, {0}, &batch);
  ForwardResult result;
  ASSERT_TRUE(runner.Forward(batch, &result).ok());
  EXPECT_EQ(passed, absl::Microseconds(5060));
}

TEST(SimulatedSpecTest, ReadsEveryOption) {
  const absl::StatusOr<SimulatedOptions> options = ParseSimulatedSpec(
      "sim:step_ms=5,token_us=2.5,vocab=300,max_len=128,blocks=64,block_size=8,layers=2,experts=16,top_k=3");
  ASSERT_TRUE(options.ok()) << options.status().ToString();
  EXPECT_EQ(options->step_cost, absl::Milliseconds(5));
  EXPECT_EQ(options->token_cost, absl::Nanoseconds(2500));
  EXPECT_EQ(options->limits.vocab_size, 300);
  EXPECT_EQ(options->limits.max_model_len, 128);
  EXPECT_EQ(options->limits.num_kv_blocks, 64);
  EXPECT_EQ(options->limits.kv_block_size, 8);
  EXPECT_EQ(options->limits.num_moe_layers, 2);
  EXPECT_EQ(options->limits.num_experts, 16);
  EXPECT_EQ(options->limits.top_k, 3);
  EXPECT_TRUE(ParseSimulatedSpec("sim").ok());
  EXPECT_TRUE(ParseSimulatedSpec("sim:").ok());
}

TEST(SimulatedSpecTest, RefusesWhatItDoesNotUnderstand) {
  const char* const specs[] = {"",
                               "simple",
                               "sim:steps=5",
                               "sim:step_ms",
                               "sim:step_ms=-1",
                               "sim:step_ms=nan",
                               "sim:vocab=1",
                               "sim:vocab=9999999999",
                               "sim:blocks=4x",
                               "sim:top_k=0",
                               "sim:experts=4,top_k=5",
                               "sim:blocks=1000000,block_size=1000"};
  for (const char* spec : specs) {
    EXPECT_EQ(ParseSimulatedSpec(spec).status().code(), absl::StatusCode::kInvalidArgument) << spec;
  }
  EXPECT_EQ(ParseSimulatedSpec("sim:vocab=1").status().message(),
            "simulated model: vocab=1 is not a whole number from 2 to 1048576");
  EXPECT_EQ(
      ParseSimulatedSpec("sim:steps=1").status().message(),
      "simulated model: unknown option steps, must be one of step_ms, token_us, vocab, max_len, blocks, block_size, "
      "layers, experts, top_k");
  EXPECT_TRUE(IsSimulatedSpec("sim:x"));
  EXPECT_FALSE(IsSimulatedSpec("simple"));
  EXPECT_FALSE(IsSimulatedSpec("./sim"));
}

}  // namespace
}  // namespace cadre
