// Three tiers: some experts lie in the device for good, others take turns in memory of the host, and all of them are in
// the checkpoint. What is where changes no output.
#include "engine/model/resident_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "tests/support/random_model.h"
#include "tests/support/test_sequence.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kNumExperts = 12;
constexpr int32_t kNumTokens = 24;

struct Tiers {
  int64_t device = 0;
  int64_t host = 0;
};

struct Model {
  std::unique_ptr<Device> device;
  std::unique_ptr<ModelRunner> runner;
  MemoryExperts* experts = nullptr;
};

// All experts in the device if there are no `tiers`.
RunnerOptions WithSizes(std::optional<Tiers> tiers, int64_t expert_bytes, RunnerOptions options = {}) {
  options.max_model_len = 32;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.kv_block_size = 4;
  if (tiers) {
    options.expert_cache_bytes = tiers->device * expert_bytes;
    options.expert_host_bytes = tiers->host * expert_bytes;
  }
  return options;
}

Model MakeModel(DType dtype, std::optional<Tiers> tiers, const RunnerOptions& options = {}) {
  Model model;
  model.device = TestTargets().front().make_for_model(1);
  const int64_t expert_bytes = ExpertLayout(WideConfig(), dtype).size_bytes();
  model.runner = MakeRandomRunner(WideConfig(), dtype, /*seed=*/11, WithSizes(tiers, expert_bytes, options),
                                  model.device.get(), &model.experts);
  return model;
}

std::vector<int32_t> Tokens() {
  std::vector<int32_t> tokens(kNumTokens);
  for (int32_t i = 0; i < kNumTokens; ++i) tokens[static_cast<size_t>(i)] = (i * 37 + 5) % 101;
  return tokens;
}

std::vector<float> LogitsOf(ModelRunner& runner) {
  const std::vector<int32_t> chunks = {9, 1, 1, 1, 5, 1, 1, 1, 1, 1, 1, 1};
  return RunAlone(runner, Tokens(), chunks).logits;
}

std::vector<ExpertId> InTier(const ModelRunner& runner, ExpertTier tier) {
  const auto placement = runner.expert_placement();
  std::vector<ExpertId> ids;
  for (size_t i = 0; i < placement->tiers.size(); ++i) {
    if (placement->tiers[i] == tier) ids.push_back(static_cast<ExpertId>(i));
  }
  return ids;
}

TEST(ResidentExpertsTest, ThreeTiersChangeNoBit) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const std::vector<float> expected = LogitsOf(*MakeModel(dtype, std::nullopt).runner);
    for (const Tiers tiers : {Tiers{1, 1}, Tiers{2, 3}, Tiers{5, 2}, Tiers{1, 11}, Tiers{11, 1}}) {
      for (const int ahead : {0, 2}) {
        SCOPED_TRACE(testing::Message() << DTypeName(dtype) << ", " << tiers.device << " in the device, " << tiers.host
                                        << " slots, " << ahead << " read ahead");
        RunnerOptions options;
        options.expert_ahead_threads = ahead;
        const Model model = MakeModel(dtype, tiers, options);
        ASSERT_NE(model.experts, nullptr);
        ASSERT_EQ(LogitsOf(*model.runner), expected);
        const ExpertCacheReport report = *model.runner->expert_cache();
        EXPECT_EQ(report.resident, tiers.device);
        EXPECT_EQ(report.num_slots, tiers.host);
        EXPECT_GT(report.slots.hits, 0);
        EXPECT_GT(report.direct_bytes, 0);
        const ExpertPlacement placement = *model.runner->expert_placement();
        EXPECT_EQ(placement.slowest_cached, ExpertTier::kHost);
        EXPECT_EQ(std::ranges::count(placement.tiers, ExpertTier::kDevice), tiers.device);
        EXPECT_LE(std::ranges::count(placement.tiers, ExpertTier::kHost), tiers.host);
        SlotCounters sum = placement.counters[0];
        EXPECT_EQ(sum += placement.counters[1], report.slots);
      }
    }
  }
}

TEST(ResidentExpertsTest, WhoIsInTheDeviceIsReadOnce) {
  const Model model = MakeModel(DType::kF32, Tiers{4, 2});
  EXPECT_THAT(InTier(*model.runner, ExpertTier::kDevice), ElementsAre(0, 1, 6, 7)) << "as many of each layer";
  LogitsOf(*model.runner);
  for (const ExpertId expert : {0, 1, 6, 7}) EXPECT_EQ(model.experts->num_reads(expert), 1) << expert;
  EXPECT_GT(model.runner->expert_cache()->slots.evictions, 0);
}

