#include "engine/model/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "engine/model/kv_cache.h"
#include "engine/model/workspace.h"
#include "tests/engine/model/paper_device.h"

namespace cadre {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Of a device that must hold all experts.
std::string PlanError(const RunnerOptions& options, int64_t available_bytes, absl::StatusCode code) {
  PaperDevice device(available_bytes, /*shares_host_memory=*/false);
  const auto plan = PlanMemory(LargeConfig(), LargeSummary(), options, device, device.ops());
  EXPECT_EQ(plan.status().code(), code) << plan.status();
  return std::string(plan.status().message());
}

TEST(MemoryPlan, AutomaticKvCacheHoldsWhatAllSequencesCouldUse) {
  RunnerOptions options;
  options.max_model_len = 1000;
  options.max_num_seqs = 3;
  const auto plan = Plan(LargeConfig(), LargeSummary(), options, 200 * kGiB);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 3 * 63);  // ceil(1000 / 16)
  EXPECT_EQ(plan->kv_block_size, 16);
  EXPECT_EQ(plan->max_model_len, 1000);
  EXPECT_EQ(plan->kv_dtype, DType::kBF16);
  EXPECT_EQ(plan->kv_cache_bytes, int64_t{3} * 63 * 16 * 32 * 2 * 8 * 128 * 2);
  EXPECT_EQ(plan->dense_weight_bytes, 3 * kGiB);
  EXPECT_EQ(plan->expert_weight_bytes, 84 * kGiB);
  EXPECT_EQ(plan->available_bytes, 200 * kGiB);
  EXPECT_EQ(plan->total_bytes(), 87 * kGiB + plan->workspace_bytes + plan->kv_cache_bytes);
}

TEST(MemoryPlan, AutomaticKvCacheLeavesAReserve) {
  const auto plan = Plan(LargeConfig(), LargeSummary(), {}, 120 * kGiB);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->max_model_len, 32768);
  const int64_t left = 120 * kGiB - plan->total_bytes();
  EXPECT_GE(left, 12 * kGiB);
  EXPECT_LE(left, 12 * kGiB + plan->kv_cache_bytes / plan->num_kv_blocks);
}

TEST(MemoryPlan, KvDtypeFollowsTheWeights) {
  CheckpointSummary summary = LargeSummary();
  summary.dtype = DType::kF32;
  RunnerOptions options;
  options.max_model_len = 64;
  EXPECT_EQ(Plan(LargeConfig(), summary, options, 200 * kGiB)->kv_dtype, DType::kF32);
  summary.dtype = DType::kF16;
  EXPECT_EQ(Plan(LargeConfig(), summary, options, 200 * kGiB)->kv_dtype, DType::kF16);
  summary.dtype = DType::kBF16;
  EXPECT_EQ(Plan(LargeConfig(), summary, options, 200 * kGiB)->kv_dtype, DType::kBF16);
  options.kv_dtype = DType::kF16;
  EXPECT_EQ(Plan(LargeConfig(), summary, options, 200 * kGiB)->kv_dtype, DType::kF16);
}

TEST(MemoryPlan, ExplicitKvCacheIsTakenAsItIs) {
  RunnerOptions options;
  options.kv_cache_bytes = kGiB;  // 512 blocks of 2 MiB: less than one sequence of 32768 tokens
  const auto plan = Plan(LargeConfig(), LargeSummary(), options, 100 * kGiB);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 512);
  EXPECT_EQ(plan->kv_cache_bytes, kGiB);
}

TEST(MemoryPlan, WeightsThatDoNotFit) {
  EXPECT_THAT(PlanError({}, 80 * kGiB, absl::StatusCode::kResourceExhausted),
              AllOf(HasSubstr("weights need 87.00 GiB (93415538688 bytes)"),
                    HasSubstr("the device has 80.00 GiB (85899345920 bytes)"), HasSubstr("too much"),
                    HasSubstr("--max-num-batched-tokens")));
}

// Slots for a quarter less than what is left: KV blocks get the rest.
TEST(MemoryPlan, ExpertsThatDoNotFitBecomeACache) {
  const CheckpointSummary summary = LargeSummary();
  for (const int64_t gib : {12, 40, 80, 95}) {
    const auto plan = Plan(LargeConfig(), summary, {}, gib * kGiB);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_GE(plan->num_expert_slots, 1) << gib;
    EXPECT_EQ(plan->expert_weight_bytes, plan->num_expert_slots * kExpertBytes);
    EXPECT_EQ(plan->all_expert_bytes, summary.expert_bytes);
    EXPECT_LE(plan->total_bytes(), plan->available_bytes - plan->available_bytes / 10);
    EXPECT_GE(plan->kv_cache_bytes, (plan->available_bytes - plan->total_bytes()) / 100) << gib;
  }
  const auto all = Plan(LargeConfig(), summary, {}, 120 * kGiB);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->num_expert_slots, 0);
  EXPECT_EQ(all->expert_weight_bytes, summary.expert_bytes);
}

