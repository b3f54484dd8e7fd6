// How many places an expert has, and which policies there may be.
#include "engine/request/capacity_policy.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cadre {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int32_t kMost = std::numeric_limits<int32_t>::max();

TEST(CapacityPolicyTest, PlacesAreTheRoundedUpShare) {
  EXPECT_EQ(CapacityPlaces(1.0, 0, 256, 8, 64), 32);
  EXPECT_EQ(CapacityPlaces(1.25, 0, 256, 8, 64), 40);
  EXPECT_EQ(CapacityPlaces(1.0, 0, 10, 1, 3), 4);
  EXPECT_EQ(CapacityPlaces(0.001, 0, 1, 1, 128), 1);
  EXPECT_EQ(CapacityPlaces(0.001, 4, 1, 1, 128), 4);
  EXPECT_EQ(CapacityPlaces(1.0, 33, 256, 8, 64), 33);
}

TEST(CapacityPolicyTest, PlacesAtTheEdges) {
  EXPECT_EQ(CapacityPlaces(0.0, 0, 256, 8, 64), 0);
  EXPECT_EQ(CapacityPlaces(0.0, 3, 256, 8, 64), 3);
  EXPECT_EQ(CapacityPlaces(kInfinity, 0, 1, 1, 1), kMost);
  EXPECT_EQ(CapacityPlaces(kInfinity, 2, 0, 1, 1), 2);
  EXPECT_EQ(CapacityPlaces(1000.0, 0, int64_t{1} << 40, 8, 1), kMost);
}

TEST(CapacityPolicyTest, RefusalsNameTheFieldTheValueAndTheLimit) {
  const auto refusal = [](const CapacityPolicy& policy) { return std::string(CheckCapacityPolicy(policy).message()); };
  const CapacityPolicy good = {.scope = CapacityScope::kRequest};
  EXPECT_TRUE(CheckCapacityPolicy(good).ok());
  for (const double factor : {0.0, -1.0, 1000.5, kInfinity, std::nan("")}) {
    CapacityPolicy policy = good;
    policy.factor = factor;
    EXPECT_THAT(refusal(policy), testing::HasSubstr("capacity_factor is")) << factor;
    policy.scope = CapacityScope::kOff;
    EXPECT_TRUE(CheckCapacityPolicy(policy).ok()) << factor;
  }
  CapacityPolicy policy = good;
  policy.min_places = -1;
  EXPECT_EQ(refusal(policy), "min_capacity is -1, must be 0 to 1048576");
  policy = good;
  policy.group_tokens = 0;
  EXPECT_EQ(refusal(policy), "group_tokens is 0, must be 1 to 1048576");
  policy.scope = CapacityScope::kBatch;
  EXPECT_TRUE(CheckCapacityPolicy(policy).ok()) << "a batch has no group of its own";
}

TEST(CapacityPolicyTest, DescriptionsTellPoliciesApart) {
  EXPECT_EQ(DescribeCapacityPolicy({}), "off");
  CapacityPolicy policy = {.scope = CapacityScope::kRequest, .overflow = Overflow::kReroute, .factor = 1.1};
  EXPECT_EQ(DescribeCapacityPolicy(policy), "scope=request overflow=reroute factor=1.1 min=1 group=256");
  policy.scope = CapacityScope::kBatch;
  policy.overflow = Overflow::kReweight;
  policy.factor = std::nextafter(1.1, 2.0);
  EXPECT_EQ(DescribeCapacityPolicy(policy), "scope=batch overflow=reweight factor=1.1000000000000003 min=1");
}

}  // namespace
}  // namespace cadre
