// Our logits and router choices against those of Hugging Face transformers, for every checkpoint in
// tests/golden/checkpoints and in $CADRE_GOLDEN_DIR, on every target.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "engine/model/transformer_runner.h"
#include "tests/golden/golden_data.h"
#include "tests/support/test_sequence.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

constexpr char kCheckpoints[] = "tests/golden/checkpoints";  // tests run in the root of the repository

// Bounds on max |ours - reference| / max |reference| over the logits of one position.
constexpr float kFloat32Bound = 1e-4f;
constexpr float kBFloat16Bound = 2e-2f;

std::vector<fs::path> AllGoldenDirs() {
  std::vector<fs::path> dirs = FindGoldenDirs(kCheckpoints);
  if (const char* more = std::getenv("CADRE_GOLDEN_DIR"); more != nullptr) {
    for (fs::path& dir : FindGoldenDirs(more)) dirs.push_back(std::move(dir));
  }
  return dirs;
}

float LargestMagnitude(const float* values, size_t count) {
  float largest = 0.0f;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  return largest;
}

size_t ArgMax(const float* values, size_t count) {
  return static_cast<size_t>(std::max_element(values, values + count) - values);
}

// Rows of `row_size` ids, each sorted: the choice is a set.
std::vector<int32_t> SortedRows(std::vector<int32_t> ids, size_t row_size) {
  for (size_t begin = 0; begin < ids.size(); begin += row_size) {
    std::sort(ids.begin() + static_cast<std::ptrdiff_t>(begin),
              ids.begin() + static_cast<std::ptrdiff_t>(begin + row_size));
  }
  return ids;
}

using Parameters = std::tuple<fs::path, TestTarget>;

class GoldenTest : public testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    const auto& [dir, target] = GetParam();
    auto golden = ReadGolden(dir);
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
    device_ = target.make_for_model(2);
    CreateRunner(dir);
  }

  void CreateRunner(const fs::path& dir) {
    const auto config = LoadModelConfig(dir);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto checkpoint = Checkpoint::Open(dir, *config, {.dtype = golden_.reference_dtype, .on_progress = nullptr});
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    size_t longest = 0;
    for (const GoldenPrompt& prompt : golden_.prompts) longest = std::max(longest, prompt.tokens.size());
    const RunnerOptions options = {.max_model_len = static_cast<int32_t>(longest),
                                   .max_num_seqs = 8,
                                   .max_num_batched_tokens = static_cast<int32_t>(longest),
                                   .kv_block_size = 8,
                                   .kv_dtype = golden_.reference_dtype,
                                   .kv_cache_bytes = {}};
    const auto plan = PlanMemory(*config, (*checkpoint)->summary(), options, *device_, device_->ops());
    ASSERT_TRUE(plan.ok()) << plan.status();
    auto weights = (*checkpoint)->Load(*device_, plan->expert_place());
    ASSERT_TRUE(weights.ok()) << weights.status();
    auto runner = CreateTransformerRunner(*config, *std::move(weights), *plan, options, device_.get());
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
    ASSERT_EQ(runner_->limits().vocab_size, golden_.vocab_size);
    ASSERT_EQ(runner_->limits().num_moe_layers, golden_.num_moe_layers);
    ASSERT_EQ(runner_->limits().top_k, golden_.top_k);
  }

  Golden golden_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<ModelRunner> runner_;
};

TEST_P(GoldenTest, LogitsAndChoicesEqualTheReference) {
  const float bound = golden_.reference_dtype == DType::kF32 ? kFloat32Bound : kBFloat16Bound;
  const auto vocab_size = static_cast<size_t>(golden_.vocab_size);
  const auto top_k = static_cast<size_t>(golden_.top_k);
  for (const GoldenPrompt& prompt : golden_.prompts) {
    SCOPED_TRACE(testing::Message() << "prompt of " << prompt.tokens.size() << " tokens");
    const SequenceOutput output = RunAlone(*runner_, prompt.tokens);
    EXPECT_EQ(SortedRows(output.expert_ids, top_k), prompt.expert_ids);
    for (size_t i = 0; i < prompt.logit_positions.size(); ++i) {
      const float* ours = output.logits.data() + static_cast<size_t>(prompt.logit_positions[i]) * vocab_size;
      const float* theirs = prompt.logits.data() + i * vocab_size;
      std::vector<float> difference(vocab_size);
      std::transform(ours, ours + vocab_size, theirs, difference.begin(), std::minus<>());
      const float error = LargestMagnitude(difference.data(), vocab_size) / LargestMagnitude(theirs, vocab_size);
      EXPECT_LE(error, bound) << "position " << prompt.logit_positions[i];
      EXPECT_EQ(ArgMax(ours, vocab_size), ArgMax(theirs, vocab_size)) << "position " << prompt.logit_positions[i];
    }
  }
}

TEST_P(GoldenTest, ChunksAndDecodeStepsGiveTheSameBits) {
  std::mt19937 rng(1);
  for (const GoldenPrompt& prompt : golden_.prompts) {
    const auto num_tokens = static_cast<int32_t>(prompt.tokens.size());
    SCOPED_TRACE(testing::Message() << "prompt of " << num_tokens << " tokens");
    const SequenceOutput whole = RunAlone(*runner_, prompt.tokens);
    for (int round = 0; round < 3; ++round) {
      // Random chunks of the first part, then one token at a time.
      const auto prefill = static_cast<int32_t>(rng() % static_cast<uint32_t>(num_tokens + 1));
      std::vector<int32_t> chunk_sizes;
      for (int32_t left = prefill; left > 0; left -= chunk_sizes.back()) {
        chunk_sizes.push_back(1 + static_cast<int32_t>(rng() % static_cast<uint32_t>(left)));
      }
      chunk_sizes.resize(chunk_sizes.size() + static_cast<size_t>(num_tokens - prefill), 1);
      const SequenceOutput pieces = RunAlone(*runner_, prompt.tokens, chunk_sizes);
      ASSERT_EQ(whole.logits.size(), pieces.logits.size());
      EXPECT_EQ(std::memcmp(whole.logits.data(), pieces.logits.data(), whole.logits.size() * sizeof(float)), 0);
      EXPECT_EQ(whole.expert_ids, pieces.expert_ids);
    }
  }
}

std::string ParameterName(const testing::TestParamInfo<Parameters>& info) {
  const auto& [dir, target] = info.param;
  std::string name = dir.filename().string() + "_" + target.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name + "_" + std::to_string(info.index);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         testing::Combine(testing::ValuesIn(AllGoldenDirs()), testing::ValuesIn(TestTargets())),
                         ParameterName);

TEST(GoldenCheckpoints, ArePresent) {
  EXPECT_GE(FindGoldenDirs(kCheckpoints).size(), size_t{25}) << "run this test in the root of the repository";
}

}  // namespace
}  // namespace cadre
