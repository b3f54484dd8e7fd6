// ReplayChoices: recorded experts in the place of the router's, and what they weigh.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

constexpr int64_t kRows = 40;
constexpr int64_t kExperts = 23;
constexpr int64_t kTopK = 5;

// All ways of scoring and weighing that a model may have.
std::vector<RouterOptions> AllOptions() {
  std::vector<RouterOptions> all;
  for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kIdentity}) {
    for (const WeightNorm norm : {WeightNorm::kNone, WeightNorm::kSum, WeightNorm::kSoftmax, WeightNorm::kUniform}) {
      if (score == RouterScore::kIdentity && norm == WeightNorm::kSum) continue;  // such a sum may be anything
      all.push_back({.top_k = kTopK, .score = score, .norm = norm, .norm_epsilon = 1e-20f, .scaling_factor = 1.5f});
    }
  }
  all.push_back({.top_k = kTopK, .norm = WeightNorm::kSum, .top_p = 0.5f});
  return all;
}

class ReplayTest : public OpTest {
 protected:
  // What the router chose of `logits`, and room for what is replayed.
  struct Routed {
    Tensor ids, weights, probabilities;
  };

  Routed Route(const Tensor& logits, const RouterOptions& options) {
    Routed routed = {.ids = tensors().Zeros(DType::kI32, {kRows, kTopK}),
                     .weights = tensors().Zeros(DType::kF32, {kRows, kTopK}),
                     .probabilities = tensors().Zeros(DType::kF32, {kRows, kExperts})};
    const Tensor log_sum_exp = tensors().Zeros(DType::kF32, {kRows});
    ops().RouteTopK(routed.ids.view, routed.weights.view, routed.probabilities.view, log_sum_exp.view, logits.view, {},
                    {}, options);
    EXPECT_TRUE(device().Synchronize().ok());
    return routed;
  }

  // Rows in turn: the router's, recorded experts, recorded experts and weights.
  static RowReplay ModeOf(int64_t row) { return static_cast<RowReplay>(row % 3); }
  Tensor Modes() {
    std::vector<double> modes;
    for (int64_t row = 0; row < kRows; ++row) modes.push_back(static_cast<double>(row % 3));
    return tensors().Of(DType::kI32, {kRows}, modes);
  }

  static int32_t Id(const Tensor& ids, int64_t i) { return ids.view.data<int32_t>()[i]; }
  static float Weight(const Tensor& weights, int64_t i) { return weights.view.data<float>()[i]; }
};

TEST_P(ReplayTest, WhatWasChosenIsChosenAgainToTheBit) {
  for (const RouterOptions& options : AllOptions()) {
    SCOPED_TRACE(static_cast<int>(options.score) * 10 + static_cast<int>(options.norm));
    const Tensor logits = tensors().Random(DType::kF32, {kRows, kExperts}, 2.0);
    const Routed routed = Route(logits, options);
    const Tensor ids = tensors().Of(DType::kI32, {kRows, kTopK}, std::vector<double>(kRows * kTopK, 3.0));
    const Tensor weights = tensors().Of(DType::kF32, {kRows, kTopK}, std::vector<double>(kRows * kTopK, 9.0));
    const Tensor modes = Modes();
    ops().ReplayChoices(ids.view, weights.view, logits.view, routed.probabilities.view,
                        {.modes = modes.view, .expert_ids = routed.ids.view, .weights = routed.weights.view}, options);
    ASSERT_TRUE(device().Synchronize().ok());
    for (int64_t i = 0; i < kRows * kTopK; ++i) {
      const bool is_own = ModeOf(i / kTopK) == RowReplay::kNone;
      ASSERT_EQ(Id(ids, i), is_own ? 3 : Id(routed.ids, i)) << i;
      ASSERT_EQ(Weight(weights, i), is_own ? 9.0f : Weight(routed.weights, i)) << i;
    }
  }
}

