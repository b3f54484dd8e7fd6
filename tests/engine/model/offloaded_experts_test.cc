// A model whose experts lie in the host's memory computes what it computes when the device holds them all, to the bit:
// whatever the number of slots and who is in them, in recorded steps and in others.
#include "engine/model/offloaded_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "tests/support/random_model.h"
#include "tests/support/test_sequence.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

constexpr int32_t kBlockSize = 4;
constexpr int32_t kNumSequences = 5;
constexpr int32_t kBlocksPerSequence = 8;

struct Model {
  std::unique_ptr<Device> device;
  std::unique_ptr<ModelRunner> runner;
};

// The device holds all experts if `num_slots` is 0.
Model MakeModel(DType dtype, int64_t num_slots, EvictionPolicyKind policy = EvictionPolicyKind::kLru,
                std::vector<int64_t> profile = {}, int64_t num_kept = 0) {
  Model model;
  model.device = TestTargets().front().make_for_model(1);
  RunnerOptions options;
  options.max_model_len = kBlockSize * kBlocksPerSequence;
  options.max_num_seqs = kNumSequences;
  options.max_num_batched_tokens = 48;
  options.kv_block_size = kBlockSize;
  options.expert_policy = policy;
  options.expert_profile = std::move(profile);
  options.num_kept_experts = num_kept;
  if (num_slots > 0) options.expert_cache_bytes = num_slots * ExpertLayout(WideConfig(), dtype).size_bytes();
  model.runner = MakeRandomRunner(WideConfig(), dtype, /*seed=*/11, options, model.device.get());
  return model;
}

// A prompt of every sequence, then decode steps of some of them, and a second prompt in between.
std::vector<ForwardBatch> MakeSteps() {
  std::mt19937 rng(4);
  std::vector<TestSequence> sequences(kNumSequences);
  int32_t next_block = 0;
  for (TestSequence& sequence : sequences) {
    sequence.tokens.resize(kBlockSize * kBlocksPerSequence);
    for (int32_t& token : sequence.tokens) token = static_cast<int32_t>(rng() % 101);
    sequence.blocks.resize(kBlocksPerSequence);
    std::iota(sequence.blocks.begin(), sequence.blocks.end(), next_block);
    next_block += kBlocksPerSequence;
  }
  std::vector<ForwardBatch> steps;
  const auto add = [&](int32_t num_sequences, int32_t num_tokens) {
    std::vector<Chunk> chunks;
    chunks.reserve(static_cast<size_t>(num_sequences));
    for (int32_t s = 0; s < num_sequences; ++s) {
      chunks.push_back({.sequence = &sequences[static_cast<size_t>(s)], .num_tokens = num_tokens});
    }
    steps.push_back(NextBatch(chunks, kBlockSize));
    steps.back().keep_expert_ids = false;
    if (num_tokens > 1) steps.back().logit_rows.resize(1);
  };
  add(kNumSequences, 3);
  for (const int32_t n : {1, 1, 2, 1, 5, 1, 1}) add(n, 1);
  add(2, 6);
  for (const int32_t n : {1, 3, 1, 1, 1}) add(n, 1);
  return steps;
}

using Parameters = std::tuple<DType, EvictionPolicyKind, int64_t>;
class OffloadedExpertsTest : public testing::TestWithParam<Parameters> {};

