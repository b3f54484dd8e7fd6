// Steps that are ordered before the host knows the tokens of the one in front: the same bits as one after the other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/sample/philox.h"
#include "tests/support/random_model.h"
#include "tests/support/test_sequence.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

constexpr int32_t kBlockSize = 4;
constexpr int32_t kNumSequences = 5;

// With recorded steps, or op by op.
class StepsAheadTest : public ::testing::TestWithParam<std::tuple<bool, TestTarget>> {
 protected:
  void SetUp() override {
    if (!MakeRunner(target().make_for_model(1).get())->limits().can_order_ahead) {
      GTEST_SKIP() << "the device runs nothing beside the host";
    }
  }
  static const TestTarget& target() { return std::get<TestTarget>(GetParam()); }
  static std::unique_ptr<ModelRunner> MakeRunner(Device* device) {
    const RunnerOptions options = {.max_model_len = 64,
                                   .max_num_seqs = 8,
                                   .max_num_batched_tokens = 64,
                                   .kv_block_size = kBlockSize,
                                   .kv_dtype = {},
                                   .kv_cache_bytes = {},
                                   .record_steps = std::get<bool>(GetParam())};
    return MakeRandomRunner(SmallConfig(ModelFamily::kQwen3Moe), DType::kBF16, 99, options, device);
  }

  static std::vector<TestSequence> MakeSequences() {
    std::vector<TestSequence> sequences(kNumSequences);
    for (size_t s = 0; s < sequences.size(); ++s) {
      sequences[s].tokens = {static_cast<int32_t>(s), 17, static_cast<int32_t>(40 + s)};
      sequences[s].blocks.resize(6);
      std::iota(sequences[s].blocks.begin(), sequences[s].blocks.end(), static_cast<int32_t>(6 * s));
    }
    return sequences;
  }

  // The next `num_tokens` tokens of those `present`, each of whom wants a token that is drawn.
  static ForwardBatch MakeBatch(std::vector<TestSequence>& sequences, const std::vector<size_t>& present,
                                int32_t num_tokens) {
    std::vector<Chunk> chunks;
    for (const size_t s : present) chunks.push_back({.sequence = &sequences[s], .num_tokens = num_tokens});
    ForwardBatch batch = NextBatch(chunks, kBlockSize);
    batch.keep_expert_ids = false;
    batch.logit_rows.clear();
    for (size_t i = 0; i < present.size(); ++i) {
      batch.logit_rows.push_back(static_cast<int32_t>(i + 1) * num_tokens - 1);
      const auto index = static_cast<uint64_t>(sequences[present[i]].num_computed);
      batch.sample_rows.push_back({.draw = DrawBits(/*seed=*/3, static_cast<uint32_t>(present[i]), index),
                                   .is_wanted = 1,
                                   .num_alternatives = 4});
    }
    return batch;
  }
};

struct StepOutcome {
  std::vector<int32_t> tokens;
  std::vector<int32_t> ranks;
  std::vector<int64_t> assignments;
  std::vector<double> gate_weight;
  std::vector<int64_t> sequence_assignments;

  explicit StepOutcome(const ForwardResult& result)
      : tokens(result.sampled.tokens),
        ranks(result.sampled.ranks),
        assignments(result.routing.assignments),
        gate_weight(result.routing.gate_weight),
        sequence_assignments(result.routing.sequence_assignments) {}
  bool operator==(const StepOutcome&) const = default;
};

// Who takes part in which step, the prompt's first.
const std::vector<std::vector<size_t>> kSteps = {{0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}, {0, 2, 3, 4},
                                                 {2, 3, 4},       {2, 4},          {2, 4},          {4}};

TEST_P(StepsAheadTest, ComputeWhatStepsOneByOneDo) {
  std::vector<StepOutcome> expected;
  {
    const auto device = target().make_for_model(1);
    const auto runner = MakeRunner(device.get());
    std::vector<TestSequence> sequences = MakeSequences();
    for (size_t step = 0; step < kSteps.size(); ++step) {
      ForwardResult result;
      ASSERT_TRUE(runner->Forward(MakeBatch(sequences, kSteps[step], step == 0 ? 3 : 1), &result).ok());
      for (size_t i = 0; i < kSteps[step].size(); ++i) {
        sequences[kSteps[step][i]].tokens.push_back(result.sampled.tokens[i]);
      }
      expected.emplace_back(result);
    }
  }
  const auto device = target().make_for_model(1);
  const auto runner = MakeRunner(device.get());
  std::vector<TestSequence> sequences = MakeSequences();
  std::vector<ForwardBatch> batches;
  std::vector<ForwardResult> results(kSteps.size());
  batches.reserve(kSteps.size());
  for (size_t step = 0; step < kSteps.size(); ++step) {
    batches.push_back(MakeBatch(sequences, kSteps[step], step == 0 ? 3 : 1));
    ASSERT_TRUE(runner->Order(batches.back(), &results[step]).ok());
    for (size_t i = 0; i < kSteps[step].size(); ++i) {
      sequences[kSteps[step][i]].tokens.push_back(SampledAt(static_cast<int32_t>(i)));
    }
    if (step == 0) continue;
    ASSERT_TRUE(runner->Finish(batches[step - 1], &results[step - 1]).ok());
    EXPECT_EQ(StepOutcome(results[step - 1]), expected[step - 1]) << "step " << step - 1;
  }
  ASSERT_TRUE(runner->Finish(batches.back(), &results.back()).ok());
  EXPECT_EQ(StepOutcome(results.back()), expected.back());
  for (const StepOutcome& outcome : expected) EXPECT_FALSE(outcome.tokens.empty());
}

TEST_P(StepsAheadTest, AThirdStepWaitsForTheFirst) {
  const auto device = target().make_for_model(1);
  const auto runner = MakeRunner(device.get());
  std::vector<TestSequence> sequences = MakeSequences();
  sequences[0].tokens.resize(9, 5);
  std::vector<ForwardBatch> batches;
  std::vector<ForwardResult> results(3);
  for (int i = 0; i < 3; ++i) batches.push_back(MakeBatch(sequences, {0}, 1));
  ASSERT_TRUE(runner->Order(batches[0], results.data()).ok());
  ASSERT_TRUE(runner->Order(batches[1], &results[1]).ok());
  EXPECT_DEATH(static_cast<void>(runner->Order(batches[2], &results[2])), "check failed");
  for (size_t i = 0; i < 2; ++i) ASSERT_TRUE(runner->Finish(batches[i], &results[i]).ok());
}

INSTANTIATE_TEST_SUITE_P(All, StepsAheadTest, testing::Combine(testing::Bool(), testing::ValuesIn(TestTargets())),
                         [](const testing::TestParamInfo<std::tuple<bool, TestTarget>>& parameters) {
                           return std::get<TestTarget>(parameters.param).name +
                                  (std::get<bool>(parameters.param) ? "Recorded" : "OpByOp");
                         });

}  // namespace
}  // namespace cadre
