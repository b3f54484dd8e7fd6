// A cache of experts changes no output: whatever its size, its policy and what was in it before. What cannot be read
// concerns those who need it, and nobody else.
#include "engine/model/cached_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "engine/experts/expert_stats.h"
#include "engine/model/transformer_runner.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/memory_experts.h"
#include "tests/support/random_model.h"

namespace cadre {
namespace {

using testing::HasSubstr;

constexpr int32_t kBlockSize = 4;
constexpr int32_t kNumSequences = 5;
constexpr int32_t kBlocksPerSequence = 8;
constexpr uint64_t kSeed = 5;

struct Model {
  std::unique_ptr<Device> device;
  std::unique_ptr<ModelRunner> runner;
  MemoryExperts* experts = nullptr;
  ModelConfig config;

  int64_t num_experts() const { return config.num_moe_layers() * config.num_experts; }
};

// All experts are in memory if `num_slots` is 0.
Model MakeModel(ModelFamily family, int64_t num_slots, EvictionPolicyKind policy = EvictionPolicyKind::kLru,
                DType dtype = DType::kF32, int num_ahead_threads = 0) {
  Model model;
  model.config = SmallConfig(family);
  model.device = CreateCpuDevice({.num_threads = 2}).value();
  RunnerOptions options;
  options.max_model_len = kBlockSize * kBlocksPerSequence;
  options.max_num_seqs = kNumSequences;
  options.max_num_batched_tokens = 64;
  options.kv_block_size = kBlockSize;
  options.expert_policy = policy;
  options.expert_ahead_threads = num_ahead_threads;
  if (num_slots > 0) options.expert_cache_bytes = num_slots * ExpertLayout(model.config, dtype).size_bytes();
  model.runner = MakeRandomRunner(model.config, dtype, kSeed, options, model.device.get(), &model.experts);
  EXPECT_EQ(model.runner->expert_cache().has_value(), num_slots > 0);
  return model;
}

// A step of `lengths[s]` new tokens for each sequence of `sequences`, whose positions go on from `done[s]`.
ForwardBatch MakeStep(const std::vector<int32_t>& sequences, std::vector<int32_t>& done,
                      const std::vector<int32_t>& lengths, std::mt19937& rng) {
  ForwardBatch batch;
  batch.num_sequences = static_cast<int32_t>(sequences.size());
  batch.max_blocks = kBlocksPerSequence;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto s = static_cast<size_t>(sequences[i]);
    for (int32_t block = 0; block < kBlocksPerSequence; ++block) {
      batch.block_tables.push_back(sequences[i] * kBlocksPerSequence + block);
    }
    for (int32_t n = 0; n < lengths[i]; ++n) {
      batch.logit_rows.push_back(batch.num_tokens());
      batch.token_ids.push_back(static_cast<int32_t>(rng() % 101));
      batch.row_sequence.push_back(static_cast<int32_t>(i));
      batch.positions.push_back(done[s]);
      batch.kv_slots.push_back(sequences[i] * kBlocksPerSequence * kBlockSize + done[s]);
      ++done[s];
    }
  }
  return batch;
}

std::vector<ForwardBatch> MakeSteps(const std::vector<int32_t>& sequences, int num_steps) {
  std::mt19937 rng(1);
  std::vector<int32_t> done(kNumSequences);
  std::vector<ForwardBatch> steps;
  for (int step = 0; step < num_steps; ++step) {
    const int32_t length = step == 0 ? 7 : 1 + static_cast<int32_t>(rng() % 2);
    steps.push_back(MakeStep(sequences, done, std::vector<int32_t>(sequences.size(), length), rng));
  }
  return steps;
}

const std::vector<int32_t> kAll = {0, 1, 2, 3, 4};

class CachedExpertsTest : public testing::TestWithParam<std::tuple<ModelFamily, EvictionPolicyKind, DType>> {};

TEST_P(CachedExpertsTest, NoSizeChangesABit) {
  const auto [family, policy, dtype] = GetParam();
  const Model resident = MakeModel(family, 0, policy, dtype);
  const std::vector<ForwardBatch> steps = MakeSteps(kAll, 8);
  std::vector<ForwardResult> expected(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) ASSERT_TRUE(resident.runner->Forward(steps[i], &expected[i]).ok());
  for (int64_t num_slots = 1; num_slots < resident.num_experts(); ++num_slots) {
    SCOPED_TRACE(num_slots);
    const Model cached = MakeModel(family, num_slots, policy, dtype);
    int64_t touched = 0;
    for (size_t i = 0; i < steps.size(); ++i) {
      ForwardResult found;
      ASSERT_TRUE(cached.runner->Forward(steps[i], &found).ok());
      ASSERT_EQ(found.logits, expected[i].logits) << "step " << i;
      EXPECT_EQ(found.routing.assignments, expected[i].routing.assignments);
      EXPECT_TRUE(found.faults.empty());
      touched += std::ranges::count_if(found.routing.assignments, [](int64_t n) { return n > 0; });
    }
    const ExpertCacheReport report = *cached.runner->expert_cache();
    EXPECT_EQ(report.num_slots, num_slots);
    EXPECT_EQ(report.slots.hits + report.slots.misses, touched);
    EXPECT_EQ(report.slots.loads_done, report.slots.misses);
    EXPECT_EQ(report.loads.bytes, report.slots.loads_done * cached.experts->expert_bytes());
    EXPECT_GT(report.slots.evictions, 0);
    EXPECT_EQ(report.pinned_slots, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, CachedExpertsTest,
    testing::Combine(testing::Values(ModelFamily::kOlmoe, ModelFamily::kQwen2Moe, ModelFamily::kQwen3Moe),
                     testing::Values(EvictionPolicyKind::kLru, EvictionPolicyKind::kLfu, EvictionPolicyKind::kLfru,
                                     EvictionPolicyKind::kLeastStale, EvictionPolicyKind::kNextUse),
                     testing::Values(DType::kF32, DType::kBF16)),
    [](const auto& param_info) {
      std::string name = std::string(ModelFamilyName(std::get<0>(param_info.param))) + "_" +
                         std::string(EvictionPolicyName(std::get<1>(param_info.param))) + "_" +
                         std::string(DTypeName(std::get<2>(param_info.param)));
      std::ranges::replace(name, '-', '_');
      return name;
    });

// What is read ahead changes when experts come, and nothing else.
TEST(CachedExpertsPrefetchTest, NoPrefetchChangesABit) {
  int64_t num_prefetches = 0;
  for (const ModelFamily family : {ModelFamily::kOlmoe, ModelFamily::kMixtral, ModelFamily::kQwen2Moe}) {
    SCOPED_TRACE(ModelFamilyName(family));
    const Model resident = MakeModel(family, 0);
    const std::vector<ForwardBatch> steps = MakeSteps(kAll, 12);
    std::vector<ForwardResult> expected(steps.size());
    for (size_t i = 0; i < steps.size(); ++i) ASSERT_TRUE(resident.runner->Forward(steps[i], &expected[i]).ok());
    for (int64_t num_slots = 1; num_slots < resident.num_experts(); ++num_slots) {
      SCOPED_TRACE(num_slots);
      const Model cached = MakeModel(family, num_slots, EvictionPolicyKind::kNextUse, DType::kF32, 2);
      int64_t touched = 0;
      for (size_t i = 0; i < steps.size(); ++i) {
        ForwardResult found;
        ASSERT_TRUE(cached.runner->Forward(steps[i], &found).ok());
        ASSERT_EQ(found.logits, expected[i].logits) << "step " << i;
        touched += std::ranges::count_if(found.routing.assignments, [](int64_t n) { return n > 0; });
      }
      const ExpertCacheReport report = *cached.runner->expert_cache();
      EXPECT_EQ(report.slots.hits + report.slots.misses, touched);
      EXPECT_LE(report.slots.prefetches_used + report.slots.prefetches_late + report.slots.prefetches_wasted,
                report.slots.prefetch_loads);
      num_prefetches += report.slots.prefetch_loads;
    }
  }
  EXPECT_GT(num_prefetches, 0);
}

std::vector<float> RowsOf(const ForwardBatch& batch, const ForwardResult& result, int32_t sequence) {
  std::vector<float> rows;
  const size_t vocab = result.logits.size() / batch.logit_rows.size();
  for (size_t row = 0; row < batch.row_sequence.size(); ++row) {
    if (batch.row_sequence[row] != sequence) continue;
    const auto begin = result.logits.begin() + static_cast<std::ptrdiff_t>(row * vocab);
    rows.insert(rows.end(), begin, begin + static_cast<std::ptrdiff_t>(vocab));
  }
  return rows;
}

// The sequences of `batch` that `expert` of the first layer takes rows of.
std::vector<bool> UsersOf(int32_t expert, const ForwardBatch& batch, const ForwardResult& result, int64_t top_k) {
  std::vector<bool> users(static_cast<size_t>(batch.num_sequences));
  for (size_t a = 0; a < batch.row_sequence.size() * static_cast<size_t>(top_k); ++a) {
    if (result.expert_ids[a] == expert) {
      users[static_cast<size_t>(batch.row_sequence[a / static_cast<size_t>(top_k)])] = true;
    }
  }
  return users;
}

TEST(CachedExpertsFaultTest, WhoDoesNotNeedTheExpertSeesNothing) {
  const Model resident = MakeModel(ModelFamily::kOlmoe, 0);
  std::vector<ForwardBatch> steps = MakeSteps(kAll, 1);
  steps.front().keep_expert_ids = true;
  ForwardResult expected;
  ASSERT_TRUE(resident.runner->Forward(steps.front(), &expected).ok());
  int64_t num_hurt = 0;
  int64_t num_unhurt = 0;
  for (int32_t expert = 0; expert < resident.config.num_experts; ++expert) {
    SCOPED_TRACE(expert);
    const Model cached = MakeModel(ModelFamily::kOlmoe, 6);
    cached.experts->Fail(expert, absl::InternalError("the disk is on fire"), /*times=*/1000);
    ForwardResult found;
    ASSERT_TRUE(cached.runner->Forward(steps.front(), &found).ok());
    const std::vector<bool> users = UsersOf(expert, steps.front(), expected, resident.config.router.top_k);
    std::vector<bool> hurt(users.size());
    for (const SequenceFault& fault : found.faults) {
      EXPECT_FALSE(hurt[static_cast<size_t>(fault.sequence)]) << "told twice";
      hurt[static_cast<size_t>(fault.sequence)] = true;
      EXPECT_EQ(fault.status.code(), absl::StatusCode::kUnavailable);
      EXPECT_THAT(fault.status.message(), HasSubstr("cannot be read: the disk is on fire"));
    }
    EXPECT_EQ(hurt, users);
    for (int32_t s = 0; s < kNumSequences; ++s) {
      if (users[static_cast<size_t>(s)]) {
        ++num_hurt;
      } else {
        ++num_unhurt;
        EXPECT_EQ(RowsOf(steps.front(), found, s), RowsOf(steps.front(), expected, s));
      }
    }
    // Every assignment is in one state; those to the missing expert are dropped.
    const StepRouting& routing = found.routing;
    ASSERT_EQ(routing.is_limited(), !found.faults.empty());
    if (!routing.is_limited()) continue;
    EXPECT_EQ(std::reduce(routing.states.begin(), routing.states.end()),
              std::reduce(routing.assignments.begin(), routing.assignments.end()));
    const auto num_experts = static_cast<size_t>(routing.num_experts);
    const auto dropped = static_cast<size_t>(AssignmentState::kDropped) * num_experts;
    EXPECT_EQ(routing.states[dropped + static_cast<size_t>(expert)],
              expected.routing.assignments[static_cast<size_t>(expert)]);
    EXPECT_DOUBLE_EQ(routing.lost_gate_weight[static_cast<size_t>(expert)],
                     expected.routing.gate_weight[static_cast<size_t>(expert)]);
    EXPECT_NEAR(std::reduce(routing.sequence_lost_gate_weight.begin(), routing.sequence_lost_gate_weight.end()),
                std::reduce(routing.lost_gate_weight.begin(), routing.lost_gate_weight.end()), 1e-9);
  }
  EXPECT_GT(num_hurt, 0);
  EXPECT_GT(num_unhurt, 0);
}

// Shared ones whole for everybody, those that could not be read for nobody.
TEST(CachedExpertsReportTest, SequencesHaveTheBytesOfTheExpertsThatTheyMissed) {
  for (const bool has_fault : {false, true}) {
    SCOPED_TRACE(has_fault);
    // With one slot nothing is there when a layer begins.
    const Model cached = MakeModel(ModelFamily::kOlmoe, 1);
    if (has_fault) cached.experts->Fail(/*expert=*/2, absl::InternalError("the disk is on fire"), /*times=*/1000);
    absl::Duration waited;
    for (ForwardBatch& step : MakeSteps(kAll, 3)) {
      step.keep_choices = true;
      ForwardResult result;
      ASSERT_TRUE(cached.runner->Forward(step, &result).ok());
      std::vector<std::set<int32_t>> needed(kNumSequences);  // over both layers
      const auto top_k = static_cast<size_t>(cached.config.router.top_k);
      for (size_t i = 0; i < result.chosen_ids.size(); ++i) {
        const size_t row = i / top_k % step.row_sequence.size();
        const auto layer = static_cast<int32_t>(i / top_k / step.row_sequence.size());
        const auto id = layer * static_cast<int32_t>(cached.config.num_experts) + result.chosen_ids[i];
        if (!has_fault || id != 2) needed[static_cast<size_t>(step.row_sequence[row])].insert(id);
      }
      ASSERT_EQ(result.cache_uses.size(), needed.size());
      for (size_t s = 0; s < needed.size(); ++s) {
        EXPECT_EQ(result.cache_uses[s].bytes, std::ssize(needed[s]) * cached.experts->expert_bytes()) << s;
        EXPECT_EQ(result.cache_uses[s].hits, 0);
      }
      EXPECT_GT(result.expert_wait, absl::ZeroDuration());
      waited += result.expert_wait;
    }
    EXPECT_EQ(waited, cached.runner->expert_cache()->wait_time);
    const std::vector<absl::Duration> waits = cached.runner->expert_placement()->waits;
    EXPECT_EQ(std::accumulate(waits.begin(), waits.end(), absl::Duration()), waited);
    EXPECT_EQ(waits.size(), 2u);
  }
}

// What others left in the memory of outputs does not come in where nothing was computed.
TEST(CachedExpertsFaultTest, WhatIsMissingIsNotMixedIn) {
  const ForwardBatch step = MakeSteps(kAll, 1).front();
  const Model without = MakeModel(ModelFamily::kOlmoe, 1);
  without.experts->SetZero(2);
  ForwardResult expected;
  ASSERT_TRUE(without.runner->Forward(step, &expected).ok());
  ASSERT_TRUE(expected.faults.empty());
  const Model cached = MakeModel(ModelFamily::kOlmoe, 1);
  cached.experts->Fail(2, absl::InternalError("the disk is on fire"), /*times=*/1000);
  ForwardResult found;
  ASSERT_TRUE(cached.runner->Forward(step, &found).ok());
  EXPECT_FALSE(found.faults.empty());
  EXPECT_EQ(found.logits, expected.logits);
}

// Whatever limits had made of an assignment, it is lost once, with the weight that the router gave it.
TEST(CachedExpertsFaultTest, LimitsAndMissingExpertsAddUp) {
  for (const Overflow overflow : {Overflow::kDrop, Overflow::kReweight, Overflow::kReroute}) {
    SCOPED_TRACE(static_cast<int>(overflow));
    const Model cached = MakeModel(ModelFamily::kOlmoe, 4);
    cached.experts->Fail(1, absl::InternalError("the disk is on fire"), /*times=*/1000);
    ForwardBatch step = MakeSteps(kAll, 1).front();
    for (int32_t s = 0; s < kNumSequences; ++s) {
      step.capacity.push_back(
          {.scope = CapacityScope::kRequest, .overflow = overflow, .places = 2, .group = 8, .slot = s});
    }
    ForwardResult found;
    ASSERT_TRUE(cached.runner->Forward(step, &found).ok());
    ASSERT_FALSE(found.faults.empty());
    const StepRouting& routing = found.routing;
    EXPECT_TRUE(std::ranges::all_of(routing.states, [](int64_t count) { return count >= 0; }));
    EXPECT_EQ(std::reduce(routing.states.begin(), routing.states.end()),
              std::reduce(routing.assignments.begin(), routing.assignments.end()));
    for (size_t s = 0; s < kNumSequences; ++s) {
      EXPECT_LE(routing.sequence_lost_gate_weight[s], routing.sequence_gate_weight[s] * (1 + 1e-6));
      const auto begin = routing.sequence_states.begin() + static_cast<std::ptrdiff_t>(s * kNumAssignmentStates);
      EXPECT_EQ(std::accumulate(begin, begin + kNumAssignmentStates, int64_t{0}), routing.sequence_assignments[s]);
    }
    ExpertStats stats(routing.num_layers, routing.num_experts, routing.top_k, 4096);
    stats.Record(routing);  // ends the process if anything does not add up
  }
}

TEST(CachedExpertsFaultTest, AReadThatFailsNowAndThenHurtsNobody) {
  const Model resident = MakeModel(ModelFamily::kMixtral, 0);
  const Model cached = MakeModel(ModelFamily::kMixtral, 3);
  const std::vector<ForwardBatch> steps = MakeSteps(kAll, 8);
  for (const ForwardBatch& step : steps) {
    for (int32_t id = 0; id < cached.num_experts(); ++id) {
      cached.experts->Fail(id, absl::DataLossError("a bad sector"), /*times=*/id % 3);
    }
    ForwardResult expected;
    ForwardResult found;
    ASSERT_TRUE(resident.runner->Forward(step, &expected).ok());
    ASSERT_TRUE(cached.runner->Forward(step, &found).ok());
    EXPECT_EQ(found.logits, expected.logits);
    EXPECT_TRUE(found.faults.empty());
  }
  EXPECT_GT(cached.runner->expert_cache()->loads.errors, 0);
}

}  // namespace
}  // namespace cadre
