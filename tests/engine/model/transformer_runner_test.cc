#include "engine/model/transformer_runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "tests/support/poisoned_device.h"
#include "tests/support/random_model.h"
#include "tests/support/test_sequence.h"

namespace cadre {
namespace {

constexpr int32_t kBlockSize = 4;
constexpr uint64_t kWeightSeed = 5;

RunnerOptions SmallOptions() {
  return {.max_model_len = 64,
          .max_num_seqs = 5,
          .max_num_batched_tokens = 40,
          .kv_block_size = kBlockSize,
          .kv_dtype = {},
          .kv_cache_bytes = {}};
}

std::unique_ptr<Device> MakeDevice() {
  auto device = CreateCpuDevice({.num_threads = 2});
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

std::vector<int32_t> RandomTokens(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % 101);
  return tokens;
}

class TransformerRunnerTest : public testing::TestWithParam<ModelFamily> {
 protected:
  const ModelConfig config_ = SmallConfig(GetParam());
  const std::unique_ptr<Device> device_ = MakeDevice();
  const std::unique_ptr<ModelRunner> runner_ =
      MakeRandomRunner(config_, DType::kF32, kWeightSeed, SmallOptions(), device_.get());
};

TEST_P(TransformerRunnerTest, TellsItsLimits) {
  const RunnerLimits& limits = runner_->limits();
  EXPECT_EQ(limits.vocab_size, 101);
  EXPECT_EQ(limits.max_model_len, 64);
  EXPECT_EQ(limits.kv_block_size, kBlockSize);
  EXPECT_EQ(limits.num_kv_blocks, 5 * 64 / kBlockSize);
  EXPECT_EQ(limits.num_moe_layers, config_.num_moe_layers());
  EXPECT_EQ(limits.num_experts, 6);
  EXPECT_EQ(limits.top_k, config_.router.top_k);
}

// Neither stale keys and values, nor workspace of an earlier layer or step, nor padding may reach a result: with all of
// it NaN, every bit is the same.
TEST_P(TransformerRunnerTest, NeverReadsWhatItDidNotWrite) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const auto clean_device = MakeDevice();
    PoisonedDevice device(MakeDevice());
    const auto clean = MakeRandomRunner(config_, dtype, kWeightSeed, SmallOptions(), clean_device.get());
    const auto dirty = MakeRandomRunner(config_, dtype, kWeightSeed, SmallOptions(), &device);
    const std::vector<int32_t> tokens = RandomTokens(31, 1);
    const std::vector<int32_t> chunks = {7, 1, 1, 20, 2};
    const SequenceOutput expected = RunAlone(*clean, tokens, chunks);
    for (float logit : expected.logits) ASSERT_TRUE(std::isfinite(logit));
    const SequenceOutput actual = RunAlone(*dirty, tokens, chunks);
    EXPECT_EQ(actual.logits, expected.logits);
    EXPECT_EQ(actual.expert_ids, expected.expert_ids);
  }
}

// The tallies against the choices themselves.
TEST_P(TransformerRunnerTest, RoutingAddsUp) {
  TestSequence first = {.tokens = RandomTokens(9, 2), .blocks = {3, 0, 7}, .num_computed = 0};
  TestSequence second = {.tokens = RandomTokens(5, 3), .blocks = {1, 2}, .num_computed = 0};
  const std::vector<Chunk> chunks = {{&first, 9}, {&second, 4}};
  ForwardResult result;
  // Twice: the second step must not count what the first did.
  ASSERT_TRUE(runner_->Forward(NextBatch(chunks, kBlockSize), &result).ok());
  first.num_computed = 0;
  second.num_computed = 0;
  ASSERT_TRUE(runner_->Forward(NextBatch(chunks, kBlockSize), &result).ok());

  const StepRouting& routing = result.routing;
  const auto num_experts = static_cast<size_t>(routing.num_experts);
  const auto top_k = static_cast<size_t>(routing.top_k);
  EXPECT_EQ(routing.num_tokens, 13);
  ASSERT_EQ(routing.num_layers, config_.num_moe_layers());
  ASSERT_EQ(result.expert_ids.size(), static_cast<size_t>(routing.num_layers) * 13 * top_k);
  for (size_t layer = 0; layer < static_cast<size_t>(routing.num_layers); ++layer) {
    std::vector<int64_t> counts(num_experts);
    for (size_t a = 0; a < 13 * top_k; ++a) {
      ++counts.at(static_cast<size_t>(result.expert_ids[layer * 13 * top_k + a]));
    }
    double gate_weight = 0.0;
    double probability = 0.0;
    for (size_t e = 0; e < num_experts; ++e) {
      EXPECT_EQ(routing.assignments[layer * num_experts + e], counts[e]) << "layer " << layer << ", expert " << e;
      gate_weight += routing.gate_weight[layer * num_experts + e];
      probability += routing.probability[layer * num_experts + e];
    }
    EXPECT_NEAR(probability, 13.0, 1e-4);
    if (config_.router.norm == WeightNorm::kSum) {
      EXPECT_NEAR(gate_weight, 13.0, 1e-4);
    } else {
      EXPECT_GT(gate_weight, 1.0);
      EXPECT_LT(gate_weight, 13.0);
    }
    EXPECT_GT(routing.squared_log_sum_exp[layer], 0.0);
  }
  const int64_t per_token = config_.num_moe_layers() * config_.router.top_k;
  EXPECT_EQ(routing.sequence_assignments, (std::vector<int64_t>{9 * per_token, 4 * per_token}));
}

