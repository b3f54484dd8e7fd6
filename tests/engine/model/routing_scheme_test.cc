// Routing schemes from their settings to the weights of the chosen experts: read as config.json says them, computed by
// the device, compared with formulas in double precision.
#include "engine/model/routing_scheme.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"
#include "tests/support/reference_router.h"
#include "tests/support/routed_config.h"

namespace cadre {
namespace {

using nlohmann::json;
class RoutingSchemeTest : public OpTest {
 protected:
  struct Choices {
    std::vector<int32_t> ids;    // [T, K]
    std::vector<float> weights;  // [T, K]
  };

  // The choices of layer 0, of a row each; none of the rows' own for schemes that do not ask for them. As MixExperts
  // does it.
  Choices Route(const ModelConfig& config, const Tensor& given, const std::vector<RoutedRow>& rows = {}) {
    const Tensor logits = tensors().Of(DType::kF32, given.view.shape(), given.values);
    if (!rows.empty()) PrepareLogits(config, rows, logits.view);
    const int64_t t = logits.view.dim(0), e = config.num_experts, k = config.router.top_k;
    const std::vector<float>& bias = config.routing.selection_bias;
    const Tensor bias_tensor =
        bias.empty() ? Tensor() : tensors().Of(DType::kF32, {e}, std::vector<double>(bias.begin(), bias.begin() + e));
    const Tensor ids = tensors().Zeros(DType::kI32, {t, k});
    const Tensor weights = tensors().Zeros(DType::kF32, {t, k});
    const Tensor probabilities = tensors().Zeros(DType::kF32, {t, e});
    const Tensor log_sum_exp = tensors().Zeros(DType::kF32, {t});
    ops().RouteTopK(ids.view, weights.view, probabilities.view, log_sum_exp.view, logits.view,
                    bias.empty() ? ConstView() : ConstView(bias_tensor.view), {}, config.router);
    EXPECT_TRUE(device().Synchronize().ok());
    return {{ids.view.data<int32_t>(), ids.view.data<int32_t>() + t * k},
            {weights.view.data<float>(), weights.view.data<float>() + t * k}};
  }

  void PrepareLogits(const ModelConfig& config, const std::vector<RoutedRow>& rows, View logits) {
    const auto t = static_cast<int64_t>(rows.size());
    const Tensor tokens = tensors().Zeros(DType::kI32, {t}), positions = tensors().Zeros(DType::kI32, {t});
    const Tensor sequences = tensors().Zeros(DType::kI32, {t}), seeds = tensors().Zeros(DType::kI32, {t, 2});
    for (int64_t i = 0; i < t; ++i) {
      const RoutedRow& row = rows[static_cast<size_t>(i)];
      tokens.view.data<int32_t>()[i] = row.token;
      positions.view.data<int32_t>()[i] = row.position;
      sequences.view.data<int32_t>()[i] = static_cast<int32_t>(t - 1 - i);
      seeds.view.data<int32_t>()[2 * (t - 1 - i)] = static_cast<int32_t>(static_cast<uint32_t>(row.seed));
      seeds.view.data<int32_t>()[2 * (t - 1 - i) + 1] = static_cast<int32_t>(static_cast<uint32_t>(row.seed >> 32));
    }
    if (config.routing.scheme == RoutingScheme::kHash) {
      ops().HashLogits(logits, tokens.view, rows[0].layer, config.routing.hash_seed);
    }
    if (config.routing.noise > 0.0f) {
      ops().AddGateNoise(logits, seeds.view, sequences.view, positions.view, rows[0].layer, config.routing.noise);
    }
    EXPECT_TRUE(device().Synchronize().ok());
  }

