#include "engine/experts/bias_balancer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace cadre {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatEq;

StepRouting StepOf(std::vector<int64_t> assignments, int64_t num_tokens) {
  StepRouting step;
  step.assignments = std::move(assignments);
  step.num_tokens = num_tokens;
  return step;
}

TEST(BiasBalancerTest, MovesAgainstTheLoadAtTheEndOfAWindow) {
  // Two layers of four experts; in the second one, expert 1 has the mean load.
  BiasBalancer balancer({.rate = 0.25, .window_tokens = 10, .limit = 10.0}, 4, {0, 0, 0, 1, 0, 0, 0, 0});
  EXPECT_FALSE(balancer.Observe(StepOf({6, 0, 0, 0, 3, 1, 1, 1}, 6)));
  EXPECT_THAT(balancer.bias(), ElementsAre(0, 0, 0, 1, 0, 0, 0, 0));
  EXPECT_TRUE(balancer.Observe(StepOf({2, 1, 1, 0, 0, 2, 0, 4}, 6)));
  EXPECT_THAT(balancer.bias(), ElementsAre(-0.25, 0.25, 0.25, 1.25, 0, 0, 0.25, -0.25));
  EXPECT_EQ(balancer.num_updates(), 1);
  EXPECT_FLOAT_EQ(balancer.largest_nudge(), 0.25f);
  // The window before is forgotten.
  EXPECT_TRUE(balancer.Observe(StepOf({0, 8, 0, 0, 2, 2, 2, 2}, 10)));
  EXPECT_THAT(balancer.bias(), ElementsAre(0, 0, 0.5, 1.5, 0, 0, 0.25, -0.25));
}

TEST(BiasBalancerTest, StaysWithinItsLimitAndComesBack) {
  BiasBalancer balancer({.rate = 0.3, .window_tokens = 1, .limit = 0.5}, 2, {0.125f, 0});
  for (int i = 0; i < 5; ++i) balancer.Observe(StepOf({4, 0}, 4));
  EXPECT_THAT(balancer.bias(), ElementsAre(FloatEq(0.125f - 0.5f), FloatEq(0.5f)));
  EXPECT_FLOAT_EQ(balancer.largest_nudge(), 0.5f);
  EXPECT_EQ(balancer.num_updates(), 5);
  balancer.Reset();
  EXPECT_THAT(balancer.bias(), ElementsAre(0.125f, 0));
  EXPECT_EQ(balancer.num_updates(), 0);
  EXPECT_EQ(balancer.largest_nudge(), 0.0f);
}

TEST(BiasBalancerTest, AResetBeginsAnotherWindow) {
  BiasBalancer balancer({.rate = 0.5, .window_tokens = 10}, 2, {0, 0});
  balancer.Observe(StepOf({9, 0}, 9));
  balancer.Reset();
  EXPECT_FALSE(balancer.Observe(StepOf({0, 9}, 9)));
  EXPECT_TRUE(balancer.Observe(StepOf({0, 1}, 1)));
  EXPECT_THAT(balancer.bias(), ElementsAre(0.5, -0.5));
}

TEST(BiasBalancerTest, EvenLoadMovesNothing) {
  BiasBalancer balancer({.rate = 0.5, .window_tokens = 1}, 3, {1, 2, 3});
  EXPECT_TRUE(balancer.Observe(StepOf({5, 5, 5}, 5)));
  EXPECT_THAT(balancer.bias(), ElementsAre(1, 2, 3));
}

// A router whose scores are fixed but for some chance, and lopsided: with the bias, the load becomes even.
TEST(BiasBalancerTest, EvensOutALopsidedRouter) {
  constexpr int kExperts = 8, kTokens = 400;
  BiasBalancer balancer({.rate = 0.01, .window_tokens = kTokens, .limit = 2.0}, kExperts,
                        std::vector<float>(kExperts, 0.0f));
  std::mt19937 random(3);
  std::normal_distribution<float> noise(0.0f, 0.3f);
  double first = 0.0, last = 0.0;
  for (int window = 0; window < 200; ++window) {
    std::vector<int64_t> load(kExperts);
    for (int token = 0; token < kTokens; ++token) {
      int best = 0;
      float highest = -1e9f;
      for (int e = 0; e < kExperts; ++e) {
        const float c = 0.1f * static_cast<float>(e) + noise(random) + balancer.bias()[static_cast<size_t>(e)];
        if (c > highest) best = e;
        if (c > highest) highest = c;
      }
      ++load[static_cast<size_t>(best)];
    }
    const double imbalance = static_cast<double>(*std::max_element(load.begin(), load.end())) * kExperts / kTokens;
    if (window == 0) first = imbalance;
    if (window >= 150) last += imbalance / 50.0;
    EXPECT_TRUE(balancer.Observe(StepOf(load, kTokens)));
  }
  EXPECT_GT(first, 2.5);
  EXPECT_LT(last, 1.5);
  EXPECT_THAT(balancer.bias(), Each(::testing::AllOf(::testing::Ge(-2.0f), ::testing::Le(2.0f))));
}

}  // namespace
}  // namespace cadre
