#include "engine/request/routing_replay.h"

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/request/refusal.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cadre {
namespace {

using testing::HasSubstr;

// Two positions of a model of 2 layers, 5 experts and K = 3.
RoutingReplay Sound() {
  return {.first_position = 4,
          .uses_recorded_weights = true,
          .record = {.num_layers = 2,
                     .top_k = 3,
                     .expert_ids = {0, 1, 2, 3, 4, 0, 4, 2, 1, 1, 0, 3},
                     .weights = std::vector<float>(12, 0.25f)}};
}
ReplayBounds Bounds() { return {.num_layers = 2, .num_experts = 5, .top_k = 3, .min_k = 3, .num_positions = 6}; }

void ExpectFault(const RoutingReplay& replay, const ReplayBounds& bounds, const std::string& field,
                 const std::string& problem) {
  const auto fault = FindReplayFault(replay, bounds);
  ASSERT_TRUE(fault.has_value()) << field << ": " << problem;
  EXPECT_EQ(fault->field, field);
  EXPECT_THAT(fault->problem, HasSubstr(problem));
}

TEST(RoutingReplayTest, WhatFitsIsTaken) {
  EXPECT_FALSE(FindReplayFault(Sound(), Bounds()).has_value());
  EXPECT_EQ(Sound().num_positions(), 2);
  RoutingReplay replay = Sound();
  replay.uses_recorded_weights = false;
  EXPECT_FALSE(FindReplayFault(replay, Bounds()).has_value());
  replay.record.weights.clear();
  EXPECT_FALSE(FindReplayFault(replay, Bounds()).has_value());
  replay = Sound();
  replay.record.weights[3] = kMaxReplayWeight;
  replay.record.weights[4] = 0.0f;
  EXPECT_FALSE(FindReplayFault(replay, Bounds()).has_value());
}

TEST(RoutingReplayTest, ShapesAreChecked) {
  RoutingReplay replay = Sound();
  replay.record.num_layers = 3;
  ExpectFault(replay, Bounds(), "record.num_layers", "3, the model has 2");
  replay = Sound();
  replay.record.top_k = 2;
  ExpectFault(replay, Bounds(), "record.top_k", "2, a token has 3");
  replay = Sound();
  replay.record.expert_ids.pop_back();
  ExpectFault(replay, Bounds(), "record.expert_ids", "11 ids");
  replay.record.expert_ids.clear();
  replay.record.weights.clear();
  ExpectFault(replay, Bounds(), "record.expert_ids", "0 ids");
  replay = Sound();
  replay.record.weights.pop_back();
  ExpectFault(replay, Bounds(), "record.weights", "11 weights for 12 ids");
  replay.uses_recorded_weights = false;
  ExpectFault(replay, Bounds(), "record.weights", "11 weights for 12 ids");
  replay = Sound();
  replay.record.weights.clear();
  ExpectFault(replay, Bounds(), "record.weights", "0 weights for 12 ids");
}

TEST(RoutingReplayTest, PositionsAreThoseOfTheRequest) {
  RoutingReplay replay = Sound();
  replay.first_position = -1;
  ExpectFault(replay, Bounds(), "record.first_position", "-1 is less than 0");
  replay.first_position = 5;
  ExpectFault(replay, Bounds(), "record.expert_ids", "positions 5 to 6, the request computes 0 to 5");
  replay.first_position = std::numeric_limits<int32_t>::max();
  ExpectFault(replay, Bounds(), "record.expert_ids", "positions 2147483647 to 2147483648");
  replay.first_position = 0;
  EXPECT_FALSE(FindReplayFault(replay, Bounds()).has_value());
}

TEST(RoutingReplayTest, ExpertsStandOnceAndInFront) {
  RoutingReplay replay = Sound();
  replay.record.expert_ids[7] = 5;
  ExpectFault(replay, Bounds(), "record.expert_ids[7]", "5 is not in [0, 5)");
  replay.record.expert_ids[7] = -2;
  ExpectFault(replay, Bounds(), "record.expert_ids[7]", "-2 is not in [0, 5)");
  replay.record.expert_ids[7] = 4;
  ExpectFault(replay, Bounds(), "record.expert_ids[7]", "expert 4 twice");
  replay.record.expert_ids[7] = kNoExpert;
  replay.record.weights[7] = 0.0f;
  ExpectFault(replay, Bounds(), "record.expert_ids[8]", "expert 1 stands behind -1");
  replay.record.expert_ids[8] = kNoExpert;
  replay.record.weights[8] = 0.0f;
  ExpectFault(replay, Bounds(), "record.expert_ids[6]",
              "1 experts for a token in a layer, this model's router chooses 3");
  ReplayBounds varying = Bounds();
  varying.min_k = 1;
  EXPECT_FALSE(FindReplayFault(replay, varying).has_value());
  replay.record.weights[8] = 0.5f;
  ExpectFault(replay, varying, "record.weights[8]", "0.5 without an expert");
  replay.record.weights[8] = 0.0f;
  replay.record.expert_ids[6] = kNoExpert;
  replay.record.weights[6] = 0.0f;
  ExpectFault(replay, varying, "record.expert_ids[6]",
              "0 experts for a token in a layer, this model's router chooses at least 1");
  varying.min_k = 0;
  EXPECT_FALSE(FindReplayFault(replay, varying).has_value());
}

TEST(RoutingReplayTest, WeightsAreNumbersOfARange) {
  for (const float weight : {-0.25f, 2e6f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    RoutingReplay replay = Sound();
    replay.record.weights[11] = weight;
    ExpectFault(replay, Bounds(), "record.weights[11]", "is not in [0, 1e+06]");
    replay.uses_recorded_weights = false;
    ExpectFault(replay, Bounds(), "record.weights[11]", "is not in [0, 1e+06]");
  }
}

TEST(RoutingReplayTest, WhereExpertsChooseOnlyRecordedWeightsAreKnown) {
  ReplayBounds bounds = Bounds();
  bounds.experts_choose = true;
  bounds.min_k = 0;
  EXPECT_FALSE(FindReplayFault(Sound(), bounds).has_value());
  RoutingReplay replay = Sound();
  replay.uses_recorded_weights = false;
  ExpectFault(replay, bounds, "weights", "only recorded weights");
}

TEST(ReplayMemoryTest, RecordsAreChargedWhileTheyLive) {
  const auto replay = std::make_shared<const RoutingReplay>(Sound());
  ASSERT_EQ(replay->size_bytes(), 12 * 8);
  auto memory = std::make_unique<ReplayMemory>(2 * 96 + 95, /*max_tenant_share=*/1.0);
  auto first = memory->Charge(replay, "").value();
  auto copy = first;
  auto second = memory->Charge(replay, "").value();
  EXPECT_EQ(second->record.expert_ids, replay->record.expert_ids);
  const absl::Status refused = memory->Charge(replay, "").status();
  EXPECT_EQ(RefusalOf(refused), Refusal::kQueueFull) << "95 bytes are left";
  EXPECT_EQ(refused.message(),
            "the recorded choices of the request take 96 bytes, and those in flight 192, the limit is 287");
  EXPECT_EQ(memory->bytes_in_use(), 2 * 96);
  first.reset();
  EXPECT_EQ(memory->bytes_in_use(), 2 * 96) << "there is a copy";
  copy.reset();
  EXPECT_EQ(memory->bytes_in_use(), 96);
  EXPECT_TRUE(memory->Charge(replay, "").ok());
  memory.reset();
  EXPECT_EQ(second->num_positions(), 2);
}

TEST(ReplayMemoryTest, ATenantHasItsShare) {
  const auto replay = std::make_shared<const RoutingReplay>(Sound());
  ReplayMemory memory(8 * 96, /*max_tenant_share=*/0.25);
  auto first = memory.Charge(replay, "a").value();
  const auto second = memory.Charge(replay, "a").value();
  const absl::Status refused = memory.Charge(replay, "a").status();
  EXPECT_EQ(RefusalOf(refused), Refusal::kTenantShare);
  EXPECT_EQ(refused.message(),
            "the recorded choices of the request take 96 bytes, and the tenant's in flight 192, its share is 192");
  EXPECT_EQ(memory.bytes_in_use(), 2 * 96) << "what is refused is not charged";
  const auto of_b = memory.Charge(replay, "b").value();
  std::vector<std::shared_ptr<const RoutingReplay>> unnamed;
  for (int i = 0; i < 4; ++i) unnamed.push_back(memory.Charge(replay, "").value());
  first.reset();
  EXPECT_TRUE(memory.Charge(replay, "a").ok());
  ReplayMemory small(96, /*max_tenant_share=*/0.01);
  EXPECT_TRUE(small.Charge(replay, "a").ok()) << "one record is nobody's whole memory";
}

// What is refused takes nothing from others, not even for a moment.
TEST(ReplayMemoryTest, ALargeRecordThatIsRefusedIsInNobodysWay) {
  RoutingReplay large = Sound();
  large.record.expert_ids.resize(100'000);
  const auto refused = std::make_shared<const RoutingReplay>(std::move(large));
  const auto small = std::make_shared<const RoutingReplay>(Sound());
  ReplayMemory memory(2 * 96, /*max_tenant_share=*/1.0);
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) EXPECT_FALSE(memory.Charge(refused, "").ok());
  });
  int failures = 0;
  for (int i = 0; i < 100'000; ++i) failures += memory.Charge(small, "").ok() ? 0 : 1;
  done = true;
  other.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace cadre
