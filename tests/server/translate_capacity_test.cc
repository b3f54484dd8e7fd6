// Capacity policies on the wire: what is not said is the server's own, what is wrong or without effect is named.
#include "server/translate_capacity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "server/errors.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

constexpr CapacityPolicy kOwn = {.scope = CapacityScope::kRequest,
                                 .overflow = Overflow::kReroute,
                                 .factor = 1.5,
                                 .min_places = 3,
                                 .group_tokens = 64};

std::string Refusal(const v1::CapacityPolicy& wire, const CapacityPolicy& own = kOwn) {
  const absl::StatusOr<CapacityPolicy> policy = TranslateCapacity(wire, own, "policy");
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(policy.status()), "INVALID_FIELD");
  return std::string(policy.status().message());
}

TEST(TranslateCapacityTest, WhatIsNotSaidIsTheServersOwn) {
  EXPECT_EQ(*TranslateCapacity({}, kOwn, "policy"), kOwn);
  v1::CapacityPolicy wire;
  wire.set_overflow(v1::OVERFLOW_POLICY_DROP);
  wire.set_min_capacity(0);
  CapacityPolicy expected = kOwn;
  expected.overflow = Overflow::kDrop;
  expected.min_places = 0;
  EXPECT_EQ(*TranslateCapacity(wire, kOwn, "policy"), expected);
  wire.set_scope(v1::CAPACITY_SCOPE_REQUEST);
  wire.set_capacity_factor(1.25);
  EXPECT_EQ(*TranslateCapacity(wire, {}, "policy"),
            (CapacityPolicy{.scope = CapacityScope::kRequest, .factor = 1.25, .min_places = 0}));
}

TEST(TranslateCapacityTest, OffIsOff) {
  v1::CapacityPolicy wire;
  wire.set_scope(v1::CAPACITY_SCOPE_OFF);
  EXPECT_EQ(*TranslateCapacity(wire, kOwn, "policy"), CapacityPolicy());
  EXPECT_EQ(*TranslateCapacity({}, {}, "policy"), CapacityPolicy());
}

TEST(TranslateCapacityTest, WhatIsWrongIsNamed) {
  v1::CapacityPolicy wire;
  wire.set_capacity_factor(0.0);
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.capacity_factor: is 0, must be more than 0 and at most 1000"));
  wire.set_capacity_factor(std::nan(""));
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.capacity_factor: is nan"));
  wire.Clear();
  wire.set_min_capacity(-1);
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.min_capacity: is -1"));
  wire.Clear();
  wire.set_group_tokens(0);
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.group_tokens: is 0"));
  wire.Clear();
  wire.set_scope(static_cast<v1::CapacityScope>(99));
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.scope: 99 is no CapacityScope"));
  wire.Clear();
  wire.set_overflow(static_cast<v1::OverflowPolicy>(99));
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.overflow: 99 is no OverflowPolicy"));
}

TEST(TranslateCapacityTest, WhatHasNoEffectIsRefused) {
  v1::CapacityPolicy wire;
  wire.set_scope(v1::CAPACITY_SCOPE_OFF);
  wire.set_capacity_factor(2.0);
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.capacity_factor: means nothing while the scope is off"));
  wire.Clear();
  wire.set_min_capacity(1);
  EXPECT_THAT(Refusal(wire, {}), HasSubstr("policy.min_capacity"));
  wire.Clear();
  wire.set_overflow(v1::OVERFLOW_POLICY_DROP);
  EXPECT_THAT(Refusal(wire, {}), HasSubstr("policy.overflow"));
  wire.Clear();
  wire.set_scope(v1::CAPACITY_SCOPE_BATCH);
  wire.set_group_tokens(16);
  EXPECT_THAT(Refusal(wire), HasSubstr("policy.group_tokens: means nothing while the scope is batch"));
}

TEST(TranslateCapacityTest, ThereAndBackAgain) {
  CapacityPolicy batch = kOwn;
  batch.scope = CapacityScope::kBatch;
  batch.overflow = Overflow::kReweight;
  for (const CapacityPolicy& policy : {CapacityPolicy(), kOwn, batch}) {
    v1::CapacityPolicy wire;
    FillCapacity(policy, &wire);
    CapacityPolicy expected = policy;
    if (policy.scope == CapacityScope::kBatch) expected.group_tokens = CapacityPolicy().group_tokens;
    EXPECT_EQ(*TranslateCapacity(wire, {}, "policy"), expected);
  }
}

}  // namespace
}  // namespace cadre