  // Compares rows of random logits with the reference. Returns how many rows were clear enough to be compared.
  int64_t Compare(int64_t num_experts, const json& scheme) {
    SCOPED_TRACE(absl::StrCat(num_experts, " experts, ", scheme.dump()));
    const auto config = ParseModelConfig(ConfigWith(num_experts, scheme).dump());
    EXPECT_TRUE(config.ok()) << config.status();
    if (!config.ok()) return 0;
    constexpr int64_t kRows = 30;
    const Tensor logits = tensors().Random(DType::kF32, {kRows, num_experts}, 2.0);
    std::vector<RoutedRow> rows(kRows);
    for (RoutedRow& row : rows) {
      row = {.layer = 3,
             .token = static_cast<int32_t>(tensors().Uniform(0, 200000)),
             .position = static_cast<int32_t>(tensors().Uniform(0, 5000)),
             .seed = static_cast<uint64_t>(tensors().Uniform(0, std::numeric_limits<int64_t>::max()))};
    }
    const Choices choices = Route(*config, logits, rows);
    std::vector<double> bias;
    if (!config->routing.selection_bias.empty()) {
      bias.assign(config->routing.selection_bias.begin(), config->routing.selection_bias.begin() + num_experts);
    }
    int64_t compared = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      const auto begin = logits.values.begin() + row * num_experts;
      const ReferenceChoice expected =
          ReferenceRoute(scheme, {begin, begin + num_experts}, bias, std::min(kFamilyTopK, num_experts),
                         rows[static_cast<size_t>(row)]);
      if (expected.margin < 4e-6) continue;
      ++compared;
      const int64_t k = config->router.top_k;
      for (int64_t j = 0; j < k; ++j) {
        const auto at = static_cast<size_t>(row * k + j);
        if (j >= static_cast<int64_t>(expected.ids.size())) {
          EXPECT_EQ(choices.ids[at], kPadding) << "row " << row << " choice " << j;
          EXPECT_EQ(choices.weights[at], 0.0f);
          continue;
        }
        EXPECT_EQ(choices.ids[at], expected.ids[static_cast<size_t>(j)]) << "row " << row << " choice " << j;
        const double weight = expected.weights[static_cast<size_t>(j)];
        EXPECT_NEAR(choices.weights[at], weight, 2e-6 * (std::abs(weight) + 0.01)) << "row " << row << " choice " << j;
      }
      if (HasFailure()) return compared;
    }
    EXPECT_GT(compared, kRows / 2);
    return compared;
  }