TEST(ResidentExpertsTest, AProfileSaysWhoIsWhere) {
  RunnerOptions options;
  options.expert_profile.resize(kNumExperts);
  std::iota(options.expert_profile.begin(), options.expert_profile.end(), 1);  // the higher its number, the more used
  options.num_kept_experts = 1;
  const Model model = MakeModel(DType::kF32, Tiers{3, 4}, options);
  while (model.runner->PlaceExperts() < absl::InfiniteDuration()) continue;
  EXPECT_THAT(InTier(*model.runner, ExpertTier::kDevice), ElementsAre(9, 10, 11));
  EXPECT_THAT(InTier(*model.runner, ExpertTier::kHost), ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(model.runner->kept_experts(), ElementsAre(8)) << "of those that need a slot";
  EXPECT_THAT(model.runner->expert_placement()->kept, ElementsAre(8));
  EXPECT_TRUE(model.runner->is_resident(9));
  EXPECT_FALSE(model.runner->is_resident(8));
  EXPECT_EQ(model.runner->expert_cache()->kept, 1);
}

TEST(ResidentExpertsTest, PinnedExpertsStayWhereverTheyAre) {
  const std::vector<float> expected = LogitsOf(*MakeModel(DType::kF32, std::nullopt).runner);
  const Model model = MakeModel(DType::kF32, Tiers{2, 4});
  model.runner->KeepExperts({11, 6, 3});
  while (model.runner->PlaceExperts() < absl::InfiniteDuration()) continue;
  EXPECT_EQ(LogitsOf(*model.runner), expected);
  EXPECT_THAT(model.runner->expert_placement()->kept, ElementsAre(3, 6, 11));
  EXPECT_EQ(model.runner->expert_cache()->kept, 3);
  EXPECT_THAT(InTier(*model.runner, ExpertTier::kHost), testing::IsSupersetOf({3, 11}));
  EXPECT_EQ(model.experts->num_reads(3), 1);
}

TEST(ResidentExpertsTest, WhatCannotBeReadIsToldOfAndWhoIsInTheDeviceIsNot) {
  const Model model = MakeModel(DType::kF32, Tiers{2, 2});
  for (ExpertId expert = 0; expert < kNumExperts; ++expert) {
    model.experts->Fail(expert, absl::UnavailableError("the disk is gone"), /*times=*/1000);
  }
  std::vector<TestSequence> sequences(1);
  sequences[0].tokens = Tokens();
  sequences[0].blocks = {0, 1, 2, 3, 4, 5, 6, 7};
  const std::vector<Chunk> chunks = {{.sequence = &sequences[0], .num_tokens = 8}};
  ForwardResult result;
  ASSERT_TRUE(model.runner->Forward(NextBatch(chunks, 4), &result).ok());
  ASSERT_EQ(result.faults.size(), 1u);
  EXPECT_THAT(std::string(result.faults[0].status.message()), HasSubstr("the disk is gone"));
  EXPECT_GT(result.cache_uses.at(0).hits, 0);
  EXPECT_EQ(std::ranges::count(model.runner->expert_placement()->tiers, ExpertTier::kDevice), 2);
}

TEST(ResidentExpertsTest, AnExpertThatCannotBeLoadedEndsTheStart) {
  const std::unique_ptr<Device> device = TestTargets().front().make_for_model(1);
  const ExpertLayout layout(WideConfig(), DType::kF32);
  MemoryExperts source(MakeNumberedExperts(kNumExperts, static_cast<size_t>(layout.size_bytes())));
  const std::vector<ExpertId> wanted = {7, 0, 3};
  source.Fail(3, absl::DataLossError("torn"), /*times=*/1);
  EXPECT_EQ(ResidentExperts::Load(layout, kNumExperts, wanted, source, 2, device.get()).status(),
            absl::DataLossError("torn"));
  const auto loaded = ResidentExperts::Load(layout, kNumExperts, wanted, source, 2, device.get());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->experts(), ElementsAre(7, 0, 3));
  EXPECT_FALSE(loaded->Has(1));
  for (const ExpertId expert : wanted) {
    ASSERT_TRUE(loaded->Has(expert));
    const ConstView down = layout.At(loaded->WeightsOf(expert)).down;
    std::vector<std::byte> found(down.size_bytes());
    device->CopyToHost(found.data(), down);
    ASSERT_TRUE(device->Synchronize().ok());
    EXPECT_THAT(found, testing::Each(static_cast<std::byte>(expert + 1)));
  }
  EXPECT_FALSE(ResidentExperts().Has(0));
}

// From the files, as stored or converted, whose experts may be one tensor of the layer.
TEST(ResidentExpertsTest, ExpertsComeFromTheCheckpoint) {
  for (const auto& [name, dtype] : {std::pair{"qwen3_bf16_sharded_fused", std::optional<DType>()},
                                    std::pair{"mixtral_fused_f16", std::optional(DType::kBF16)},
                                    std::pair{"qwen2_dense_every_second", std::optional<DType>()}}) {
    SCOPED_TRACE(name);
    const std::filesystem::path folder = std::filesystem::path("tests/golden/checkpoints") / name;
    const ModelConfig config = LoadModelConfig(folder).value();
    const auto checkpoint = Checkpoint::Open(folder, config, {.dtype = dtype, .on_progress = nullptr}).value();
    const auto logits = [&](std::optional<Tiers> tiers) {
      const std::unique_ptr<Device> device = TestTargets().front().make_for_model(1);
      RunnerOptions options = WithSizes(tiers, checkpoint->summary().one_expert_bytes);
      options.max_model_len = 16;
      const MemoryPlan plan = PlanMemory(config, checkpoint->summary(), options, *device, device->ops()).value();
      EXPECT_EQ(plan.expert_place(), tiers ? ExpertPlace::kCheckpoint : ExpertPlace::kDevice);
      Weights weights = checkpoint->Load(*device, plan.expert_place()).value();
      const auto runner = CreateTransformerRunner(config, std::move(weights), plan, options, device.get()).value();
      const std::vector<int32_t> chunks = {5, 1, 1, 1, 3};
      return RunAlone(*runner, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}, chunks).logits;
    };
    const std::vector<float> expected = logits(std::nullopt);
    EXPECT_EQ(logits(Tiers{1, 1}), expected);
    EXPECT_EQ(logits(Tiers{2, 2}), expected);
  }
}

}  // namespace
}  // namespace cadre
