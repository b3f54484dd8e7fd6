#include "engine/experts/expert_stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <deque>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "kernels/capacity.h"

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

// The same where experts are limited: each assignment meets one of the four fates, by chance.
StepRouting RandomLimitedStep(const Sizes& sizes, int64_t num_tokens, std::mt19937& rng) {
  StepRouting step = RandomStep(sizes, num_tokens, rng);
  const auto experts = static_cast<size_t>(sizes.num_experts);
  const auto layers = static_cast<size_t>(sizes.num_layers);
  step.states.assign(layers * 4 * experts, 0);
  step.lost_gate_weight.assign(layers * experts, 0.0);
  step.sequence_states.assign(4, 0);
  step.sequence_lost_gate_weight = {0.5};
  for (size_t layer = 0; layer < layers; ++layer) {
    for (size_t e = 0; e < experts; ++e) {
      for (int64_t i = 0; i < step.assignments[layer * experts + e]; ++i) {
        const auto state = static_cast<AssignmentState>(rng() % 4);
        const size_t where = state == AssignmentState::kRerouted ? rng() % experts : e;
        ++step.states[(layer * 4 + static_cast<size_t>(state)) * experts + where];
        ++step.sequence_states[static_cast<size_t>(state)];
        if (state >= AssignmentState::kReweighted) step.lost_gate_weight[layer * experts + e] += 0.25;
      }
    }
  }
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

// Steps that limit somebody among steps that do not: every assignment is in one state, also in the window and behind a
// reset.
TEST(ExpertStats, LimitedStepsCountByState) {
  const Sizes sizes = {2, 5, 3};
  ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, /*window_tokens=*/100000);
  std::mt19937 rng(4);
  for (int reset = 0; reset < 2; ++reset) {
    std::vector<int64_t> expected(static_cast<size_t>(4 * sizes.num_layers * sizes.num_experts));
    std::vector<double> lost(static_cast<size_t>(sizes.num_layers * sizes.num_experts));
    for (int i = 0; i < 30; ++i) {
      const int64_t num_tokens = 1 + static_cast<int64_t>(rng() % 40);
      const bool is_limited = rng() % 2 == 0;
      const StepRouting step =
          is_limited ? RandomLimitedStep(sizes, num_tokens, rng) : RandomStep(sizes, num_tokens, rng);
      stats.Record(step);
      for (size_t cell = 0; cell < step.assignments.size(); ++cell) {
        const size_t layer = cell / 5;
        for (size_t state = 0; state < 4; ++state) {
          const int64_t unlimited = state == 0 ? step.assignments[cell] : 0;
          expected[state * 10 + cell] += is_limited ? step.states[(layer * 4 + state) * 5 + cell % 5] : unlimited;
        }
        if (is_limited) lost[cell] += step.lost_gate_weight[cell];
      }
    }
    const ExpertSnapshot snapshot = stats.Snapshot();
    for (const std::vector<LayerCounters>* layers : {&snapshot.total, &snapshot.window}) {
      for (size_t cell = 0; cell < lost.size(); ++cell) {
        const LayerCounters& layer = (*layers)[cell / 5];
        EXPECT_EQ(layer.processed[cell % 5], expected[cell]);
        EXPECT_EQ(layer.rerouted[cell % 5], expected[10 + cell]);
        EXPECT_EQ(layer.reweighted[cell % 5], expected[20 + cell]);
        EXPECT_EQ(layer.dropped[cell % 5], expected[30 + cell]);
        EXPECT_EQ(layer.lost_gate_weight[cell % 5], lost[cell]);
      }
    }
    stats.Reset();
  }
}

// A server that has lost count must not go on.
TEST(ExpertStatsDeathTest, AnAssignmentInNoStateOrInTwoEndsTheProcess) {
  const Sizes sizes = {2, 5, 3};
  std::mt19937 rng(5);
  const StepRouting good = RandomLimitedStep(sizes, 20, rng);
  const auto record = [&](const StepRouting& step) {
    ExpertStats stats(sizes.num_layers, sizes.num_experts, sizes.top_k, 100);
    stats.Record(step);
  };
  record(good);
  StepRouting lost = good;
  *std::ranges::find_if(lost.states, [](int64_t n) { return n > 0; }) -= 1;
  EXPECT_DEATH(record(lost), "check failed");
  StepRouting moved = good;  // the sum is right, but an expert processed what nobody sent to it
  moved.states[0] += moved.assignments[0];
  moved.states[1] -= moved.assignments[0];
  EXPECT_DEATH(record(moved), "check failed");
  StepRouting of_nobody = good;
  of_nobody.sequence_states[0] -= 1;
  EXPECT_DEATH(record(of_nobody), "check failed");
  StepRouting confused = good;  // a sequence is told of another state than the layers are
  ++confused.sequence_states[0];
  --confused.sequence_states[3];
  EXPECT_DEATH(record(confused), "check failed");
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

// Where tokens choose between one and three experts, a layer has as many assignments as were counted by row.
TEST(ExpertStatsDeathTest, AVaryingNumberOfExpertsIsExactToo) {
  const auto record = [](const StepRouting& step) { ExpertStats(2, 4, 3, 32).Record(step); };
  StepRouting good;
  good.num_layers = 2;
  good.num_experts = 4;
  good.top_k = 3;
  good.min_k = 1;
  good.num_tokens = 5;
  good.assignments = {3, 2, 2, 0, 5, 4, 3, 1};
  good.row_assignments = {7, 13};
  good.sequence_assignments = {12, 8};
  good.gate_weight.resize(8);
  good.probability.resize(8);
  good.squared_log_sum_exp.resize(2);
  record(good);
  StepRouting lost = good;
  --lost.assignments[1];
  EXPECT_DEATH(record(lost), "6 vs. 7");
  StepRouting unowned = good;
  --unowned.sequence_assignments[0];
  EXPECT_DEATH(record(unowned), "19 vs. 20");
  StepRouting many = good;  // the layer agrees with itself, and no rows could have chosen so many
  many.assignments[0] += 9;
  many.row_assignments[0] += 9;
  many.sequence_assignments[0] += 9;
  EXPECT_DEATH(record(many), "16 vs. 15");
  StepRouting few = good;
  few.assignments = {1, 1, 2, 0, 5, 4, 3, 1};
  few.row_assignments = {4, 13};
  few.sequence_assignments = {9, 8};
  EXPECT_DEATH(record(few), "4 vs. 5");
  StepRouting fixed = good;  // all have K after all
  fixed.min_k = kAlwaysTopK;
  EXPECT_DEATH(record(fixed), "7 vs. 15");
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