TEST_P(OffloadedExpertsTest, ComputesWhatItComputesWithAllExperts) {
  const auto [dtype, policy, num_slots] = GetParam();
  const Model resident = MakeModel(dtype, 0);
  EXPECT_FALSE(resident.runner->expert_cache().has_value());
  const Model offloaded = MakeModel(dtype, num_slots, policy);
  ASSERT_TRUE(offloaded.runner->expert_cache().has_value());
  int64_t needed = 0;
  for (const ForwardBatch& step : MakeSteps()) {
    ForwardResult expected, found;
    ASSERT_TRUE(resident.runner->Forward(step, &expected).ok());
    ASSERT_TRUE(offloaded.runner->Forward(step, &found).ok());
    ASSERT_EQ(found.logits, expected.logits);
    EXPECT_EQ(found.routing.assignments, expected.routing.assignments);
    EXPECT_TRUE(found.faults.empty());
    needed += std::ranges::count_if(found.routing.assignments, [](int64_t n) { return n > 0; });
  }
  const ExpertCacheReport report = *offloaded.runner->expert_cache();
  const int64_t expert_bytes = ExpertLayout(WideConfig(), dtype).size_bytes();
  EXPECT_EQ(report.num_slots, num_slots);
  EXPECT_EQ(report.slots.hits + report.slots.misses, needed);
  EXPECT_EQ(report.slots.placed_loads, num_slots) << "all slots are full from the start";
  ASSERT_NE(offloaded.runner->shadow_simulator(), nullptr);
  EXPECT_EQ(offloaded.runner->shadow_simulator()->num_accesses(), needed);
  EXPECT_GT(report.slots.hits, 0);
  EXPECT_GT(report.slots.miss_loads, 0);
  EXPECT_GT(report.slots.evictions, 0);
  EXPECT_EQ(report.direct_bytes, report.slots.misses * expert_bytes);
  EXPECT_EQ(report.loads.bytes, report.slots.loads_done * expert_bytes);
  EXPECT_EQ(report.loads.errors, 0);
  EXPECT_GT(report.link_bytes_per_second, 0.0);
  EXPECT_EQ(report.empty_slots + report.pinned_slots, 0);
  const ExpertPlacement placement = *offloaded.runner->expert_placement();
  EXPECT_EQ(std::ranges::count(placement.tiers, ExpertTier::kDevice), report.idle_slots);
  EXPECT_EQ(std::ranges::count(placement.tiers, ExpertTier::kCheckpoint), 0);
  EXPECT_EQ(std::ssize(placement.loading), report.loading_slots);
  ASSERT_EQ(placement.counters.size(), 2u);
  SlotCounters sum = placement.counters[0];
  EXPECT_EQ(sum += placement.counters[1], report.slots);
  EXPECT_GT(placement.counters[1].hits + placement.counters[1].misses, 0);
  EXPECT_EQ(resident.runner->expert_placement(), nullptr);
}

