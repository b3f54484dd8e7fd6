#include "engine/experts/expert_stats.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <deque>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

namespace cadre {
namespace {

struct Sizes {
  int32_t num_layers;
  int32_t num_experts;
  int32_t top_k;
};

// A step in which every token chooses its experts at random.
StepRouting RandomStep(const Sizes& sizes, int64_t num_tokens, std::mt19937& rng) {
  StepRouting step;
  step.num_layers = sizes.num_layers;
  step.num_experts = sizes.num_experts;
  step.top_k = sizes.top_k;
  step.num_tokens = num_tokens;
  const auto cells = static_cast<size_t>(sizes.num_layers * sizes.num_experts);
  step.assignments.assign(cells, 0);
  step.gate_weight.resize(cells);
  step.probability.resize(cells);
  step.squared_log_sum_exp.resize(static_cast<size_t>(sizes.num_layers));
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int32_t layer = 0; layer < sizes.num_layers; ++layer) {
    for (int64_t a = 0; a < num_tokens * sizes.top_k; ++a) {
      ++step.assignments[static_cast<size_t>(layer * sizes.num_experts) +
                         rng() % static_cast<size_t>(sizes.num_experts)];
    }
  }
  for (double& x : step.gate_weight) x = uniform(rng);
  for (double& x : step.probability) x = uniform(rng);
  for (double& x : step.squared_log_sum_exp) x = uniform(rng);
  step.sequence_assignments = {num_tokens * sizes.top_k * sizes.num_layers};
  return step;
}

int64_t Sum(const std::vector<int64_t>& x) { return std::accumulate(x.begin(), x.end(), int64_t{0}); }

// The counters of `steps`, added up the obvious way.
void ExpectSumOf(const std::deque<StepRouting>& steps, const Sizes& sizes, const std::vector<LayerCounters>& layers) {
  ASSERT_EQ(layers.size(), static_cast<size_t>(sizes.num_layers));
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    int64_t tokens = 0;
    double squared_log_sum_exp = 0.0;
    for (const StepRouting& step : steps) {
      tokens += step.num_tokens;
      squared_log_sum_exp += step.squared_log_sum_exp[layer];
    }
    EXPECT_EQ(layers[layer].tokens, tokens);
    EXPECT_NEAR(layers[layer].squared_log_sum_exp, squared_log_sum_exp, 1e-9);
    for (size_t e = 0; e < static_cast<size_t>(sizes.num_experts); ++e) {
      const size_t cell = layer * static_cast<size_t>(sizes.num_experts) + e;
      int64_t assignments = 0;
      double gate_weight = 0.0;
      double probability = 0.0;
      for (const StepRouting& step : steps) {
        assignments += step.assignments[cell];
        gate_weight += step.gate_weight[cell];
        probability += step.probability[cell];
      }
      EXPECT_EQ(layers[layer].processed[e], assignments);
      EXPECT_NEAR(layers[layer].gate_weight[e], gate_weight, 1e-9);
      EXPECT_NEAR(layers[layer].probability[e], probability, 1e-9);
      EXPECT_EQ(layers[layer].rerouted[e] + layers[layer].reweighted[e] + layers[layer].dropped[e], 0);
    }
  }
}

TEST(ExpertStats, StartsAtZeroWithEveryExpertPresent) {
  const ExpertStats stats(2, 5, 3, 100);
  const ExpertSnapshot snapshot = stats.Snapshot();
  EXPECT_EQ(snapshot.num_layers, 2);
  EXPECT_EQ(snapshot.num_experts, 5);
  EXPECT_EQ(snapshot.top_k, 3);
  EXPECT_EQ(snapshot.window_tokens, 0);
  ExpectSumOf({}, {2, 5, 3}, snapshot.total);
  ExpectSumOf({}, {2, 5, 3}, snapshot.window);
}

TEST(ExpertStats, TotalsAreTheSumOfAllSteps) {
  const Sizes sizes = {3, 7, 2};
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, 64);
  std::mt19937 rng(1);
  std::deque<StepRouting> steps;
  for (int i = 0; i < 50; ++i) {
    steps.push_back(RandomStep(sizes, 1 + static_cast<int64_t>(rng() % 40), rng));
    stats.Record(steps.back());
  }
  ExpectSumOf(steps, sizes, stats.Snapshot().total);
}

// The window is always the sum of the last few whole steps, holds at least window_tokens tokens once there were so
// many, and no more than two buckets and two steps beyond that.
TEST(ExpertStats, WindowIsASuffixOfTheStepsOfAboutTheRightLength) {
  const Sizes sizes = {2, 6, 2};
  constexpr int64_t kWindow = 160;
  constexpr int64_t kLargestStep = 30;
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, kWindow);
  std::mt19937 rng(2);
  std::deque<StepRouting> steps;
  int64_t seen = 0;
  for (int i = 0; i < 300; ++i) {
    steps.push_back(RandomStep(sizes, 1 + static_cast<int64_t>(rng() % kLargestStep), rng));
    seen += steps.back().num_tokens;
    stats.Record(steps.back());

    const ExpertSnapshot snapshot = stats.Snapshot();
    EXPECT_GE(snapshot.window_tokens, std::min(seen, kWindow));
    EXPECT_LE(snapshot.window_tokens, kWindow + 2 * (kWindow / 8 + kLargestStep));
    std::deque<StepRouting> suffix;
    int64_t tokens = 0;
    for (auto step = steps.rbegin(); step != steps.rend() && tokens < snapshot.window_tokens; ++step) {
      suffix.push_front(*step);
      tokens += step->num_tokens;
    }
    ASSERT_EQ(tokens, snapshot.window_tokens);
    ExpectSumOf(suffix, sizes, snapshot.window);
  }
}

