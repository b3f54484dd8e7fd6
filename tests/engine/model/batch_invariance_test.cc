// Same request, same answer: what a row computes does not depend on its neighbors, on how its prompt was cut into
// chunks, on which blocks hold its keys and values, nor on the number of threads. Compared bit by bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "engine/model/routing_scheme.h"
#include "engine/model/transformer_runner.h"
#include "tests/support/random_model.h"
#include "tests/support/test_sequence.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

constexpr int32_t kBlockSize = 4;
constexpr int32_t kMaxSequences = 7;
constexpr int32_t kMaxTokens = 64;
constexpr int kNumSequences = 12;  // that share one run of random steps
constexpr int32_t kLongestPrompt = 45;
constexpr uint64_t kWeightSeed = 99;  // equal for all runners of a test

struct Model {
  std::unique_ptr<Device> device;
  std::unique_ptr<ModelRunner> runner;
};

Model MakeModel(const ModelConfig& config, DType dtype, const TestTarget& target, int num_threads,
                int32_t max_tokens = kMaxTokens) {
  Model model;
  model.device = target.make_for_model(num_threads);
  const RunnerOptions options = {.max_model_len = 64,
                                 .max_num_seqs = kMaxSequences,
                                 .max_num_batched_tokens = max_tokens,
                                 .kv_block_size = kBlockSize,
                                 .kv_dtype = {},
                                 .kv_cache_bytes = {}};
  model.runner = MakeRandomRunner(config, dtype, kWeightSeed, options, model.device.get());
  return model;
}

std::vector<int32_t> RandomTokens(int32_t count, int32_t vocab_size, std::mt19937& rng) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab_size));
  return tokens;
}

// Hands out blocks in random order and takes them back: their old contents stay in them.
class ShuffledBlocks {
 public:
  ShuffledBlocks(int32_t num_blocks, std::mt19937& rng) : free_(static_cast<size_t>(num_blocks)), rng_(rng) {
    std::iota(free_.begin(), free_.end(), 0);
  }
  std::vector<int32_t> Take(size_t num_tokens) {
    std::vector<int32_t> blocks((num_tokens + kBlockSize - 1) / kBlockSize);
    for (int32_t& block : blocks) {
      std::swap(free_[rng_() % free_.size()], free_.back());
      block = free_.back();
      free_.pop_back();
    }
    return blocks;
  }
  void GiveBack(const std::vector<int32_t>& blocks) { free_.insert(free_.end(), blocks.begin(), blocks.end()); }

 private:
  std::vector<int32_t> free_;
  std::mt19937& rng_;
};

// A sequence among neighbors, and what it computed when it was alone.
struct Guest {
  TestSequence sequence;
  SequenceOutput alone;
};

void ExpectRowsEqual(const Guest& guest, int32_t first, int32_t count, size_t first_row, const ForwardResult& result,
                     const RunnerLimits& limits) {
  const auto vocab_size = static_cast<size_t>(limits.vocab_size);
  const float* expected = guest.alone.logits.data() + static_cast<size_t>(first) * vocab_size;
  const float* actual = result.logits.data() + first_row * vocab_size;
  EXPECT_EQ(std::memcmp(actual, expected, static_cast<size_t>(count) * vocab_size * sizeof(float)), 0)
      << "rows " << first << " to " << first + count << " of a sequence of " << guest.sequence.tokens.size();

  if (result.expert_ids.empty()) return;
  const auto top_k = static_cast<size_t>(limits.top_k);
  const size_t step_tokens = static_cast<size_t>(result.routing.num_tokens);
  for (size_t layer = 0; layer < static_cast<size_t>(limits.num_moe_layers); ++layer) {
    const int32_t* step_ids = result.expert_ids.data() + (layer * step_tokens + first_row) * top_k;
    const int32_t* alone_ids =
        guest.alone.expert_ids.data() + (layer * guest.sequence.tokens.size() + static_cast<size_t>(first)) * top_k;
    EXPECT_TRUE(std::equal(step_ids, step_ids + static_cast<size_t>(count) * top_k, alone_ids));
  }
}

// Places that rows of a guest did not use when it was alone.
int64_t NumUnused(const Guest& guest, int32_t first, int32_t count, const RunnerLimits& limits) {
  int64_t unused = 0;
  for (int64_t layer = 0; layer < limits.num_moe_layers; ++layer) {
    const auto row = layer * static_cast<int64_t>(guest.sequence.tokens.size()) + first;
    const auto begin = guest.alone.expert_ids.begin() + row * limits.top_k;
    unused += std::count(begin, begin + int64_t{count} * limits.top_k, kPadding);
  }
  return unused;
}