std::string NameOf(const testing::TestParamInfo<Parameters>& parameters) {
  const auto& [dtype, policy, num_slots] = parameters.param;
  std::string name =
      std::string(DTypeName(dtype)) + "_" + std::string(EvictionPolicyName(policy)) + "_" + std::to_string(num_slots);
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Sizes, OffloadedExpertsTest,
                         testing::Combine(testing::Values(DType::kBF16), testing::Values(EvictionPolicyKind::kLru),
                                          testing::Values(1, 2, 3, 6, 9, 11)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Policies, OffloadedExpertsTest,
                         testing::Combine(testing::Values(DType::kF32),
                                          testing::Values(EvictionPolicyKind::kLfu, EvictionPolicyKind::kLfru,
                                                          EvictionPolicyKind::kLeastStale),
                                          testing::Values(4)),
                         NameOf);

// Twelve experts; the fewer its number, the less each is used.
std::vector<int64_t> Profile() {
  std::vector<int64_t> assignments(12);
  std::iota(assignments.begin(), assignments.end(), 1);
  return assignments;
}

std::vector<ExpertId> InSlots(const ModelRunner& runner) {
  const auto placement = runner.expert_placement();
  std::vector<ExpertId> ids;
  for (size_t i = 0; i < placement->tiers.size(); ++i) {
    if (placement->tiers[i] == ExpertTier::kDevice) ids.push_back(static_cast<ExpertId>(i));
  }
  return ids;
}

TEST(OffloadedPinsTest, AProfileFillsTheSlotsAndSomeStay) {
  const Model model = MakeModel(DType::kF32, 5, EvictionPolicyKind::kLru, Profile(), /*num_kept=*/3);
  EXPECT_EQ(model.runner->limits().num_expert_slots, 5);
  EXPECT_THAT(model.runner->kept_experts(), testing::UnorderedElementsAre(9, 10, 11));
  EXPECT_THAT(InSlots(*model.runner), testing::ElementsAre(7, 8, 9, 10, 11));
  ForwardResult result;
  for (const ForwardBatch& step : MakeSteps()) ASSERT_TRUE(model.runner->Forward(step, &result).ok());
  EXPECT_GT(model.runner->expert_cache()->slots.evictions, 0);
  EXPECT_THAT(InSlots(*model.runner), testing::IsSupersetOf({9, 10, 11}));
  EXPECT_EQ(model.runner->expert_cache()->kept, 3);
}

TEST(OffloadedPinsTest, PinnedExpertsComeAndChangeNoAnswer) {
  const Model resident = MakeModel(DType::kF32, 0);
  const Model model = MakeModel(DType::kF32, 4);
  model.runner->KeepExperts({5, 11, 0});
  EXPECT_EQ(model.runner->expert_cache()->kept, 3);
  for (const ForwardBatch& step : MakeSteps()) {
    ForwardResult expected, found;
    ASSERT_TRUE(resident.runner->Forward(step, &expected).ok());
    ASSERT_TRUE(model.runner->Forward(step, &found).ok());
    ASSERT_EQ(found.logits, expected.logits);
  }
  while (model.runner->PlaceExperts() < absl::InfiniteDuration()) continue;
  EXPECT_THAT(InSlots(*model.runner), testing::IsSupersetOf({0, 5, 11}));
  EXPECT_EQ(model.runner->expert_cache()->awaited, 0);
}

struct StoredModel {
  std::string folder;
  std::optional<DType> dtype;
};

// From a checkpoint, as stored or converted, whose experts may be one tensor of the layer: all positions' logits.
std::vector<float> LogitsOf(const StoredModel& stored, std::optional<int64_t> num_slots) {
  const std::filesystem::path folder = std::filesystem::path("tests/golden/checkpoints") / stored.folder;
  const ModelConfig config = LoadModelConfig(folder).value();
  const auto checkpoint = Checkpoint::Open(folder, config, {.dtype = stored.dtype, .on_progress = nullptr}).value();
  const std::unique_ptr<Device> device = TestTargets().front().make_for_model(1);
  RunnerOptions options;
  options.max_model_len = 16;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.kv_block_size = 4;
  if (num_slots) options.expert_cache_bytes = *num_slots * checkpoint->summary().one_expert_bytes;
  const MemoryPlan plan = PlanMemory(config, checkpoint->summary(), options, *device, device->ops()).value();
  EXPECT_EQ(plan.expert_place(), num_slots ? ExpertPlace::kHost : ExpertPlace::kDevice);
  Weights weights = checkpoint->Load(*device, plan.expert_place()).value();
  EXPECT_EQ(weights.expert_source, nullptr);
  const auto runner = CreateTransformerRunner(config, std::move(weights), plan, options, device.get()).value();
  const std::vector<int32_t> chunks = {5, 1, 1, 1, 3};
  return RunAlone(*runner, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}, chunks).logits;
}

TEST(OffloadedCheckpointTest, ExpertsAreLoadedIntoTheHostsMemory) {
  for (const StoredModel& stored :
       {StoredModel{"qwen3_bf16_sharded_fused", std::nullopt}, StoredModel{"mixtral_fused_f16", DType::kBF16},
        StoredModel{"qwen2_dense_every_second", std::nullopt}}) {
    SCOPED_TRACE(stored.folder);
    const std::vector<float> expected = LogitsOf(stored, std::nullopt);
    EXPECT_EQ(LogitsOf(stored, 1), expected);
    EXPECT_EQ(LogitsOf(stored, 3), expected);
  }
}

}  // namespace
}  // namespace cadre
