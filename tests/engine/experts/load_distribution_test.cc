#include "engine/experts/load_distribution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace cadre {
namespace {

using Loads = std::vector<int64_t>;

Loads RandomLoads(size_t num_experts, std::mt19937& rng) {
  Loads loads(num_experts);
  for (int64_t& load : loads) load = static_cast<int64_t>(rng() % 3 == 0 ? 0 : rng() % 1000);
  loads[rng() % num_experts] += 1;
  return loads;
}

double Sum(const Loads& loads) {
  double sum = 0.0;
  for (const int64_t load : loads) sum += static_cast<double>(load);
  return sum;
}

TEST(Concentration, UniformLoadIsTheDiagonal) {
  for (const size_t num_experts : {1u, 3u, 8u, 128u}) {
    const ConcentrationCurve curve = Concentration(Loads(num_experts, 7));
    for (size_t i = 0; i < curve.size(); ++i) EXPECT_NEAR(curve[i], kConcentrationPoints[i], 1e-12) << num_experts;
  }
}

TEST(Concentration, OneExpertCarriesAllAsSoonAsItIsWhole) {
  Loads loads(20, 0);
  loads[13] = 500;
  const ConcentrationCurve curve = Concentration(loads);
  EXPECT_NEAR(curve[0], 0.2, 1e-12);  // 1 % of 20 experts is a fifth of one
  for (size_t i = 1; i < curve.size(); ++i) EXPECT_NEAR(curve[i], 1.0, 1e-12);
}

TEST(Concentration, WithoutLoadItIsUniform) {
  EXPECT_EQ(Concentration(Loads(5, 0)), kConcentrationPoints);
  EXPECT_EQ(Concentration(Loads()), kConcentrationPoints);
}

// The area under the sorted loads as a step function, integrated in small pieces.
TEST(Concentration, IsTheIntegralOfTheSortedLoads) {
  std::mt19937 rng(3);
  for (const size_t num_experts : {2u, 7u, 60u, 256u}) {
    const Loads loads = RandomLoads(num_experts, rng);
    Loads sorted = loads;
    std::sort(sorted.rbegin(), sorted.rend());
    const ConcentrationCurve curve = Concentration(loads);
    for (size_t i = 0; i < curve.size(); ++i) {
      const double until = kConcentrationPoints[i] * static_cast<double>(num_experts);
      double area = 0.0;
      for (size_t e = 0; e < num_experts; ++e) {
        const double width = std::clamp(until - static_cast<double>(e), 0.0, 1.0);
        area += width * static_cast<double>(sorted[e]);
      }
      EXPECT_NEAR(curve[i], area / Sum(loads), 1e-9) << num_experts << " experts, point " << i;
    }
  }
}

TEST(EffectiveExperts, CountsEqualOnes) {
  EXPECT_NEAR(EffectiveExperts(Loads(8, 3)), 8.0, 1e-12);
  EXPECT_NEAR(EffectiveExperts(Loads{0, 5, 0, 5}), 2.0, 1e-12);
  EXPECT_NEAR(EffectiveExperts(Loads{0, 9, 0}), 1.0, 1e-12);
  EXPECT_EQ(EffectiveExperts(Loads(4, 0)), 4.0);
  EXPECT_EQ(EffectiveExperts(Loads()), 0.0);
}

TEST(JensenShannonDivergence, IsZeroForEqualAndOneForDisjointLoads) {
  EXPECT_NEAR(JensenShannonDivergence(Loads{1, 2, 3}, Loads{10, 20, 30}), 0.0, 1e-12);
  EXPECT_NEAR(JensenShannonDivergence(Loads{4, 0, 6, 0}, Loads{0, 3, 0, 9}), 1.0, 1e-12);
}

TEST(JensenShannonDivergence, OfNothingNothingIsSaid) {
  EXPECT_EQ(JensenShannonDivergence(Loads{0, 0}, Loads{1, 2}), 0.0);
  EXPECT_EQ(JensenShannonDivergence(Loads{1, 2}, Loads{0, 0}), 0.0);
}

// By entropies: H((P + Q) / 2) - (H(P) + H(Q)) / 2, which is the same in another form.
TEST(JensenShannonDivergence, IsTheEntropyOfTheMixtureLessTheMeanEntropy) {
  std::mt19937 rng(5);
  const auto entropy = [](const std::vector<double>& shares) {
    double sum = 0.0;
    for (const double share : shares) sum -= share > 0.0 ? share * std::log2(share) : 0.0;
    return sum;
  };
  for (const size_t num_experts : {2u, 8u, 60u, 512u}) {
    const Loads p = RandomLoads(num_experts, rng);
    const Loads q = RandomLoads(num_experts, rng);
    std::vector<double> p_shares(num_experts);
    std::vector<double> q_shares(num_experts);
    std::vector<double> mixture(num_experts);
    for (size_t e = 0; e < num_experts; ++e) {
      p_shares[e] = static_cast<double>(p[e]) / Sum(p);
      q_shares[e] = static_cast<double>(q[e]) / Sum(q);
      mixture[e] = (p_shares[e] + q_shares[e]) / 2.0;
    }
    const double expected = entropy(mixture) - (entropy(p_shares) + entropy(q_shares)) / 2.0;
    EXPECT_NEAR(JensenShannonDivergence(p, q), expected, 1e-9);
    EXPECT_NEAR(JensenShannonDivergence(q, p), expected, 1e-9);
  }
}

TEST(DeadExperts, AreCalledSoWhenThereWasEnoughForAll) {
  EXPECT_EQ(DeadExperts(Loads{0, 40, 0, 0}), (std::vector<int32_t>{0, 2, 3}));
  EXPECT_TRUE(DeadExperts(Loads{0, 39, 0, 0}).empty());
  EXPECT_TRUE(DeadExperts(Loads{1, 100, 1, 1}).empty());
  EXPECT_TRUE(DeadExperts(Loads()).empty());
}

TEST(HotExperts, CarrySeveralTimesTheMean) {
  Loads loads(16, 100);
  loads[5] = 400;  // mean 118.75, limit 356.25
  EXPECT_EQ(HotExperts(loads, 2.0), std::vector<int32_t>{5});
  loads[5] = 340;  // mean 115, limit 345
  EXPECT_TRUE(HotExperts(loads, 2.0).empty());
  EXPECT_TRUE(HotExperts(Loads(16, 0), 2.0).empty());
}

// Two of four experts can carry twice the mean each, and no more: three times the mean would never be reached.
TEST(HotExperts, AreMeasuredByWhatIsPossible) {
  EXPECT_EQ(HotRatio(4, 2.0), 1.5);
  EXPECT_EQ(HotRatio(128, 8.0), kHotRatio);
  EXPECT_EQ(HotRatio(4, 0.0), kHotRatio);
  EXPECT_EQ(HotExperts(Loads{100, 100, 0, 0}, 2.0), (std::vector<int32_t>{0, 1}));
}

}  // namespace
}  // namespace cadre