// Experts that the router would not choose, as many as one likes, against formulas in double precision.
TEST_P(ReplayTest, OtherExpertsHaveTheRoutersWeightsOrTheirOwn) {
  for (const RouterOptions& options : AllOptions()) {
    SCOPED_TRACE(static_cast<int>(options.score) * 10 + static_cast<int>(options.norm));
    const Tensor logits = tensors().Random(DType::kF32, {kRows, kExperts}, 2.0);
    const Routed routed = Route(logits, options);
    std::vector<double> recorded_ids, recorded_weights;
    std::vector<double> order(kExperts);
    std::iota(order.begin(), order.end(), 0.0);
    for (int64_t row = 0; row < kRows; ++row) {
      std::shuffle(order.begin(), order.end(), tensors().random());
      for (int64_t j = 0; j < kTopK; ++j) {  // 0 to K of them
        const bool is_there = j < row % (kTopK + 1);
        recorded_ids.push_back(is_there ? order[static_cast<size_t>(j)] : static_cast<double>(kPadding));
        recorded_weights.push_back(is_there ? 0.125 * static_cast<double>(row + j) : 0.0);
      }
    }
    const Tensor modes = Modes();
    const Tensor from_ids = tensors().Of(DType::kI32, {kRows, kTopK}, recorded_ids);
    const Tensor from_weights = tensors().Of(DType::kF32, {kRows, kTopK}, recorded_weights);
    const Tensor ids = tensors().Zeros(DType::kI32, {kRows, kTopK});
    const Tensor weights = tensors().Of(DType::kF32, {kRows, kTopK}, std::vector<double>(kRows * kTopK, 9.0));
    ops().ReplayChoices(ids.view, weights.view, logits.view, routed.probabilities.view,
                        {.modes = modes.view, .expert_ids = from_ids.view, .weights = from_weights.view}, options);
    ASSERT_TRUE(device().Synchronize().ok());
    for (int64_t row = 0; row < kRows; ++row) {
      if (ModeOf(row) == RowReplay::kNone) continue;
      const int64_t count = row % (kTopK + 1);
      std::vector<double> z(logits.values.begin() + row * kExperts, logits.values.begin() + (row + 1) * kExperts);
      double all = 0.0;
      for (const double value : z) all += std::exp(value);
      const auto chosen = [&](int64_t j) { return static_cast<size_t>(recorded_ids[row * kTopK + j]); };
      const auto score = [&](int64_t j) {
        if (options.score == RouterScore::kSoftmax) return std::exp(z[chosen(j)]) / all;
        return options.score == RouterScore::kSigmoid ? 1.0 / (1.0 + std::exp(-z[chosen(j)])) : z[chosen(j)];
      };
      double sum_of_scores = 0.0, sum_of_exp = 0.0;
      for (int64_t j = 0; j < count; ++j) {
        sum_of_scores += score(j);
        sum_of_exp += std::exp(z[chosen(j)]);
      }
      for (int64_t j = 0; j < kTopK; ++j) {
        const int64_t i = row * kTopK + j;
        ASSERT_EQ(Id(ids, i), static_cast<int32_t>(recorded_ids[static_cast<size_t>(i)]));
        double expected = recorded_weights[static_cast<size_t>(i)];
        if (ModeOf(row) == RowReplay::kRouterWeights && j < count) {
          expected = options.norm == WeightNorm::kNone      ? score(j)
                     : options.norm == WeightNorm::kSum     ? score(j) / sum_of_scores
                     : options.norm == WeightNorm::kSoftmax ? std::exp(z[chosen(j)]) / sum_of_exp
                                                            : 1.0 / static_cast<double>(count);
          expected *= static_cast<double>(options.scaling_factor);
        }
        ASSERT_NEAR(Weight(weights, i), expected, 1e-5 * (std::abs(expected) + 0.01)) << "row " << row << " " << j;
      }
    }
  }
}

// Groups and selection bias decide who is chosen; a recorded choice is made, wherever it lies.
TEST_P(ReplayTest, GroupsDoNotExcludeRecordedExperts) {
  const RouterOptions options = {.top_k = 2, .score = RouterScore::kSigmoid, .num_groups = 4, .num_kept_groups = 1};
  const Tensor logits = tensors().Of(DType::kF32, {1, 8}, {5, 4, 0, 0, 0, 0, 0, 0});
  const Tensor probabilities = tensors().Zeros(DType::kF32, {1, 8});
  const Tensor modes = tensors().Of(DType::kI32, {1}, {1});
  const Tensor recorded = tensors().Of(DType::kI32, {1, 2}, {7, 1});
  const Tensor nothing = tensors().Zeros(DType::kF32, {1, 2});
  const Tensor ids = tensors().Zeros(DType::kI32, {1, 2});
  const Tensor weights = tensors().Zeros(DType::kF32, {1, 2});
  ops().ReplayChoices(ids.view, weights.view, logits.view, probabilities.view,
                      {.modes = modes.view, .expert_ids = recorded.view, .weights = nothing.view}, options);
  ASSERT_TRUE(device().Synchronize().ok());
  EXPECT_EQ(Id(ids, 0), 7);
  EXPECT_EQ(Id(ids, 1), 1);
  EXPECT_NEAR(Weight(weights, 0), 0.5, 1e-6);
  EXPECT_NEAR(Weight(weights, 1), 1.0 / (1.0 + std::exp(-4.0)), 1e-6);
}

CADRE_INSTANTIATE_OP_TEST(ReplayTest);

}  // namespace
}  // namespace cadre
