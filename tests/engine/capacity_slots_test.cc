// Who has which slot, and what a step is told of limits.
#include "engine/capacity_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kGroup = 8;
constexpr RunnerLimits kLimits = {.num_experts = 4, .top_k = 2, .max_capacity_slots = 3};
constexpr CapacityPolicy kOff;
constexpr CapacityPolicy kRequest = {.scope = CapacityScope::kRequest,
                                     .overflow = Overflow::kReroute,
                                     .factor = 1.5,
                                     .min_places = 2,
                                     .group_tokens = kGroup};
constexpr CapacityPolicy kBatch = {.scope = CapacityScope::kBatch, .factor = 0.5, .min_places = 0};

TEST(CapacitySlotsTest, ASequenceKeepsItsSlotUntilItIsReleased) {
  CapacitySlots slots(2);
  EXPECT_EQ(slots.Take({.sequence = 7, .begin = 0, .count = 5}, kGroup), 0);
  EXPECT_EQ(slots.Take({.sequence = 9, .begin = 16, .count = 1}, kGroup), 1) << "behind a cached prompt";
  EXPECT_EQ(slots.Take({.sequence = 7, .begin = 5, .count = 9}, kGroup), 0);
  EXPECT_EQ(slots.num_in_use(), 2);
  slots.Release(7);
  slots.Release(7);
  EXPECT_FALSE(slots.Has(7));
  EXPECT_EQ(slots.Take({.sequence = 8, .begin = 0, .count = 1}, kGroup), 0);
  EXPECT_EQ(slots.Take({.sequence = 9, .begin = 17, .count = 1}, kGroup), 1);
  slots.Release(9);
  EXPECT_EQ(slots.Take({.sequence = 9, .begin = 8, .count = 10}, kGroup), 1) << "after a preemption";
}

TEST(CapacitySlotsDeathTest, PlacesThatNobodyCountedEndTheProcess) {
  CapacitySlots slots(2);
  EXPECT_DEATH(slots.Take({.sequence = 1, .begin = 4, .count = 1}, kGroup), "check failed");
  slots.Take({.sequence = 1, .begin = 0, .count = 4}, kGroup);
  EXPECT_DEATH(slots.Take({.sequence = 1, .begin = 5, .count = 1}, kGroup), "check failed");
  EXPECT_DEATH(slots.Take({.sequence = 1, .begin = 0, .count = 1}, kGroup), "check failed");
  slots.Take({.sequence = 2, .begin = 0, .count = 4}, kGroup);
  EXPECT_DEATH(slots.Take({.sequence = 3, .begin = 0, .count = 4}, kGroup), "check failed") << "there are two";
}

TEST(BuildCapacityTest, EachSequenceIsLimitedByItsOwnPolicy) {
  StepPlan plan;
  plan.chunks = {{.sequence = 1, .begin = 0, .count = 3},
                 {.sequence = 2, .begin = 0, .count = 10},
                 {.sequence = 3, .begin = 8, .count = 1},
                 {.sequence = 4, .begin = 2, .count = 20}};
  CapacitySlots slots(kLimits.max_capacity_slots);
  ForwardBatch batch;
  BuildCapacity(plan, std::vector{kOff, kBatch, kRequest, kBatch}, kLimits, &slots, &batch);
  ASSERT_EQ(batch.capacity.size(), 4u);
  EXPECT_EQ(batch.capacity[0].scope, CapacityScope::kOff);
  // ceil(0.5 * 30 * 2 / 4): the rows that are limited so.
  EXPECT_THAT((std::vector{batch.capacity[1].places, batch.capacity[3].places}), ElementsAre(8, 8));
  EXPECT_EQ(batch.capacity[2].scope, CapacityScope::kRequest);
  EXPECT_EQ(batch.capacity[2].overflow, Overflow::kReroute);
  EXPECT_EQ(batch.capacity[2].places, 6);  // ceil(1.5 * 8 * 2 / 4), however few rows there are
  EXPECT_EQ(batch.capacity[2].group, kGroup);
  EXPECT_EQ(batch.capacity[2].slot, 0);
  EXPECT_EQ(slots.num_in_use(), 1) << "a batch counts for itself";

  plan.chunks = {{.sequence = 1, .begin = 3, .count = 1}};
  BuildCapacity(plan, std::vector{kOff}, kLimits, &slots, &batch);
  EXPECT_THAT(batch.capacity, IsEmpty());
}

// A step that limits nobody may be recorded: who asks for more places than rows must not keep others from that.
TEST(BuildCapacityTest, LimitsThatCannotBindAreNone) {
  StepPlan plan;
  plan.chunks = {{.sequence = 1, .begin = 0, .count = 3}, {.sequence = 2, .begin = 0, .count = 10}};
  CapacitySlots slots(kLimits.max_capacity_slots);
  ForwardBatch batch;
  CapacityPolicy loose = kRequest;
  loose.factor = 2.0;  // x 8 x 2 / 4 = 8
  CapacityPolicy loose_batch = kBatch;
  loose_batch.factor = 1000.0;
  BuildCapacity(plan, std::vector{loose, loose_batch}, kLimits, &slots, &batch);
  EXPECT_THAT(batch.capacity, IsEmpty());
  EXPECT_EQ(slots.num_in_use(), 0);
  loose.factor = 1.99;
  loose.min_places = kGroup;
  BuildCapacity(plan, std::vector{loose, kOff}, kLimits, &slots, &batch);
  EXPECT_THAT(batch.capacity, IsEmpty());

  // Beside one that can, a batch's rows still take places.
  BuildCapacity(plan, std::vector{loose_batch, kBatch}, kLimits, &slots, &batch);
  ASSERT_EQ(batch.capacity.size(), 2u);
  EXPECT_EQ(batch.capacity[0].scope, CapacityScope::kBatch);
  EXPECT_EQ(batch.capacity[1].scope, CapacityScope::kBatch);
  BuildCapacity(plan, std::vector{loose, kRequest}, kLimits, &slots, &batch);
  ASSERT_EQ(batch.capacity.size(), 2u);
  EXPECT_EQ(batch.capacity[0].scope, CapacityScope::kOff);
  EXPECT_EQ(batch.capacity[1].scope, CapacityScope::kRequest);
}

}  // namespace
}  // namespace cadre