TEST(ExpertStats, ForgetsLargeValuesWithoutATrace) {
  const Sizes sizes = {1, 2, 1};
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, 8);
  std::mt19937 rng(3);
  StepRouting huge = RandomStep(sizes, 8, rng);
  huge.gate_weight = {1e300, 1e300};
  stats.Record(huge);
  StepRouting small = RandomStep(sizes, 8, rng);
  small.gate_weight = {0.5, 0.25};
  stats.Record(small);
  const ExpertSnapshot snapshot = stats.Snapshot();
  EXPECT_EQ(snapshot.window_tokens, 8);
  EXPECT_EQ(snapshot.window[0].gate_weight[0], 0.5);
  EXPECT_EQ(snapshot.window[0].gate_weight[1], 0.25);
}

TEST(ExpertStats, ResetStartsAgain) {
  const Sizes sizes = {2, 4, 2};
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, 32);
  std::mt19937 rng(4);
  for (int i = 0; i < 20; ++i) stats.Record(RandomStep(sizes, 9, rng));
  stats.Reset();
  ExpectSumOf({}, sizes, stats.Snapshot().total);
  ExpectSumOf({}, sizes, stats.Snapshot().window);
  const StepRouting step = RandomStep(sizes, 5, rng);
  stats.Record(step);
  ExpectSumOf({step}, sizes, stats.Snapshot().total);
  ExpectSumOf({step}, sizes, stats.Snapshot().window);
}

TEST(ExpertStats, ResetLosesNothing) {
  const Sizes sizes = {2, 4, 2};
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, 32);
  std::mt19937 rng(6);
  std::deque<StepRouting> steps;
  for (int i = 0; i < 3; ++i) {
    steps.push_back(RandomStep(sizes, 7, rng));
    stats.Record(steps.back());
    const ExpertSnapshot before = stats.Reset();
    ExpectSumOf({steps.back()}, sizes, before.total);
    ExpectSumOf({steps.back()}, sizes, before.window);
    EXPECT_EQ(before.window_tokens, 7);
    ExpectSumOf(steps, sizes, stats.LifetimeSnapshot().total);
    ExpectSumOf({}, sizes, stats.LifetimeSnapshot().window);
  }
}

// A model without experts has no layers to count.
TEST(ExpertStats, NoMoeLayers) {
  ExpertStats stats(0, 8, 2, 16);
  StepRouting step;
  step.num_experts = 8;
  step.top_k = 2;
  step.num_tokens = 100;
  step.sequence_assignments = {0, 0};
  stats.Record(step);
  EXPECT_TRUE(stats.Snapshot().total.empty());
}

TEST(ExpertStats, IdentityHoldsInEverySnapshotWhileRecording) {
  const Sizes sizes = {4, 16, 4};
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, 100);
  std::atomic<bool> done = false;
  std::thread recorder([&] {
    std::mt19937 rng(5);
    for (int i = 0; i < 3000; ++i) {
      stats.Record(RandomStep(sizes, 1 + static_cast<int64_t>(rng() % 16), rng));
      if (i % 500 == 499) stats.Reset();
    }
    done = true;
  });
  int64_t snapshots = 0;
  do {
    const ExpertSnapshot snapshot = stats.Snapshot();
    for (const LayerCounters& layer : snapshot.total) EXPECT_EQ(Sum(layer.processed), layer.tokens * sizes.top_k);
    for (const LayerCounters& layer : snapshot.window) {
      EXPECT_EQ(layer.tokens, snapshot.window_tokens);
      EXPECT_EQ(Sum(layer.processed), layer.tokens * sizes.top_k);
    }
    ++snapshots;
  } while (!done);
  recorder.join();
  EXPECT_GT(snapshots, 0);
}

TEST(ExpertStatsDeathTest, RefusesAStepThatLostAnAssignment) {
  const Sizes sizes = {2, 4, 2};
  std::mt19937 rng(6);
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, 32);
  StepRouting lost = RandomStep(sizes, 10, rng);
  ++lost.assignments[5];
  EXPECT_DEATH(stats.Record(lost), "21 vs. 20");
  StepRouting unowned = RandomStep(sizes, 10, rng);
  --unowned.sequence_assignments[0];
  EXPECT_DEATH(stats.Record(unowned), "39 vs. 40");
}

}  // namespace
}  // namespace cadre
