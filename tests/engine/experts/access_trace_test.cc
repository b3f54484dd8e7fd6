#include "engine/experts/access_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <utility>
#include <vector>

namespace cadre {
namespace {

using Group = std::pair<LayerTime, std::vector<ExpertId>>;

template <typename Groups>
void ExpectHolds(const AccessTrace& trace, const Groups& expected) {
  const AccessLog log = trace.Log();
  ASSERT_EQ(log.num_groups(), expected.size());
  ASSERT_EQ(trace.num_groups(), std::ssize(expected));
  ASSERT_EQ(trace.num_accesses(), std::ssize(log.experts));
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(log.times[i].step, expected[i].first.step) << i;
    ASSERT_EQ(log.times[i].layer, expected[i].first.layer) << i;
    ASSERT_TRUE(std::ranges::equal(log.group(i), expected[i].second)) << i;
  }
}

TEST(AccessTrace, HoldsWhatWasAppended) {
  AccessTrace trace({.num_layers = 3, .num_experts = 4});
  ExpectHolds(trace, std::vector<Group>{});
  const std::vector<Group> groups = {{{5, 0}, {0, 3}}, {{5, 2}, {8, 9, 10, 11}}, {{6, 1}, {4}}, {{60'000, 2}, {11}}};
  for (const auto& [time, experts] : groups) trace.Append(time, experts);
  trace.Append({60'001, 0}, {});
  trace.Append({60'001, 1}, std::vector<ExpertId>{7});
  std::vector<Group> expected = groups;
  expected.emplace_back(LayerTime{60'001, 1}, std::vector<ExpertId>{7});
  ExpectHolds(trace, expected);
}

TEST(AccessTrace, AGapBeyondAWordIsCutAndTheOrderStays) {
  AccessTrace trace({.num_layers = 1, .num_experts = 2});
  trace.Append({1, 0}, std::vector<ExpertId>{0});
  trace.Append({1'000'000, 0}, std::vector<ExpertId>{1});
  trace.Append({1'000'001, 0}, std::vector<ExpertId>{0});
  ExpectHolds(trace, std::vector<Group>{{{1, 0}, {0}}, {{65'536, 0}, {1}}, {{65'537, 0}, {0}}});
}

// Every way of wrapping around, beside a queue of groups that holds as many words.
TEST(AccessTrace, PutsOutTheOldest) {
  std::mt19937 random(11);
  for (int64_t words = 13; words < 60; ++words) {
    AccessTrace trace({.num_layers = 2, .num_experts = 10, .max_bytes = 2 * words});
    std::deque<Group> expected;
    for (int64_t step = 0; step < 200; ++step) {
      for (int32_t layer = 0; layer < 2; ++layer) {
        std::vector<ExpertId> needed;
        for (ExpertId e = 0; e < 10; ++e) {
          if (random() % 3 == 0) needed.push_back(layer * 10 + e);
        }
        trace.Append({step, layer}, needed);
        if (!needed.empty()) expected.emplace_back(LayerTime{step, layer}, needed);
        int64_t used = 0;
        for (const auto& [time, experts] : expected) used += 3 + std::ssize(experts);
        for (; used > words; expected.pop_front()) used -= 3 + std::ssize(expected.front().second);
        ExpectHolds(trace, expected);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(AccessTrace, ACopyStays) {
  AccessTrace trace({.num_layers = 1, .num_experts = 4, .max_bytes = 32});
  trace.Append({0, 0}, std::vector<ExpertId>{1, 2});
  const AccessTrace copy = trace;
  for (int64_t step = 1; step < 20; ++step) trace.Append({step, 0}, std::vector<ExpertId>{0, 1, 2, 3});
  ExpectHolds(copy, std::vector<Group>{{{0, 0}, {1, 2}}});
}

TEST(AccessTraceDeathTest, WhatIsRequiredIsChecked) {
  EXPECT_DEATH(AccessTrace({.num_layers = 0, .num_experts = 1}), "num_layers");
  EXPECT_DEATH(AccessTrace({.num_layers = 65'536, .num_experts = 1}), "num_layers");
  EXPECT_DEATH(AccessTrace({.num_layers = 1, .num_experts = 0}), "num_experts");
  EXPECT_DEATH(AccessTrace({.num_layers = 1, .num_experts = 65'536}), "num_experts");
  EXPECT_DEATH(AccessTrace({.num_layers = 1, .num_experts = 10, .max_bytes = 25}), "words");
  AccessTrace trace({.num_layers = 2, .num_experts = 4});
  trace.Append({1, 1}, std::vector<ExpertId>{4, 7});
  EXPECT_DEATH(trace.Append({1, 1}, std::vector<ExpertId>{4}), "IsLater");
  EXPECT_DEATH(trace.Append({0, 1}, std::vector<ExpertId>{4}), "IsLater");
  EXPECT_DEATH(trace.Append({2, 2}, std::vector<ExpertId>{8}), "layer");
  EXPECT_DEATH(trace.Append({2, 0}, std::vector<ExpertId>{1, 1}), "expert");
  EXPECT_DEATH(trace.Append({2, 0}, std::vector<ExpertId>{4}), "num_experts");
  EXPECT_DEATH(trace.Append({2, 1}, std::vector<ExpertId>{3}), "expert");
}

}  // namespace
}  // namespace cadre