  json RandomBias(int64_t num_experts) {
    json bias = json::array();
    for (int64_t e = 0; e < num_experts; ++e) bias.push_back(0.01 * static_cast<double>(tensors().Uniform(-40, 40)));
    return bias;
  }
};

TEST_P(RoutingSchemeTest, SoftmaxTopK) {
  for (const char* const normalize : {"before", "after"}) {
    for (const int64_t e : {4, 13, 64}) {
      Compare(e, {{"scheme", "softmax-top-k"}, {"normalize", normalize}});
      Compare(e, {{"scheme", "softmax-top-k"}, {"normalize", normalize}, {"top_k", 4}, {"scaling_factor", 2.5}});
    }
  }
  Compare(8, {{"scheme", "softmax-top-k"}});
}

TEST_P(RoutingSchemeTest, SigmoidBias) {
  for (const int64_t e : {4, 13, 64}) {
    Compare(e, {{"scheme", "sigmoid-bias"}});
    Compare(e, {{"scheme", "sigmoid-bias"}, {"selection_bias", RandomBias(e)}, {"scaling_factor", 2.5}});
    Compare(e, {{"scheme", "sigmoid-bias"}, {"selection_bias", RandomBias(e)}, {"renormalize", false}, {"top_k", 2}});
  }
}

TEST_P(RoutingSchemeTest, GroupLimited) {
  for (const char* const score : {"softmax", "sigmoid"}) {
    for (const char* const group_score : {"max", "top2-sum"}) {
      json scheme = {{"scheme", "group-limited"}, {"num_groups", 8}, {"kept_groups", 3}, {"score", score}, {"top_k", 5},
                     {"group_score", group_score}};
      Compare(64, scheme);
      scheme["selection_bias"] = RandomBias(64);
      scheme["renormalize"] = true;
      Compare(64, scheme);
    }
    Compare(12, {{"scheme", "group-limited"}, {"num_groups", 4}, {"kept_groups", 2}, {"score", score}});
    Compare(6, {{"scheme", "group-limited"}, {"num_groups", 6}, {"kept_groups", 4}, {"score", score}});
  }
}

TEST_P(RoutingSchemeTest, SwitchAndDense) {
  for (const int64_t e : {2, 7, 64}) Compare(e, {{"scheme", "switch"}});
  for (const int64_t e : {2, 7, 24}) Compare(e, {{"scheme", "dense"}});
}

TEST_P(RoutingSchemeTest, Gshard) {
  for (const int64_t e : {2, 7, 64}) Compare(e, {{"scheme", "gshard"}});
}

TEST_P(RoutingSchemeTest, NoisyTopK) {
  for (const int64_t e : {4, 7, 64}) {
    Compare(e, {{"scheme", "noisy-top-k"}});
    Compare(e, {{"scheme", "noisy-top-k"}, {"noise", 0.25}, {"top_k", 2}, {"scaling_factor", 3}});
    Compare(e, {{"scheme", "noisy-top-k"}, {"noise", 0}});
  }
}

TEST_P(RoutingSchemeTest, Hash) {
  for (const int64_t e : {4, 7, 64}) {
    Compare(e, {{"scheme", "hash"}});
    Compare(e, {{"scheme", "hash"}, {"top_k", 3}, {"hash_seed", 123456789012345}});
  }
}

TEST_P(RoutingSchemeTest, TopP) {
  for (const int64_t e : {4, 7, 24}) {
    for (const double p : {0.01, 0.4, 0.7, 0.95}) {
      Compare(e, {{"scheme", "top-p"}, {"p", p}});
      Compare(e, {{"scheme", "top-p"}, {"p", p}, {"k_min", 2}, {"k_max", 4}, {"renormalize", true}});
    }
  }
}

TEST_P(RoutingSchemeTest, Threshold) {
  for (const int64_t e : {4, 7, 24}) {
    for (const double tau : {0.001, 0.03, 0.1, 0.3, 0.9}) {
      Compare(e, {{"scheme", "threshold"}, {"tau", tau}});
      Compare(e, {{"scheme", "threshold"},
                  {"tau", tau},
                  {"k_min", 2},
                  {"k_max", 4},
                  {"renormalize", true},
                  {"scaling_factor", 2.5}});
    }
  }
}

// Two sequences: one whose prompt ends within its second group and which goes on behind it, and one of padding.
TEST_P(RoutingSchemeTest, ExpertChoice) {
  int compared = 0;
  for (int trial = 0; trial < 12; ++trial) {
    const int64_t e = trial % 3 == 0 ? 4 : 12, group = 10, length = 16, t = 20;
    const json scheme = {{"scheme", "expert-choice"},
                         {"group", group},
                         {"capacity_factor", 0.25 * static_cast<double>(tensors().Uniform(1, 16))},
                         {"k_max", trial % 2 == 0 ? e : 4},
                         {"scaling_factor", 1.5}};
    SCOPED_TRACE(absl::StrCat(e, " experts, ", scheme.dump()));
    const auto config = ParseModelConfig(ConfigWith(e, scheme).dump());
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(FewestExperts(*config), 0);
    const int64_t k = config->router.top_k;
    const Tensor logits = tensors().Random(DType::kF32, {t + 2, e}, 1.5);
    std::vector<double> sequence_of(t, 0.0), position_of;
    sequence_of.insert(sequence_of.end(), 2, static_cast<double>(kPadding));
    for (int64_t i = 0; i < t + 2; ++i) position_of.push_back(static_cast<double>(i < t ? i : 0));
    const Tensor sequences = tensors().Of(DType::kI32, {t + 2}, sequence_of);
    const Tensor positions = tensors().Of(DType::kI32, {t + 2}, position_of);
    const Tensor lengths = tensors().Of(DType::kI32, {1}, {static_cast<double>(length)});
    const Tensor ids = tensors().Zeros(DType::kI32, {t + 2, k});
    const Tensor weights = tensors().Zeros(DType::kF32, {t + 2, k});
    const Tensor probabilities = tensors().Zeros(DType::kF32, {t + 2, e});
    const Tensor log_sum_exp = tensors().Zeros(DType::kF32, {t + 2});
    ops().RouteTopK(ids.view, weights.view, probabilities.view, log_sum_exp.view, logits.view, {}, sequences.view,
                    config->router);
    ops().ChooseByExpert(ids.view, weights.view, probabilities.view, sequences.view, positions.view, lengths.view,
                         config->routing.expert_choice, config->router);
    ASSERT_TRUE(device().Synchronize().ok());
    std::vector<ReferenceChoice> expected;
    const auto row = [&](int64_t i) {
      return std::vector<double>(logits.values.begin() + i * e, logits.values.begin() + (i + 1) * e);
    };
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 10}, {10, 16}}) {
      std::vector<std::vector<double>> of_group;
      for (int64_t i = begin; i < end; ++i) of_group.push_back(row(i));
      for (ReferenceChoice& choice : ReferenceExpertChoice(scheme, of_group)) expected.push_back(std::move(choice));
    }
    for (int64_t i = length; i < t; ++i) {  // behind the prompt: the family's own, softmax and top 3
      expected.push_back(ReferenceRoute({{"scheme", "softmax-top-k"}, {"normalize", "before"}, {"scaling_factor", 1.5}},
                                        row(i), {}, kFamilyTopK, {}));
    }
    expected.resize(t + 2);
    for (int64_t i = 0; i < t + 2; ++i) {
      const ReferenceChoice& choice = expected[static_cast<size_t>(i)];
      if (i < t && choice.margin < 4e-6) continue;
      ++compared;
      for (int64_t j = 0; j < k; ++j) {
        const bool is_chosen = j < static_cast<int64_t>(choice.ids.size());
        const auto at = static_cast<size_t>(j);
        ASSERT_EQ(ids.view.data<int32_t>()[i * k + j], is_chosen ? choice.ids[at] : kPadding) << i << " " << j;
        ASSERT_NEAR(weights.view.data<float>()[i * k + j], is_chosen ? choice.weights[at] : 0.0, 3e-6);
      }
    }
  }
  EXPECT_GT(compared, 12 * 22 / 2);
}