// Of the next `count` rows, those that make whole groups of the prompt; or the next group, where it is larger.
int32_t WholeGroups(const TestSequence& sequence, int32_t count, int32_t group) {
  const int32_t end = sequence.num_computed + count;
  if (group == 0 || end >= sequence.prompt_length) return count;
  return end / group * group - sequence.num_computed;
}

// Runs all guests through random steps until each is done; compares every row that every step computed. Returns the
// number of rows compared.
int64_t RunTogether(ModelRunner& runner, std::vector<Guest> guests, std::mt19937& rng) {
  const RunnerLimits& limits = runner.limits();
  ShuffledBlocks blocks(limits.num_kv_blocks, rng);
  std::vector<Guest*> active;
  size_t next_guest = 0;
  int64_t rows = 0;
  ForwardResult result;
  while (next_guest < guests.size() || !active.empty()) {
    while (next_guest < guests.size() && active.size() < kMaxSequences && (active.empty() || rng() % 2 == 0)) {
      Guest& guest = guests[next_guest++];
      guest.sequence.blocks = blocks.Take(guest.sequence.tokens.size());
      active.push_back(&guest);
    }
    std::shuffle(active.begin(), active.end(), rng);

    std::vector<Chunk> chunks;
    std::vector<int32_t> firsts;
    int32_t budget = kMaxTokens;
    for (Guest* guest : active) {
      if (chunks.size() > 0 && (rng() % 4 == 0 || budget == 0)) continue;
      const auto left = static_cast<int32_t>(guest->sequence.tokens.size()) - guest->sequence.num_computed;
      const int32_t wanted = rng() % 2 == 0 ? 1 : 1 + static_cast<int32_t>(rng() % 24);
      const int32_t count = WholeGroups(guest->sequence, std::min({wanted, left, budget}), limits.prompt_group);
      if (count == 0) continue;
      firsts.push_back(guest->sequence.num_computed);
      chunks.push_back({.sequence = &guest->sequence, .num_tokens = count});
      budget -= count;
    }
    if (chunks.empty()) continue;
    ForwardBatch batch = NextBatch(chunks, kBlockSize);
    // As servers run steps: where work is recorded, steps without a prompt replay it.
    batch.keep_expert_ids = rng() % 2 == 0;
    const absl::Status status = runner.Forward(batch, &result);
    EXPECT_TRUE(status.ok()) << status;

    size_t first_row = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const auto owner = std::find_if(active.begin(), active.end(),
                                      [&](const Guest* guest) { return &guest->sequence == chunks[i].sequence; });
      ExpectRowsEqual(**owner, firsts[i], chunks[i].num_tokens, first_row, result, limits);
      const int64_t most = int64_t{chunks[i].num_tokens} * limits.num_moe_layers * limits.top_k;
      EXPECT_EQ(result.routing.sequence_assignments.at(i),
                most - NumUnused(**owner, firsts[i], chunks[i].num_tokens, limits));
      first_row += static_cast<size_t>(chunks[i].num_tokens);
    }
    rows += static_cast<int64_t>(first_row);
    std::erase_if(active, [&](const Guest* guest) {
      if (guest->sequence.num_computed < static_cast<int32_t>(guest->sequence.tokens.size())) return false;
      blocks.GiveBack(guest->sequence.blocks);
      return true;
    });
  }
  return rows;
}

// A dozen sequences among each other, in random steps, on every number of threads, against each of them alone.
void ExpectRowsIndependent(const ModelConfig& config, DType dtype, const TestTarget& target, std::mt19937& rng) {
  std::vector<Guest> guests(kNumSequences);
  const Model alone = MakeModel(config, dtype, target, /*num_threads=*/1);
  for (Guest& guest : guests) {
    guest.sequence.tokens =
        RandomTokens(1 + static_cast<int32_t>(rng() % kLongestPrompt), alone.runner->limits().vocab_size, rng);
    guest.sequence.seed = rng();
    guest.sequence.prompt_length = static_cast<int32_t>(rng() % (guest.sequence.tokens.size() + 1));
    guest.alone = RunAlone(*alone.runner, guest.sequence.tokens, guest.sequence.seed, guest.sequence.prompt_length);
    // NaN equals NaN bit for bit, and would prove nothing.
    for (float logit : guest.alone.logits) ASSERT_TRUE(std::isfinite(logit));
  }
  for (int num_threads : target.thread_counts) {
    const Model together = MakeModel(config, dtype, target, num_threads);
    for (int round = 0; round < target.num_rounds; ++round) {
      SCOPED_TRACE(testing::Message() << num_threads << " threads, round " << round);
      std::shuffle(guests.begin(), guests.end(), rng);
      const int64_t rows = RunTogether(*together.runner, guests, rng);
      EXPECT_EQ(rows, std::accumulate(guests.begin(), guests.end(), int64_t{0}, [](int64_t sum, const Guest& guest) {
                  return sum + static_cast<int64_t>(guest.sequence.tokens.size());
                }));
      if (testing::Test::HasFailure()) return;
    }
  }
}