// Both sides together never get more than they have at the start, and blocks always hold the longest sequence.
TEST(MemoryPlan, ASplitThatMayMoveStaysWithinWhatThereIs) {
  RunnerOptions options;
  EXPECT_FALSE(Plan(LargeConfig(), LargeSummary(), options, 40 * kGiB)->split.has_value());
  options.moves_memory = true;
  EXPECT_FALSE(Plan(LargeConfig(), LargeSummary(), options, 120 * kGiB)->split.has_value()) << "all experts fit";
  const auto plan = Plan(LargeConfig(), LargeSummary(), options, 40 * kGiB);
  ASSERT_TRUE(plan.ok() && plan->split.has_value()) << plan.status();
  const MemorySplitOptions& split = *plan->split;
  EXPECT_EQ(split.budget_bytes, plan->expert_weight_bytes + plan->kv_cache_bytes);
  EXPECT_EQ(split.slot_bytes, kExpertBytes);
  EXPECT_EQ(split.block_bytes * plan->num_kv_blocks, plan->kv_cache_bytes);
  EXPECT_EQ(split.min_blocks, 32768 / 16);
  EXPECT_EQ(split.min_slots, plan->num_expert_slots / 8);
  EXPECT_TRUE(CheckShares(split, {.slots = plan->num_expert_slots, .blocks = plan->num_kv_blocks}).ok());
  EXPECT_LE(split.max_slots * split.slot_bytes + split.min_blocks * split.block_bytes, split.budget_bytes);
  EXPECT_LE(split.min_slots * split.slot_bytes + split.max_blocks * split.block_bytes, split.budget_bytes);
  EXPECT_GT(split.max_slots, plan->num_expert_slots);
  EXPECT_GT(split.max_blocks, plan->num_kv_blocks);
  EXPECT_GE(split.step_slots, 1);
  options.kv_cache_bytes = 8 * kGiB;
  EXPECT_FALSE(Plan(LargeConfig(), LargeSummary(), options, 40 * kGiB)->split.has_value()) << "a size is given";
  options.kv_cache_bytes.reset();
  options.expert_cache_bytes = 8 * kGiB;
  EXPECT_FALSE(Plan(LargeConfig(), LargeSummary(), options, 40 * kGiB)->split.has_value()) << "a size is given";
}

TEST(MemoryPlan, AnExpertCacheOfAGivenSize) {
  const auto plan = [](int64_t cache_bytes, int64_t available_bytes) {
    RunnerOptions options;
    options.expert_cache_bytes = cache_bytes;
    return Plan(LargeConfig(), LargeSummary(), options, available_bytes);
  };
  EXPECT_EQ(plan(10 * kExpertBytes, 200 * kGiB)->num_expert_slots, 10);
  EXPECT_EQ(plan(11 * kExpertBytes - 1, 200 * kGiB)->num_expert_slots, 10);
  EXPECT_EQ(plan(kExpertBytes, 200 * kGiB)->num_expert_slots, 1);
  EXPECT_EQ(plan(84 * kGiB, 200 * kGiB)->num_expert_slots, 0);  // all of them
  EXPECT_EQ(plan(84 * kGiB - 1, 200 * kGiB)->num_expert_slots, (84 * kGiB - 1) / kExpertBytes);
  EXPECT_THAT(plan(kExpertBytes - 1, 200 * kGiB).status().message(),
              AllOf(HasSubstr("--expert-cache-gb asks for "), HasSubstr("one expert takes 336.00 MiB")));
  EXPECT_EQ(plan(80 * kGiB, 40 * kGiB).status().code(), absl::StatusCode::kResourceExhausted);
}

// A KV cache of a given size is taken as it is: the rest is the experts', to the last slot.
TEST(MemoryPlan, AGivenKvCacheLeavesTheRestToExperts) {
  RunnerOptions options;
  options.kv_cache_bytes = 4 * kGiB;
  const auto roomy = Plan(LargeConfig(), LargeSummary(), options, 93 * kGiB);
  ASSERT_TRUE(roomy.ok()) << roomy.status();
  EXPECT_EQ(roomy->num_expert_slots, 0) << "they fit, without any reserve";
  const auto tight = Plan(LargeConfig(), LargeSummary(), options, 60 * kGiB);
  ASSERT_TRUE(tight.ok()) << tight.status();
  EXPECT_LT(tight->available_bytes - tight->total_bytes(), kExpertBytes);
  options.kv_cache_bytes = 14 * kGiB;
  EXPECT_THAT(Plan(LargeConfig(), LargeSummary(), options, 16 * kGiB).status().message(),
              AllOf(HasSubstr("a KV cache of 14.00 GiB"), HasSubstr("(--kv-cache-gb)"), HasSubstr("no room")));
}

