// What is learned from steps, and how estimates follow from it.
#include "engine/schedule/step_cost_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "engine/schedule/service_estimate.h"

namespace cadre {
namespace {

StepLoad RandomLoad(std::mt19937* random) {
  const auto rows = static_cast<int64_t>(1 + (*random)() % 64);
  return {.rows = rows, .attended = rows * static_cast<int64_t>((*random)() % 1000)};
}

double TrueSeconds(const StepLoad& load) {
  return 0.005 + 0.0003 * static_cast<double>(load.rows) + 2e-7 * static_cast<double>(load.attended);
}

TEST(StepCostModelTest, KnowsNothingAtFirst) {
  StepCostModel model;
  std::mt19937 random(1);
  for (int64_t i = 0; i < StepCostModel::kMinSteps; ++i) {
    EXPECT_FALSE(model.costs().is_known);
    model.Observe(RandomLoad(&random), 0.01);
  }
  EXPECT_TRUE(model.costs().is_known);
}

TEST(StepCostModelTest, FindsTheCostsOfAStepARowAndAPosition) {
  StepCostModel model;
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    const StepLoad load = RandomLoad(&random);
    model.Observe(load, TrueSeconds(load));
  }
  EXPECT_NEAR(model.costs().step, 0.005, 5e-5);
  EXPECT_NEAR(model.costs().row, 0.0003, 3e-6);
  EXPECT_NEAR(model.costs().position, 2e-7, 2e-9);
}

TEST(StepCostModelTest, OutliersMoveLittle) {
  StepCostModel model;
  std::mt19937 random(3);
  for (int i = 0; i < 1000; ++i) {
    const StepLoad load = RandomLoad(&random);
    const double noise = 0.9 + 0.2 * static_cast<double>(random() % 1000) / 1000;
    model.Observe(load, TrueSeconds(load) * (i % 20 == 7 ? 1000.0 : noise));  // a pause of the machine
  }
  const StepLoad load{.rows = 32, .attended = 16000};
  EXPECT_NEAR(model.costs().Predict(load) / TrueSeconds(load), 1.0, 0.15);
}

TEST(StepCostModelTest, FollowsAMachineThatBecomesSlower) {
  StepCostModel model;
  std::mt19937 random(4);
  for (int i = 0; i < 1500; ++i) {
    const StepLoad load = RandomLoad(&random);
    model.Observe(load, TrueSeconds(load) * (i < 1000 ? 1 : 10));
  }
  const StepLoad load{.rows = 32, .attended = 16000};
  EXPECT_NEAR(model.costs().Predict(load) / (10 * TrueSeconds(load)), 1.0, 0.05);
}

// Whatever was seen, no cost is negative, and what was seen is predicted.
TEST(StepCostModelTest, LoadsThatNeverChangeAreNoTrouble) {
  for (const StepLoad load : {StepLoad{1, 1}, StepLoad{64, 0}, StepLoad{8, 100'000'000'000}, StepLoad{0, 0}}) {
    StepCostModel model;
    for (int i = 0; i < 100; ++i) model.Observe(load, 0.02);
    EXPECT_NEAR(model.costs().Predict(load), 0.02, 1e-6) << load.rows;
    EXPECT_GE(model.costs().step, 0.0);
    EXPECT_GE(model.costs().row, 0.0);
    EXPECT_GE(model.costs().position, 0.0);
  }
  StepCostModel model;
  for (int i = 0; i < 100; ++i) model.Observe({.rows = 100 - i, .attended = i}, 1e-3 * i);  // slower with fewer rows
  EXPECT_GE(model.costs().row, 0.0);
  EXPECT_TRUE(std::isfinite(model.costs().Predict({.rows = 1, .attended = 1})));
}

// ---- estimates: steps of 10 ms and 1 ms a row ----

ServiceState FourSeats() {
  ServiceState state;
  state.costs = {.step = 0.01, .row = 0.001, .position = 0.0, .is_known = true};
  state.num_seats = 4;
  state.max_prompt_rows = 100;
  return state;
}

TEST(ServiceEstimateTest, AloneItIsPromptAndTokens) {
  const ServiceEstimate estimate = EstimateService(FourSeats(), {}, {1, 50, 11});
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.first_token), 0.011 + 0.050, 1e-9);
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.last_token - estimate.first_token), 10 * 0.011, 1e-9);
}

TEST(ServiceEstimateTest, AFreeSeatMeansNoWaitButSlowerSteps) {
  ServiceState state = FourSeats();
  state.running = {.num_sequences = 3, .prompt_tokens = 0, .output_tokens = 3000};
  const ServiceEstimate estimate = EstimateService(state, {}, {1, 50, 11});
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.first_token), 0.014 + 0.050, 1e-9);
}

TEST(ServiceEstimateTest, AFullHouseMeansWaitingForASeat) {
  ServiceState state = FourSeats();
  state.running = {.num_sequences = 4, .prompt_tokens = 0, .output_tokens = 400};
  // 12 wait, each of 100 tokens: 1600 tokens through 4 seats, the last four half done when the seat is free.
  const ServiceEstimate estimate = EstimateService(state, {12, 120, 1200}, {1, 10, 100});
  const double step = 0.01 + 4 * 0.001;
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.first_token), (1600 - 200) / 4.0 * step + 0.130, 1e-9);
  EXPECT_GT(estimate.last_token - estimate.first_token, absl::Seconds(99 * step));
}

TEST(ServiceEstimateTest, MoreAheadNeverMeansEarlier) {
  ServiceState state = FourSeats();
  state.running = {.num_sequences = 4, .prompt_tokens = 10, .output_tokens = 100};
  absl::Duration previous = absl::ZeroDuration();
  for (int64_t n = 0; n < 50; ++n) {
    const ServiceEstimate estimate = EstimateService(state, {n, 10 * n, 25.0 * static_cast<double>(n)}, {1, 10, 20});
    EXPECT_GE(estimate.last_token, previous);
    previous = estimate.last_token;
  }
}

}  // namespace
}  // namespace cadre
