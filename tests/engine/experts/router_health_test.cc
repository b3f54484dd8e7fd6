#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "engine/experts/expert_stats.h"

namespace cadre {
namespace {

LayerCounters Counters(std::vector<int64_t> processed, std::vector<double> probability, int64_t tokens) {
  LayerCounters counters;
  counters.tokens = tokens;
  counters.rerouted.assign(processed.size(), 0);
  counters.processed = std::move(processed);
  counters.probability = std::move(probability);
  return counters;
}

TEST(RouterHealth, UniformLoadIsPerfect) {
  const RouterHealth health = ComputeRouterHealth(Counters({5, 5, 5, 5}, {2.5, 2.5, 2.5, 2.5}, 10));
  EXPECT_NEAR(health.load_entropy, 1.0, 1e-12);
  EXPECT_NEAR(health.gate_entropy, 1.0, 1e-12);
  EXPECT_NEAR(health.load_imbalance, 1.0, 1e-12);
  EXPECT_NEAR(health.load_variation, 0.0, 1e-12);
  EXPECT_NEAR(health.balance_loss, 1.0, 1e-12);
  EXPECT_EQ(health.unused_experts, 0);
}

TEST(RouterHealth, OneExpertTakesAll) {
  const RouterHealth health = ComputeRouterHealth(Counters({0, 8, 0, 0}, {0.0, 8.0, 0.0, 0.0}, 8));
  EXPECT_EQ(health.load_entropy, 0.0);
  EXPECT_EQ(health.gate_entropy, 0.0);
  EXPECT_EQ(health.load_imbalance, 4.0);
  EXPECT_NEAR(health.load_variation, std::sqrt(3.0), 1e-12);
  EXPECT_EQ(health.balance_loss, 4.0);
  EXPECT_EQ(health.unused_experts, 3);
}

TEST(RouterHealth, ASingleExpertIsUniform) {
  const RouterHealth health = ComputeRouterHealth(Counters({7}, {7.0}, 7));
  EXPECT_EQ(health.load_entropy, 1.0);
  EXPECT_EQ(health.gate_entropy, 1.0);
  EXPECT_EQ(health.load_imbalance, 1.0);
  EXPECT_EQ(health.balance_loss, 1.0);
  EXPECT_EQ(health.unused_experts, 0);
}

TEST(RouterHealth, NoTokensReadAsUniform) {
  const RouterHealth health = ComputeRouterHealth(Counters({0, 0, 0}, {0.0, 0.0, 0.0}, 0));
  EXPECT_EQ(health.load_entropy, 1.0);
  EXPECT_EQ(health.gate_entropy, 1.0);
  EXPECT_EQ(health.load_imbalance, 1.0);
  EXPECT_EQ(health.load_variation, 0.0);
  EXPECT_EQ(health.balance_loss, 1.0);
  EXPECT_EQ(health.z_loss, 0.0);
  EXPECT_EQ(health.unused_experts, 0);
}

// Work that another expert could not take counts as load where it was done.
TEST(RouterHealth, ReroutedAssignmentsAreLoad) {
  LayerCounters counters = Counters({3, 1}, {2.0, 2.0}, 4);
  counters.rerouted = {0, 2};
  counters.dropped = {5, 0};
  const RouterHealth health = ComputeRouterHealth(counters);
  EXPECT_EQ(health.load_imbalance, 1.0);
  EXPECT_NEAR(health.load_entropy, 1.0, 1e-12);
}

TEST(RouterHealth, EverythingDropped) {
  LayerCounters counters = Counters({0, 0}, {3.0, 1.0}, 4);
  counters.dropped = {4, 4};
  const RouterHealth health = ComputeRouterHealth(counters);
  EXPECT_EQ(health.unused_experts, 2);
  EXPECT_EQ(health.load_imbalance, 1.0);
  EXPECT_LT(health.gate_entropy, 1.0);
}

// The definitions, each written once more in the plainest way.
TEST(RouterHealth, MatchesTheDefinitions) {
  std::mt19937 rng(7);
  for (size_t num_experts : {2u, 3u, 8u, 60u, 128u}) {
    const int64_t tokens = 1000;
    std::vector<int64_t> n(num_experts);
    std::vector<double> probability(num_experts);
    double probability_sum = 0.0;
    for (size_t e = 0; e < num_experts; ++e) {
      n[e] = static_cast<int64_t>(rng() % 50);
      probability[e] = 1.0 + static_cast<double>(rng() % 1000);
      probability_sum += probability[e];
    }
    n[0] = 0;
    n[1] = 60;
    for (double& p : probability) p *= static_cast<double>(tokens) / probability_sum;
    LayerCounters counters = Counters(n, probability, tokens);
    counters.squared_log_sum_exp = 123.5;

    double total = 0.0;
    double unused = 0.0;
    for (int64_t x : n) {
      total += static_cast<double>(x);
      unused += x == 0;
    }
    const double count = static_cast<double>(num_experts);
    double load_entropy = 0.0;
    double gate_entropy = 0.0;
    double variance = 0.0;
    double balance = 0.0;
    for (size_t e = 0; e < num_experts; ++e) {
      const double f = static_cast<double>(n[e]) / total;
      const double p = probability[e] / static_cast<double>(tokens);
      if (f > 0) load_entropy -= f * std::log(f) / std::log(count);
      gate_entropy -= p * std::log(p) / std::log(count);
      variance += std::pow(static_cast<double>(n[e]) - total / count, 2) / count;
      balance += count * f * p;
    }
    const RouterHealth health = ComputeRouterHealth(counters);
    EXPECT_NEAR(health.load_entropy, load_entropy, 1e-12);
    EXPECT_NEAR(health.gate_entropy, gate_entropy, 1e-12);
    EXPECT_NEAR(health.load_imbalance, 60.0 / (total / count), 1e-12);
    EXPECT_NEAR(health.load_variation, std::sqrt(variance) / (total / count), 1e-12);
    EXPECT_NEAR(health.balance_loss, balance, 1e-12);
    EXPECT_NEAR(health.z_loss, 0.1235, 1e-12);
    EXPECT_EQ(health.unused_experts, static_cast<int32_t>(unused));
  }
}

}  // namespace
}  // namespace cadre
