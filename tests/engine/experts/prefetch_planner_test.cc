#include "engine/experts/prefetch_planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace cadre {
namespace {

using Experts = std::vector<ExpertId>;
using Predicted = std::vector<PredictedExpert>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

SlotTable MakeTable(int64_t num_slots) {
  return {16, num_slots, CreateEvictionPolicy(EvictionPolicyKind::kLru, {.num_experts = 8, .num_layers = 2})};
}

void Load(SlotTable& table, ExpertId expert) { table.FinishLoad(*table.BeginLoad(expert, LoadCause::kMiss, {0, 0})); }

struct Admission {
  const char* name;
  LoadLink link;
  size_t num_planned;  // of four
};

class AdmissionTest : public ::testing::TestWithParam<Admission> {};

TEST_P(AdmissionTest, OnlyWhatDelaysNobody) {
  const SlotTable table = MakeTable(8);
  const PrefetchPlan plan =
      PlanPrefetch(Predicted{{8, .4}, {9, .3}, {10, .2}, {11, .1}}, {}, table, GetParam().link, {});
  EXPECT_EQ(plan.experts.size(), GetParam().num_planned);
  EXPECT_EQ(plan.protected_experts, (Experts{8, 9, 10, 11})) << "also where nothing is planned";
}

INSTANTIATE_TEST_SUITE_P(Links, AdmissionTest,
                         ::testing::Values(Admission{"time_for_all", {0, 100, 0.001, 0.1, false}, 4},
                                           Admission{"time_for_two", {0, 100, 0.001, 0.0025, false}, 2},
                                           Admission{"exactly_two", {0, 100, 0.001, 0.002, false}, 2},
                                           Admission{"no_time", {0, 100, 0.001, 0.0005, false}, 0},
                                           Admission{"wanted_at_once", {0, 100, 0.001, 0.0, true}, 0},
                                           Admission{"behind_a_miss", {1, 100, 0.001, 0.0025, false}, 1},
                                           Admission{"behind_many", {5, 100, 0.001, 0.0025, false}, 0},
                                           Admission{"overtaken_begins_in_time", {0, 100, 0.001, 0.0025, true}, 3},
                                           Admission{"overtaken_has_little_time", {0, 100, 0.001, 0.0005, true}, 1},
                                           Admission{"overtaken_behind_a_miss", {1, 100, 0.001, 0.0005, true}, 0},
                                           Admission{"few_in_flight", {0, 3, 0.001, 1.0, false}, 3},
                                           Admission{"as_many_in_flight", {3, 3, 0.001, 1.0, false}, 0},
                                           Admission{"more_misses_in_flight", {7, 3, 0.001, 1.0, false}, 0},
                                           Admission{"not_measured", {0, 100, 0.0, 1.0, false}, 0},
                                           Admission{"measured_nonsense", {0, 100, kNan, 1.0, false}, 0},
                                           Admission{"wanted_never", {0, 100, 0.001, kNan, false}, 0},
                                           Admission{"endless_time", {0, 100, 1e-300, 1e300, false}, 4}),
                         [](const auto& param_info) { return param_info.param.name; });

const LoadLink kFreeLink{
    .loads_in_flight = 0, .max_loads_in_flight = 100, .load_seconds = 1, .seconds_until_wanted = 99};

TEST(PrefetchPlanner, TheLikeliestFirst) {
  const SlotTable table = MakeTable(8);
  const Predicted predicted{{12, .1}, {9, .5}, {11, .5}, {8, .05}, {10, .7}, {13, kNan}, {12, .6}};
  const PrefetchPlan plan = PlanPrefetch(predicted, {}, table, kFreeLink, {.min_score = .1});
  EXPECT_EQ(plan.experts, (Experts{10, 12, 9, 11}));
  EXPECT_EQ(plan.protected_experts, (Experts{8, 9, 10, 11, 12, 13}));
}

TEST(PrefetchPlanner, LeavesOutWhatIsThereOrTravels) {
  SlotTable table = MakeTable(8);
  Load(table, 8);
  ASSERT_TRUE(table.BeginLoad(9, LoadCause::kPrefetch, {0, 0}).has_value());
  const PrefetchPlan plan = PlanPrefetch(Predicted{{8, .9}, {9, .8}, {10, .1}}, Experts{3, 1}, table, kFreeLink, {});
  EXPECT_EQ(plan.experts, (Experts{10}));
  EXPECT_EQ(plan.protected_experts, (Experts{1, 3, 8, 9, 10}));
}

// What is loaded by plan puts out neither what is needed now nor what is predicted.
TEST(PrefetchPlanner, PutsOutNothingThatIsNeededBefore) {
  SlotTable table = MakeTable(4);
  for (const ExpertId expert : {0, 1, 5, 9}) Load(table, expert);
  const LayerTime now{0, 0};
  const Experts needed{0, 1};
  const PrefetchPlan plan = PlanPrefetch(Predicted{{9, .3}, {10, .2}, {11, .1}}, needed, table, kFreeLink, {});
  EXPECT_EQ(plan.experts, (Experts{10, 11}));
  EXPECT_TRUE(table.BeginLoad(10, LoadCause::kPrefetch, now, plan.protected_experts).has_value());
  EXPECT_EQ(table.Find(5), std::nullopt);
  EXPECT_FALSE(table.BeginLoad(11, LoadCause::kPrefetch, now, plan.protected_experts).has_value());
  for (const ExpertId expert : {0, 1, 9}) EXPECT_TRUE(table.Find(expert).has_value());
}

// When one load at most is on the link at a time, in the order of their beginning: misses of the next layer begin no
// later than without the plan, and where they do not overtake, every planned load has ended by then.
TEST(PrefetchPlanner, MissesBeginAsEarlyAsWithout) {
  std::mt19937 random(13);
  const auto uniform = [&](double most) { return std::uniform_real_distribution<>(0.0, most)(random); };
  int num_planned = 0;
  for (int i = 0; i < 20'000; ++i) {
    const LoadLink link{.loads_in_flight = static_cast<int64_t>(random() % 5),
                        .max_loads_in_flight = static_cast<int64_t>(random() % 9),
                        .load_seconds = uniform(1.0),
                        .seconds_until_wanted = uniform(5.0),
                        .misses_overtake = random() % 2 == 0};
    Predicted predicted;
    for (ExpertId expert = 8; expert < 16; ++expert) {
      if (random() % 2 == 0) predicted.push_back({expert, uniform(1.0)});
    }
    const SlotTable table = MakeTable(8);
    const PrefetchPlan plan = PlanPrefetch(predicted, {}, table, link, {});
    ASSERT_LE(plan.experts.size(), predicted.size());
    if (plan.experts.empty()) continue;
    ++num_planned;
    const auto before = static_cast<double>(link.loads_in_flight);
    const double begun = before + static_cast<double>(plan.experts.size());
    ASSERT_LE(begun, static_cast<double>(link.max_loads_in_flight));
    const double last_begins = (begun - 1) * link.load_seconds;
    ASSERT_LT(last_begins, link.seconds_until_wanted);
    const double free_without = std::max(link.seconds_until_wanted, before * link.load_seconds);
    const double free_with = std::max(link.seconds_until_wanted, begun * link.load_seconds);
    ASSERT_TRUE(link.misses_overtake || free_with <= free_without * (1 + 1e-12));
  }
  EXPECT_GT(num_planned, 2000);
}

TEST(PrefetchPlannerDeathTest, WhatIsRequiredIsChecked) {
  const SlotTable table = MakeTable(8);
  const auto plan = [&](const LoadLink& link, ExpertId expert) {
    return PlanPrefetch(Predicted{{expert, .5}}, {}, table, link, {});
  };
  EXPECT_DEATH(plan({.loads_in_flight = -1}, 8), "loads_in_flight");
  EXPECT_DEATH(plan({.max_loads_in_flight = -1}, 8), "max_loads_in_flight");
  EXPECT_DEATH(plan(kFreeLink, 16), "expert");
}

}  // namespace
}  // namespace cadre
