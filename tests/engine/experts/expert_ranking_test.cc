#include "engine/experts/expert_ranking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <random>
#include <vector>

#include "engine/experts/shadow_cache.h"

namespace cadre {
namespace {

using Counts = std::vector<int64_t>;
using Experts = std::vector<ExpertId>;

// Two layers of four experts; the second one's load is even.
const Counts kCounts = {90, 0,  40, 70,  //
                        50, 50, 60, 40};

TEST(ExpertRanking, GlobalGoesByCount) {
  EXPECT_EQ(RankExperts(kCounts, 4, LayerShare::kGlobal), (Experts{0, 3, 6, 4, 5, 2, 7, 1}));
}

TEST(ExpertRanking, PerLayerGoesRoundTheLayers) {
  EXPECT_EQ(RankExperts(kCounts, 4, LayerShare::kPerLayer), (Experts{0, 6, 3, 4, 5, 2, 7, 1}));
  EXPECT_EQ(RankExperts({}, 4, LayerShare::kPerLayer), Experts{});
}

TEST(ExpertRanking, KeepsNobodyWhoWasNeverUsed) {
  EXPECT_EQ(ChooseKept(kCounts, 4, 3, LayerShare::kGlobal), (Experts{0, 3, 6}));
  EXPECT_EQ(ChooseKept(kCounts, 4, 3, LayerShare::kPerLayer), (Experts{0, 6, 3}));
  EXPECT_EQ(ChooseKept(kCounts, 4, 100, LayerShare::kGlobal).size(), 7U);
  EXPECT_EQ(ChooseKept(kCounts, 4, 0, LayerShare::kGlobal), Experts{});
  EXPECT_EQ(ChooseKept(Counts(8, 0), 4, 5, LayerShare::kPerLayer), Experts{});
}

TEST(ExpertRanking, WarmStartLoadsWhatIsKeptThenWhatWasUsed) {
  const Experts kept{1, 7};
  EXPECT_EQ(OrderWarmStart(kCounts, 4, 8, kept, LayerShare::kGlobal), (Experts{7, 1, 0, 3, 6, 4, 5, 2}));
  EXPECT_EQ(OrderWarmStart(kCounts, 4, 4, kept, LayerShare::kGlobal), (Experts{7, 1, 0, 3}));
  EXPECT_EQ(OrderWarmStart(kCounts, 4, 100, {}, LayerShare::kPerLayer), (Experts{0, 6, 3, 4, 5, 2, 7, 1}));
  EXPECT_EQ(OrderWarmStart(kCounts, 4, 0, kept, LayerShare::kGlobal), Experts{});
  EXPECT_EQ(OrderWarmStart(Counts{0, 0, 0, 5}, 2, 4, {}, LayerShare::kPerLayer), (Experts{3, 0, 1, 2}))
      << "2 is the second of its layer, and 0 the first; both were never used";
}

TEST(ExpertRanking, SharesAddUp) {
  EXPECT_DOUBLE_EQ(CountedShare(kCounts, Experts{0, 3}), 0.4);
  EXPECT_DOUBLE_EQ(CountedShare(kCounts, RankExperts(kCounts, 4, LayerShare::kGlobal)), 1.0);
  EXPECT_EQ(CountedShare(Counts(8, 0), Experts{0}), 0.0);
}

class RandomRankingTest : public ::testing::TestWithParam<LayerShare> {
 protected:
  static Counts RandomCounts(std::mt19937* random, size_t size) {
    Counts counts(size);
    for (int64_t& count : counts) count = static_cast<int64_t>((*random)() % 12);
    return counts;
  }
};

// Any first few are, in hits, the best of all sets of that size; of all that share fairly, with kPerLayer.
TEST_P(RandomRankingTest, TheFirstOnesAreTheBestOfAllSets) {
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) {
    constexpr int kExperts = 4;
    const Counts counts = RandomCounts(&random, 12);
    const Experts ranked = RankExperts(counts, kExperts, GetParam());
    std::array<int64_t, 13> best{};
    for (uint32_t set = 0; set < 1U << 12; ++set) {
      const int shares[] = {std::popcount(set & 15U), std::popcount(set & 240U), std::popcount(set & 3840U)};
      if (GetParam() == LayerShare::kPerLayer && std::ranges::max(shares) - std::ranges::min(shares) > 1) continue;
      int64_t sum = 0;
      for (size_t expert = 0; expert < 12; ++expert) sum += (set >> expert & 1U) != 0 ? counts[expert] : 0;
      int64_t& known = best[static_cast<size_t>(std::popcount(set))];
      known = std::max(known, sum);
    }
    int64_t sum = 0;
    for (size_t n = 1; n <= 12; ++n) {
      sum += counts[static_cast<size_t>(ranked[n - 1])];
      ASSERT_EQ(sum, best[n]) << n << " slots";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shares, RandomRankingTest, ::testing::Values(LayerShare::kGlobal, LayerShare::kPerLayer));

// What the counts promise is what a cache that keeps those experts has.
TEST(ExpertRanking, KeptExpertsHitAsOftenAsCounted) {
  std::mt19937 random(8);
  AccessLog log{.num_layers = 2, .num_experts = 16, .times = {}, .ends = {}, .experts = {}};
  Counts counts(32, 0);
  for (int64_t step = 0; step < 2000; ++step) {
    for (int32_t layer = 0; layer < 2; ++layer) {
      const auto expert =
          static_cast<ExpertId>(layer * 16 + static_cast<int32_t>(std::min(random() % 16, random() % 16)));
      log.Append({step, layer}, Experts{expert});
      ++counts[static_cast<size_t>(expert)];
    }
  }
  const Experts kept = ChooseKept(counts, 16, 12, LayerShare::kGlobal);
  const ShadowResult result = SimulatePolicy(log, {.num_slots = 13, .kept = kept});
  const double expected = CountedShare(counts, kept);
  const double measured = static_cast<double>(result.hits) / static_cast<double>(result.lookups);
  EXPECT_GT(expected, 0.5);
  EXPECT_GE(measured, expected - 12.0 / static_cast<double>(result.lookups));  // but for the first use of each
  EXPECT_LE(measured, expected + 0.1) << "the one slot that is left adds little";
}

TEST(ExpertRankingDeathTest, WhatIsRequiredIsChecked) {
  EXPECT_DEATH(RankExperts(kCounts, 0, LayerShare::kGlobal), "num_experts");
  EXPECT_DEATH(RankExperts(kCounts, 3, LayerShare::kGlobal), "num_experts");
  EXPECT_DEATH(RankExperts(Counts{1, -1}, 2, LayerShare::kGlobal), "count");
  EXPECT_DEATH(ChooseKept(kCounts, 4, -1, LayerShare::kGlobal), "max_kept");
  EXPECT_DEATH(OrderWarmStart(kCounts, 4, -1, {}, LayerShare::kGlobal), "num_slots");
  EXPECT_DEATH(OrderWarmStart(kCounts, 4, 1, Experts{8}, LayerShare::kGlobal), "expert");
  EXPECT_DEATH(OrderWarmStart(kCounts, 4, 1, Experts{2, 2}, LayerShare::kGlobal), "is_kept");
  EXPECT_DEATH(CountedShare(kCounts, Experts{-1}), "expert");
}

}  // namespace
}  // namespace cadre