// Any subset of rows may be asked for, also more of them than sequences, also none.
TEST_P(TransformerRunnerTest, GivesTheLogitsThatAreAskedFor) {
  const std::vector<int32_t> tokens = RandomTokens(23, 4);
  const SequenceOutput all = RunAlone(*runner_, tokens);
  const auto vocab_size = static_cast<size_t>(runner_->limits().vocab_size);
  for (const std::vector<int32_t>& rows : {std::vector<int32_t>{22},
                                           {},
                                           {0},
                                           {0, 1, 2, 3, 4},
                                           {0, 1, 2, 3, 4, 5},
                                           {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21}}) {
    TestSequence sequence = {.tokens = tokens, .blocks = {0, 1, 2, 3, 4, 5}, .num_computed = 0};
    const Chunk chunk = {.sequence = &sequence, .num_tokens = 23};
    ForwardBatch batch = NextBatch({&chunk, 1}, kBlockSize);
    batch.logit_rows = rows;
    batch.keep_expert_ids = false;
    ForwardResult result;
    ASSERT_TRUE(runner_->Forward(batch, &result).ok());
    EXPECT_TRUE(result.expert_ids.empty());
    std::vector<float> expected;
    for (int32_t row : rows) {
      const auto begin = all.logits.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * vocab_size);
      expected.insert(expected.end(), begin, begin + static_cast<std::ptrdiff_t>(vocab_size));
    }
    EXPECT_EQ(result.logits, expected);
  }
}

// The full step that the options allow, with the longest sequence.
TEST_P(TransformerRunnerTest, RunsTheLargestStep) {
  const std::vector<int32_t> tokens = RandomTokens(64, 6);
  const SequenceOutput output = RunAlone(*runner_, tokens, std::vector<int32_t>{40, 24});
  for (float logit : output.logits) ASSERT_TRUE(std::isfinite(logit));
}

INSTANTIATE_TEST_SUITE_P(Families, TransformerRunnerTest,
                         testing::Values(ModelFamily::kOlmoe, ModelFamily::kQwen2Moe, ModelFamily::kQwen3Moe,
                                         ModelFamily::kMixtral),
                         [](const testing::TestParamInfo<ModelFamily>& family) {
                           return std::string(ModelFamilyName(family.param));
                         });

// A window of w shows a row its last w positions: what was before them may be anything.
TEST(SlidingWindow, ForgetsWhatIsOutside) {
  const ModelConfig config = SmallConfig(ModelFamily::kMixtral);
  const auto device = MakeDevice();
  const auto runner = MakeRandomRunner(config, DType::kF32, kWeightSeed, SmallOptions(), device.get());
  // Two layers of window 13 see 12 positions further back each.
  std::vector<int32_t> tokens = RandomTokens(40, 7);
  const SequenceOutput before = RunAlone(*runner, tokens);
  tokens[15] = (tokens[15] + 1) % 101;
  const SequenceOutput after = RunAlone(*runner, tokens);
  const auto vocab_size = static_cast<size_t>(config.vocab_size);
  const auto row_equal = [&](size_t row) {
    const auto begin = static_cast<std::ptrdiff_t>(row * vocab_size);
    return std::equal(before.logits.begin() + begin, before.logits.begin() + begin + config.vocab_size,
                      after.logits.begin() + begin);
  };
  for (size_t row = 0; row < 40; ++row) EXPECT_EQ(row_equal(row), row < 15 || row > 15 + 2 * 12) << "row " << row;
}

}  // namespace
}  // namespace cadre