TEST(MemoryPlan, NoRoomForAnyExpert) {
  const auto plan = Plan(LargeConfig(), LargeSummary(), {}, 4 * kGiB);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(plan.status().message(), HasSubstr("no room for a single expert of 336.00 MiB"));
}

TEST(MemoryPlan, NoRoomForOneSequence) {
  EXPECT_THAT(
      PlanError({}, 99 * kGiB, absl::StatusCode::kResourceExhausted),
      AllOf(HasSubstr("one sequence may have 32768"), HasSubstr("--max-model-len"), HasSubstr("--kv-cache-gb")));
}

TEST(MemoryPlan, ExplicitKvCacheThatDoesNotFit) {
  RunnerOptions options;
  options.kv_cache_bytes = 64 * kGiB;
  EXPECT_THAT(PlanError(options, 100 * kGiB, absl::StatusCode::kResourceExhausted),
              AllOf(HasSubstr("--kv-cache-gb asks for 64.00 GiB"), HasSubstr("more than is left")));
}

TEST(MemoryPlan, ExplicitKvCacheSmallerThanABlock) {
  RunnerOptions options;
  options.kv_cache_bytes = 1000;
  EXPECT_THAT(PlanError(options, 100 * kGiB, absl::StatusCode::kResourceExhausted),
              AllOf(HasSubstr("1000 bytes"), HasSubstr("one block of 16 tokens takes 2.00 MiB (2097152 bytes)")));
}

TEST(MemoryPlan, OptionsOutOfRange) {
  const auto expect_out_of_range = [](const RunnerOptions& options, const std::string& message) {
    EXPECT_THAT(PlanError(options, 200 * kGiB, absl::StatusCode::kOutOfRange), HasSubstr(message));
  };
  RunnerOptions options;
  options.max_model_len = 32769;
  expect_out_of_range(options, "--max-model-len is 32769, must be 1 to max_position_embeddings of the model, 32768");
  options = {};
  options.max_model_len = -1;
  expect_out_of_range(options, "--max-model-len is -1");
  options = {};
  options.max_num_seqs = 0;
  expect_out_of_range(options, "--max-num-seqs is 0, must be 1 to");
  options = {};
  options.max_num_batched_tokens = std::numeric_limits<int32_t>::max();
  expect_out_of_range(options, "--max-num-batched-tokens is 2147483647");
  options = {};
  options.kv_block_size = -16;
  expect_out_of_range(options, "--kv-block-size is -16");
  options = {};
  options.kv_cache_bytes = 0;
  expect_out_of_range(options, "--kv-cache-gb asks for 0 bytes");
  options = {};
  options.kv_dtype = DType::kI32;
  expect_out_of_range(options, "--kv-cache-dtype is int32");
}

TEST(MemoryPlan, YarnReachesFurtherThanTheModelSays) {
  ModelConfig config = LargeConfig();
  config.rope.scaled_positions = 131072;
  RunnerOptions options;
  EXPECT_EQ(Plan(config, LargeSummary(), options, 200 * kGiB)->max_model_len, 32768);
  options.max_model_len = 131072;
  EXPECT_EQ(Plan(config, LargeSummary(), options, 200 * kGiB)->max_model_len, 131072);
  options.max_model_len = 131073;
  const auto plan = Plan(config, LargeSummary(), options, 200 * kGiB);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(plan.status().message()),
              HasSubstr("--max-model-len is 131073, must be 1 to factor * original_max_position_embeddings of the "
                        "model, 131072"));
}

TEST(MemoryPlan, AssignmentsOfAStepAreNumberedInInt32) {
  ModelConfig config = LargeConfig();
  config.num_experts = 4096;
  config.router.top_k = 2048;
  RunnerOptions options;
  options.max_num_batched_tokens = 1 << 20;
  const auto plan = Plan(config, LargeSummary(), options, 200 * kGiB);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(plan.status().message()),
              AllOf(HasSubstr("--max-num-batched-tokens is 1048576"),
                    HasSubstr("num_experts_per_tok of the model, 2048"), HasSubstr("at most 2147483647")));
}

