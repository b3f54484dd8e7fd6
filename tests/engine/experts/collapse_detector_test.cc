#include "engine/experts/collapse_detector.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "engine/experts/expert_stats.h"
#include "kernels/capacity.h"

namespace cadre {
namespace {

using Loads = std::vector<int64_t>;

TEST(RoutingFreedom, GoesFromTheSameExpertsToAll) {
  EXPECT_NEAR(RoutingFreedom(Loads{50, 50, 0, 0, 0, 0, 0, 0}, 2.0), 0.0, 1e-12);
  EXPECT_NEAR(RoutingFreedom(Loads(8, 10), 2.0), 1.0, 1e-12);
  EXPECT_NEAR(RoutingFreedom(Loads{10, 10, 10, 10, 10, 0, 0, 0}, 2.0), 0.5, 1e-12);
}

TEST(RoutingFreedom, WithoutAChoiceOrALoadNothingIsWrong) {
  EXPECT_EQ(RoutingFreedom(Loads{10, 10}, 2.0), 1.0);
  EXPECT_EQ(RoutingFreedom(Loads{7}, 1.0), 1.0);
  EXPECT_EQ(RoutingFreedom(Loads(8, 0), 2.0), 1.0);
}

// Loads of 101 experts, one for each token, of which `used` carry all: the freedom is (used - 1) / 100.
Loads SomeUsed(size_t used) {
  Loads loads(101, 0);
  for (size_t e = 0; e < used; ++e) loads[e] = 100;
  return loads;
}

void Observe(size_t used, CollapseDetector& detector) {
  detector.Observe(0, SomeUsed(used), static_cast<int64_t>(used) * 100);
}

TEST(CollapseDetector, RemembersBetweenItsThresholds) {
  CollapseDetector detector(1);
  EXPECT_EQ(detector.collapsed(), std::vector<uint8_t>{0});
  Observe(12, detector);  // 0.11: between the thresholds, from above
  EXPECT_EQ(detector.collapsed()[0], 0);
  Observe(10, detector);  // 0.09
  EXPECT_EQ(detector.collapsed()[0], 1);
  Observe(12, detector);
  EXPECT_EQ(detector.collapsed()[0], 1);
  Observe(20, detector);  // 0.19
  EXPECT_EQ(detector.collapsed()[0], 1);
  Observe(22, detector);  // 0.21
  EXPECT_EQ(detector.collapsed()[0], 0);
  Observe(12, detector);
  EXPECT_EQ(detector.collapsed()[0], 0);
}

TEST(CollapseDetector, TooLittleSaysNothing) {
  CollapseDetector detector(1);
  Loads loads(101, 0);
  loads[0] = 100;  // fewer assignments than experts
  detector.Observe(0, loads, 100);
  EXPECT_EQ(detector.collapsed()[0], 0);
  detector.Observe(0, Loads(101, 0), 0);
  EXPECT_EQ(detector.collapsed()[0], 0);
  loads[0] = 101;
  detector.Observe(0, loads, 101);
  EXPECT_EQ(detector.collapsed()[0], 1);
}

// Through the statistics: the window decides, each layer for itself.
TEST(CollapseDetector, WatchesTheWindowOfTheStatistics) {
  constexpr int64_t kWindow = 80;  // closes a bucket at each 10 tokens
  ExpertStats stats(2, 16, 1, kWindow);
  // 10 tokens, all to one expert in layer 0; in layer 1, and in a healthy step, to 10 different ones.
  const auto step = [](bool collapses) {
    StepRouting routing;
    routing.num_layers = 2;
    routing.num_experts = 16;
    routing.top_k = 1;
    routing.num_tokens = 10;
    routing.assignments.assign(32, 0);
    for (size_t token = 0; token < 10; ++token) {
      ++routing.assignments[collapses ? 3 : token];
      ++routing.assignments[16 + token];
    }
    routing.gate_weight.assign(32, 0.0);
    routing.probability.assign(32, 0.0);
    routing.squared_log_sum_exp.assign(2, 0.0);
    routing.sequence_assignments = {20};
    return routing;
  };
  for (int i = 0; i < 8; ++i) stats.Record(step(/*collapses=*/false));
  EXPECT_EQ(stats.Snapshot().collapsed, (std::vector<uint8_t>{0, 0}));
  for (int i = 0; i < 8; ++i) stats.Record(step(/*collapses=*/true));
  EXPECT_EQ(stats.Snapshot().collapsed, (std::vector<uint8_t>{1, 0}));
  for (int i = 0; i < 8; ++i) stats.Record(step(/*collapses=*/false));
  EXPECT_EQ(stats.Snapshot().collapsed, (std::vector<uint8_t>{0, 0}));
  for (int i = 0; i < 8; ++i) stats.Record(step(/*collapses=*/true));
  EXPECT_EQ(stats.Reset().collapsed, (std::vector<uint8_t>{1, 0}));
  EXPECT_EQ(stats.Snapshot().collapsed, (std::vector<uint8_t>{0, 0}));
}

// Every token wants the same K experts. Each expert may take its even share: the rest goes to the others one
// after the other, or is lost.
StepRouting CollapsedButLimited(int32_t num_experts, int32_t top_k, bool reroutes) {
  constexpr int64_t kTokens = 512;
  const auto experts = static_cast<size_t>(num_experts);
  const int64_t places = kTokens * top_k / num_experts;
  StepRouting step;
  step.num_layers = 1;
  step.num_experts = num_experts;
  step.top_k = top_k;
  step.num_tokens = kTokens;
  step.assignments.assign(experts, 0);
  step.states.assign(4 * experts, 0);
  const auto count = [&](AssignmentState state, size_t e) -> int64_t& {
    return step.states[static_cast<size_t>(state) * experts + e];
  };
  for (size_t e = 0; e < static_cast<size_t>(top_k); ++e) {
    step.assignments[e] = kTokens;
    count(AssignmentState::kProcessed, e) = places;
    if (!reroutes) count(AssignmentState::kDropped, e) = kTokens - places;
  }
  for (size_t e = static_cast<size_t>(top_k); reroutes && e < experts; ++e) {
    count(AssignmentState::kRerouted, e) = places;
  }
  step.gate_weight.assign(experts, 0.0);
  step.lost_gate_weight.assign(experts, 0.0);
  step.probability.assign(experts, 0.0);
  step.squared_log_sum_exp.assign(1, 0.0);
  step.sequence_assignments = {kTokens * top_k};
  step.sequence_states.assign(4, 0);
  for (size_t i = 0; i < step.states.size(); ++i) step.sequence_states[i / experts] += step.states[i];
  step.sequence_lost_gate_weight = {0.0};
  return step;
}

class LimitedCollapseTest : public ::testing::TestWithParam<std::tuple<int32_t, int32_t, bool>> {};

// With limits the load is even, and few choices of each token are left: neither may hide what the router wants.
TEST_P(LimitedCollapseTest, IsSeenAndIsDrift) {
  const auto [num_experts, top_k, reroutes] = GetParam();
  ExpertStats stats(1, num_experts, top_k, /*window_tokens=*/4096);
  stats.SetBaseline(std::vector<int64_t>(static_cast<size_t>(num_experts), 10));
  for (int i = 0; i < 8; ++i) stats.Record(CollapsedButLimited(num_experts, top_k, reroutes));
  const ExpertSnapshot snapshot = stats.Snapshot();
  EXPECT_EQ(snapshot.collapsed, std::vector<uint8_t>{1});
  ASSERT_EQ(snapshot.drift.size(), 1U);
  EXPECT_GT(snapshot.drift[0], 0.5);
  EXPECT_EQ(stats.Reset().drift, snapshot.drift);
}

INSTANTIATE_TEST_SUITE_P(Shapes, LimitedCollapseTest,
                         ::testing::Values(std::tuple(8, 2, false), std::tuple(8, 2, true), std::tuple(16, 2, false),
                                           std::tuple(16, 2, true), std::tuple(64, 8, false), std::tuple(64, 8, true)));

}  // namespace
}  // namespace cadre