using Parameters = std::tuple<ModelFamily, DType, TestTarget>;

class BatchInvariance : public ::testing::TestWithParam<Parameters> {};

TEST_P(BatchInvariance, RowsDoNotDependOnTheirCompany) {
  const auto& [family, dtype, target] = GetParam();
  std::mt19937 rng(static_cast<uint32_t>(family) * 31 + 7);
  ExpectRowsIndependent(SmallConfig(family), dtype, target, rng);
}

// Under other routers than the families' own, too.
class SchemeInvariance : public ::testing::TestWithParam<std::tuple<std::string, TestTarget>> {};

ModelConfig ConfigOfScheme(const std::string& scheme) {
  ModelConfig config = SmallConfig(ModelFamily::kMixtral);
  const auto block = ParseRoutingOverride(scheme, "test");
  EXPECT_TRUE(block.ok()) << block.status();
  const absl::Status status = ApplyRoutingScheme(*block, "test", &config);
  EXPECT_TRUE(status.ok()) << status;
  return config;
}

TEST_P(SchemeInvariance, RowsDoNotDependOnTheirCompany) {
  const auto& [scheme, target] = GetParam();
  std::mt19937 rng(5);
  ExpectRowsIndependent(ConfigOfScheme(scheme), DType::kF32, target, rng);
}

// One token at a time against the whole prompt at once: decoding equals prefill.
TEST_P(BatchInvariance, DecodeEqualsPrefill) {
  const auto& [family, dtype, target] = GetParam();
  std::mt19937 rng(11);
  const Model model = MakeModel(SmallConfig(family), dtype, target, /*num_threads=*/2);
  const std::vector<int32_t> tokens = RandomTokens(40, model.runner->limits().vocab_size, rng);
  const SequenceOutput prefill = RunAlone(*model.runner, tokens);
  const SequenceOutput decode = RunAlone(*model.runner, tokens, std::vector<int32_t>(tokens.size(), 1));
  EXPECT_EQ(prefill.logits, decode.logits);
  EXPECT_EQ(prefill.expert_ids, decode.expert_ids);
}

// How large the steps may grow sizes buffers, never results.
TEST_P(BatchInvariance, RowsDoNotDependOnTheLargestStep) {
  const auto& [family, dtype, target] = GetParam();
  std::mt19937 rng(12);
  const Model small = MakeModel(SmallConfig(family), dtype, target, /*num_threads=*/2);
  const Model large = MakeModel(SmallConfig(family), dtype, target, /*num_threads=*/2, /*max_tokens=*/500);
  const std::vector<int32_t> tokens = RandomTokens(33, small.runner->limits().vocab_size, rng);
  EXPECT_EQ(RunAlone(*small.runner, tokens).logits, RunAlone(*large.runner, tokens).logits);
}

std::string ParameterName(const testing::TestParamInfo<Parameters>& info) {
  const auto& [family, dtype, target] = info.param;
  std::string name = std::string(ModelFamilyName(family)) + "_" + std::string(DTypeName(dtype)) + "_" + target.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, BatchInvariance,
                         testing::Combine(testing::Values(ModelFamily::kOlmoe, ModelFamily::kQwen2Moe,
                                                          ModelFamily::kQwen3Moe, ModelFamily::kMixtral),
                                          testing::Values(DType::kF32, DType::kBF16), testing::ValuesIn(TestTargets())),
                         ParameterName);

const char* const kSchemes[] = {"softmax-top-k,normalize=before,top_k=3",
                                R"({"scheme": "sigmoid-bias", "selection_bias": [0.1, 0, -0.2, 0, 0.3, 0]})",
                                "group-limited,num_groups=3,kept_groups=2,score=sigmoid",
                                "switch",
                                "gshard",
                                "noisy-top-k,top_k=3",
                                "hash,top_k=2",
                                "top-p,p=0.6,k_min=1,k_max=4",
                                "expert-choice,group=8,capacity_factor=1.5,k_max=4",
                                "dense"};

std::string SchemeName(const testing::TestParamInfo<std::tuple<std::string, TestTarget>>& info) {
  const auto block = ParseRoutingOverride(std::get<0>(info.param), "test");
  std::string name = block->at("scheme").get<std::string>() + "_" + std::get<1>(info.param).name;
  std::erase_if(name, [](char c) { return c == '-'; });
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, SchemeInvariance,
                         testing::Combine(testing::ValuesIn(std::vector<std::string>(std::begin(kSchemes),
                                                                                     std::end(kSchemes))),
                                          testing::ValuesIn(TestTargets())),
                         SchemeName);

}  // namespace
}  // namespace cadre