// Noise is normal, and independent of what a row does not share with another.
TEST_P(RoutingSchemeTest, NoiseIsNormal) {
  const auto config = ParseModelConfig(ConfigWith(64, {{"scheme", "noisy-top-k"}, {"noise", 2.0}}).dump());
  ASSERT_TRUE(config.ok());
  constexpr int64_t kRows = 200;
  const Tensor logits = tensors().Zeros(DType::kF32, {kRows, 64});
  std::vector<RoutedRow> rows(kRows);
  for (int64_t i = 0; i < kRows; ++i) rows[static_cast<size_t>(i)].position = static_cast<int32_t>(i);
  PrepareLogits(*config, rows, logits.view);
  double sum = 0.0, squares = 0.0, next = 0.0, below = 0.0;
  const float* const z = logits.view.data<float>();
  constexpr int64_t kCount = kRows * 64;
  for (int64_t i = 0; i < kCount; ++i) {
    ASSERT_TRUE(std::isfinite(z[i]));
    sum += z[i];
    squares += z[i] * z[i];
    next += z[i] * z[(i + 1) % kCount];
    below += z[i] < -2.0f ? 1.0 : 0.0;
  }
  // Five deviations of each estimate.
  EXPECT_NEAR(sum / kCount, 0.0, 5 * 2.0 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 4.0, 5 * 4.0 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(next / kCount, 0.0, 5 * 4.0 / std::sqrt(kCount));
  EXPECT_NEAR(below / kCount, 0.158655, 5 * std::sqrt(0.158655 * 0.841345 / kCount));
}

// A hash spreads tokens evenly, and layers and seeds have their own.
TEST_P(RoutingSchemeTest, HashIsEven) {
  const auto config = ParseModelConfig(ConfigWith(8, {{"scheme", "hash"}}).dump());
  ASSERT_TRUE(config.ok());
  const Tensor logits = tensors().Zeros(DType::kF32, {300, 8});
  std::vector<RoutedRow> rows(300);
  for (int32_t i = 0; i < 300; ++i) rows[static_cast<size_t>(i)].token = i;
  const Choices first = Route(*config, logits, rows);
  std::vector<int> counts(8);
  for (const int32_t id : first.ids) ++counts[static_cast<size_t>(id)];
  for (const int count : counts) EXPECT_NEAR(count, 300.0 / 8, 5 * std::sqrt(300.0 * 7 / 64));
  EXPECT_EQ(Route(*config, logits, rows).ids, first.ids);
  for (RoutedRow& row : rows) row.layer = 1;
  EXPECT_NE(Route(*config, logits, rows).ids, first.ids);
  const auto seeded = ParseModelConfig(ConfigWith(8, {{"scheme", "hash"}, {"hash_seed", 1}}).dump());
  for (RoutedRow& row : rows) row.layer = 0;
  EXPECT_NE(Route(*seeded, logits, rows).ids, first.ids);
}

TEST_P(RoutingSchemeTest, RandomShapes) {
  for (int i = 0; i < 40; ++i) {
    const int64_t group_size = tensors().Uniform(1, 9);
    const int64_t num_groups = tensors().Uniform(1, 9);
    const int64_t e = group_size * num_groups;
    const int64_t kept = tensors().Uniform(1, num_groups);
    Compare(e, {{"scheme", "group-limited"},
                {"num_groups", num_groups},
                {"kept_groups", kept},
                {"score", i % 2 == 0 ? "sigmoid" : "softmax"},
                {"top_k", tensors().Uniform(1, std::min<int64_t>(group_size * kept, 8))},
                {"selection_bias", RandomBias(e)}});
    Compare(e, {{"scheme", "softmax-top-k"},
                {"normalize", i % 2 == 0 ? "before" : "after"},
                {"top_k", tensors().Uniform(1, std::min<int64_t>(e, 8))}});
    Compare(e, {{"scheme", "top-p"},
                {"p", 0.01 * static_cast<double>(tensors().Uniform(1, 99))},
                {"k_min", tensors().Uniform(1, std::min<int64_t>(e, 3))},
                {"k_max", tensors().Uniform(std::min<int64_t>(e, 3), std::min<int64_t>(e, 8))}});
    Compare(e, {{"scheme", "threshold"},
                {"tau", 0.005 * static_cast<double>(tensors().Uniform(1, 80))},
                {"k_min", tensors().Uniform(1, std::min<int64_t>(e, 3))},
                {"k_max", tensors().Uniform(std::min<int64_t>(e, 3), std::min<int64_t>(e, 8))}});
    if (HasFailure()) return;
  }
}

// A case that can be computed by hand: z = ln 8, ln 4, ln 2, ln 1, ln 1; softmax 8/16, 4/16, 2/16, 1/16, 1/16.
TEST_P(RoutingSchemeTest, ByHand) {
  const Tensor logits =
      tensors().Of(DType::kF32, {1, 5}, {std::log(1.0), std::log(8.0), std::log(2.0), std::log(4.0), 0});
  const auto expect = [&](const json& scheme, std::vector<int32_t> ids, std::vector<double> weights) {
    const auto config = ParseModelConfig(ConfigWith(5, scheme).dump());
    ASSERT_TRUE(config.ok()) << config.status();
    const Choices choices = Route(*config, logits);
    EXPECT_EQ(choices.ids, ids) << scheme;
    ASSERT_EQ(choices.weights.size(), weights.size());
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(choices.weights[i], weights[i], 1e-6) << scheme;
  };
  expect({{"scheme", "family"}}, {1, 3, 2}, {8.0 / 16, 4.0 / 16, 2.0 / 16});
  expect({{"scheme", "softmax-top-k"}, {"top_k", 2}, {"normalize", "before"}}, {1, 3}, {8.0 / 16, 4.0 / 16});
  expect({{"scheme", "softmax-top-k"}, {"top_k", 2}, {"normalize", "after"}}, {1, 3}, {8.0 / 12, 4.0 / 12});
  expect({{"scheme", "switch"}}, {1}, {8.0 / 16});
  expect({{"scheme", "gshard"}}, {1, 3}, {8.0 / 12, 4.0 / 12});
  expect({{"scheme", "top-p"}, {"p", 0.74}, {"k_max", 4}}, {1, 3, kPadding, kPadding}, {8.0 / 16, 4.0 / 16, 0, 0});
  expect({{"scheme", "top-p"}, {"p", 0.76}, {"k_max", 4}}, {1, 3, 2, kPadding}, {8.0 / 16, 4.0 / 16, 2.0 / 16, 0});
  expect({{"scheme", "top-p"}, {"p", 0.1}, {"k_min", 2}, {"k_max", 3}, {"renormalize", true}}, {1, 3, kPadding},
         {8.0 / 12, 4.0 / 12, 0});
  expect({{"scheme", "top-p"}, {"p", 1}, {"k_max", 2}}, {1, 3}, {8.0 / 16, 4.0 / 16});
  expect({{"scheme", "threshold"}, {"tau", 0.13}, {"k_max", 4}}, {1, 3, kPadding, kPadding},
         {8.0 / 16, 4.0 / 16, 0, 0});
  expect({{"scheme", "threshold"}, {"tau", 0.12}, {"k_max", 4}}, {1, 3, 2, kPadding},
         {8.0 / 16, 4.0 / 16, 2.0 / 16, 0});
  expect({{"scheme", "threshold"}, {"tau", 0.9}, {"k_min", 2}, {"k_max", 3}, {"renormalize", true}}, {1, 3, kPadding},
         {8.0 / 12, 4.0 / 12, 0});
  expect({{"scheme", "threshold"}, {"tau", 1e-6}, {"k_max", 2}}, {1, 3}, {8.0 / 16, 4.0 / 16});
  expect({{"scheme", "threshold"}, {"tau", 0.9}}, {1, kPadding, kPadding, kPadding, kPadding}, {8.0 / 16, 0, 0, 0, 0});
  expect({{"scheme", "dense"}}, {1, 3, 2, 0, 4}, {8.0 / 16, 4.0 / 16, 2.0 / 16, 1.0 / 16, 1.0 / 16});
  // Sigmoid of ln x is x / (1 + x). A bias of one half puts expert 0 first, whose weight stays 1/2.
  expect({{"scheme", "sigmoid-bias"}, {"top_k", 2}, {"selection_bias", {0.5, 0, 0, 0, 0}}}, {0, 1},
         {0.5 / (0.5 + 8.0 / 9), 8.0 / 9 / (0.5 + 8.0 / 9)});
}

// A sum of exactly p is enough: two equal logits have one half each.
TEST_P(RoutingSchemeTest, WhatIsExactlyTopPIsEnough) {
  const Tensor logits = tensors().Of(DType::kF32, {1, 2}, {3.0, 3.0});
  const auto at = ParseModelConfig(ConfigWith(2, {{"scheme", "top-p"}, {"p", 0.5}}).dump());
  ASSERT_TRUE(at.ok()) << at.status();
  EXPECT_EQ(Route(*at, logits).ids, (std::vector<int32_t>{0, kPadding}));
  const auto above = ParseModelConfig(ConfigWith(2, {{"scheme", "top-p"}, {"p", 0.50001}}).dump());
  EXPECT_EQ(Route(*above, logits).ids, (std::vector<int32_t>{0, 1}));
}

// An expert whose logit is minus infinity is the last to be chosen, whatever its bias and its group.
TEST_P(RoutingSchemeTest, NoBiasChoosesAnExpertThatIsExcluded) {
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor logits = tensors().Of(DType::kF32, {1, 4}, {-inf, -20.0, 1.0, -inf});
  const json bias = {1000, 0, 0, 1000};
  const auto config =
      ParseModelConfig(ConfigWith(4, {{"scheme", "sigmoid-bias"}, {"selection_bias", bias}, {"top_k", 2}}).dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(Route(*config, logits).ids, (std::vector<int32_t>{2, 1}));
  const auto grouped = ParseModelConfig(ConfigWith(4, {{"scheme", "group-limited"},
                                                       {"num_groups", 2},
                                                       {"kept_groups", 1},
                                                       {"group_score", "max"},
                                                       {"score", "sigmoid"},
                                                       {"selection_bias", bias},
                                                       {"top_k", 2}})
                                            .dump());
  ASSERT_TRUE(grouped.ok()) << grouped.status();
  EXPECT_EQ(Route(*grouped, logits).ids, (std::vector<int32_t>{2, 3})) << "the group of the only good expert";
}

// A probability of exactly tau is enough: two equal logits have one half each.
TEST_P(RoutingSchemeTest, WhatIsExactlyTheThresholdIsChosen) {
  const Tensor logits = tensors().Of(DType::kF32, {1, 2}, {3.0, 3.0});
  const auto at = ParseModelConfig(ConfigWith(2, {{"scheme", "threshold"}, {"tau", 0.5}}).dump());
  ASSERT_TRUE(at.ok()) << at.status();
  EXPECT_EQ(Route(*at, logits).ids, (std::vector<int32_t>{0, 1}));
  const auto above = ParseModelConfig(ConfigWith(2, {{"scheme", "threshold"}, {"tau", 0.50001}}).dump());
  EXPECT_EQ(Route(*above, logits).ids, (std::vector<int32_t>{0, kPadding}));
}

CADRE_INSTANTIATE_OP_TEST(RoutingSchemeTest);

}  // namespace
}  // namespace cadre