// All bits of the largest size_t, taken as a signed number, are -1.
// Only where experts choose does a step need room for a group beside all sequences.
TEST(MemoryPlan, AGroupOfAPromptFitsInAStep) {
  const auto plan = [](int32_t group, int32_t max_num_seqs, int32_t max_num_batched_tokens) {
    ModelConfig config = LargeConfig();
    config.routing.origin = "here";
    config.routing.expert_choice.group = group;
    RunnerOptions options;
    options.max_num_seqs = max_num_seqs;
    options.max_num_batched_tokens = max_num_batched_tokens;
    return Plan(config, LargeSummary(), options, 200 * kGiB);
  };
  EXPECT_TRUE(plan(0, 16, 7).ok()) << plan(0, 16, 7).status();
  EXPECT_TRUE(plan(64, 16, 80).ok()) << plan(64, 16, 80).status();
  EXPECT_THAT(plan(64, 16, 79).status().message(), HasSubstr("here: group is 64, must be at most"));
}

TEST(MemoryPlan, ADeviceThatDoesNotKnowItsMemory) {
  RunnerOptions options;
  options.max_model_len = 64;
  const auto plan = Plan(LargeConfig(), LargeSummary(), options, -1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->available_bytes, std::numeric_limits<int64_t>::max());
}

TEST(MemoryPlan, WorkspaceCountsTheHost) {
  const ModelConfig config = LargeConfig();
  RunnerOptions options;
  options.max_model_len = 64;
  options.max_num_seqs = 5;
  PaperDevice device(200 * kGiB);
  const auto plan = PlanMemory(config, LargeSummary(), options, device, device.ops());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const int64_t activations = Workspace::SizeBytes(config, options.max_num_batched_tokens, /*head_rows=*/5);
  const int64_t arena = StepArena::SizeBytes(config, MakeStepLimits(config, options, 64, device.ops()));
  const auto scratch = static_cast<int64_t>(device.ops().ScratchBytes(MakeOpsLimits(config, options, 64)));
  const int64_t logits = 5 * 32000 * 4;
  const int64_t sampler = 32000 * kSamplerBytesPerLogit;
  const int64_t places_taken = 32 * 5 * 8 * 4;  // of 8 experts in 32 layers, by 5 sequences
  EXPECT_EQ(plan->workspace_bytes, activations + 2 * arena + places_taken + scratch + logits + sampler);
}

// What steps of 1,000 rows take more because of one option.
int64_t AddedWorkspace(int64_t RunnerOptions::*option, int64_t value) {
  RunnerOptions options;
  options.max_num_batched_tokens = 1000;
  const auto without = Plan(LargeConfig(), LargeSummary(), options, 120 * kGiB);
  EXPECT_TRUE(without.ok()) << without.status();
  options.*option = value;
  const auto with = Plan(LargeConfig(), LargeSummary(), options, 120 * kGiB);
  EXPECT_TRUE(with.ok()) << with.status();
  return with.ok() && without.ok() ? with->workspace_bytes - without->workspace_bytes : 0;
}

// Counters of a profile, and the choices of the largest step that it looks at: 32 layers, 2 experts a token, 4 bytes.
TEST(MemoryPlan, AProfileOfRoutingIsPlannedFor) {
  EXPECT_EQ(AddedWorkspace(&RunnerOptions::profile_bytes, 5'000'000), 5'000'000 + 32 * 2 * 4 * 1000);
}

// Records in flight, and the rows of the largest step: 32 layers, 2 experts a token, 8 bytes.
TEST(MemoryPlan, RecordedChoicesArePlannedFor) {
  EXPECT_EQ(AddedWorkspace(&RunnerOptions::replay_bytes, 5'000'000), 5'000'000 + 32 * 2 * 8 * 1000);
}

// Sizes whose products do not fit into 64 bits must read "too large", not wrap around into "fits".
TEST(MemoryPlan, SaturatesInsteadOfWrapping) {
  ModelConfig config = LargeConfig();
  config.hidden_size = int64_t{1} << 40;
  config.vocab_size = int64_t{1} << 40;
  EXPECT_EQ(Workspace::SizeBytes(config, 1 << 20, 1 << 16), std::numeric_limits<int64_t>::max());
  config.num_kv_heads = int64_t{1} << 40;
  config.head_dim = int64_t{1} << 30;
  EXPECT_EQ(MakeKvCacheShape(config, 1, 16, DType::kF32).BytesPerBlock(), std::numeric_limits<int64_t>::max());
}

// The workspace of the plan is what the runner takes: it grows with the step, and a small step fits into a large one.
TEST(MemoryPlan, WorkspaceGrowsWithTheStep) {
  const ModelConfig config = LargeConfig();
  int64_t before = 0;
  for (int64_t tokens : {1, 2, 3, 17, 64, 1000, 2048}) {
    const int64_t bytes = Workspace::SizeBytes(config, tokens, /*head_rows=*/1);
    EXPECT_GT(bytes, before) << tokens;
    before = bytes;
  }
  // Logits of 64 rows are larger than the activations of one token.
  EXPECT_GE(Workspace::SizeBytes(config, 1, 64), 64 * config.vocab_size * 4);
}

}  // namespace
}  // namespace cadre
