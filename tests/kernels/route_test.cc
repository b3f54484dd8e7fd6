// RouteTopK, TallyRouting and GroupByExpert against the obvious formulas.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

struct Routing {
  Tensor ids;
  Tensor weights;
  Tensor probabilities;
  Tensor log_sum_exp;

  int32_t id(int64_t i) const { return ids.view.data<int32_t>()[i]; }
  float weight(int64_t i) const { return weights.view.data<float>()[i]; }
  float probability(int64_t i) const { return probabilities.view.data<float>()[i]; }
};

class RouteTest : public OpTest {
 protected:
  Routing Route(const Tensor& logits, ConstView bias, const RouterOptions& options, ConstView row_sequence = {}) {
    const int64_t t = logits.view.dim(0), e = logits.view.dim(1), k = options.top_k;
    Routing r = {tensors().Zeros(DType::kI32, {t, k}), tensors().Zeros(DType::kF32, {t, k}),
                 tensors().Zeros(DType::kF32, {t, e}), tensors().Zeros(DType::kF32, {t})};
    ops().RouteTopK(r.ids.view, r.weights.view, r.probabilities.view, r.log_sum_exp.view, logits.view, bias,
                    row_sequence, options);
    return r;
  }

  // The whole definition in doubles, written from the comments of kernels/ops.h.
  void Check(int64_t e, const RouterOptions& o, bool with_bias) {
    const int64_t t = 40;
    const Tensor logits = tensors().Random(DType::kF32, {t, e}, 2.0);
    const Tensor bias = tensors().Random(DType::kF32, {e}, 0.3);
    const Routing r = Route(logits, with_bias ? bias.view : ConstView(), o);
    for (int64_t row = 0; row < t; ++row) {
      std::vector<double> z, s, c, p;
      double sum_exp = 0.0;
      for (int64_t i = 0; i < e; ++i) sum_exp += std::exp(logits(row * e + i));
      for (int64_t i = 0; i < e; ++i) {
        z.push_back(logits(row * e + i));
        p.push_back(std::exp(z.back()) / sum_exp);
        s.push_back(o.score == RouterScore::kSoftmax   ? p.back()
                    : o.score == RouterScore::kSigmoid ? 1.0 / (1.0 + std::exp(-z.back()))
                                                       : z.back());
        c.push_back(s.back() + (with_bias ? bias(i) : 0.0));
      }
      if (o.score == RouterScore::kSigmoid) {
        const double sum = std::accumulate(s.begin(), s.end(), 0.0);
        for (int64_t i = 0; i < e; ++i) p[static_cast<size_t>(i)] = s[static_cast<size_t>(i)] / sum;
      }
      const int64_t group_size = e / o.num_groups;
      std::vector<std::pair<double, int64_t>> groups;
      for (int64_t g = 0; g < o.num_groups; ++g) {
        std::vector<double> in_group(c.begin() + g * group_size, c.begin() + (g + 1) * group_size);
        std::sort(in_group.rbegin(), in_group.rend());
        groups.emplace_back(-in_group[0] - (o.group_score == GroupScore::kTop2Sum ? in_group[1] : 0.0), g);
      }
      std::sort(groups.begin(), groups.end());
      std::vector<std::pair<double, int64_t>> candidates;
      for (int64_t i = 0; i < o.num_kept_groups; ++i) {
        const int64_t g = groups[static_cast<size_t>(i)].second;
        for (int64_t j = g * group_size; j < (g + 1) * group_size; ++j) {
          candidates.emplace_back(-c[static_cast<size_t>(j)], j);
        }
      }
      std::sort(candidates.begin(), candidates.end());
      double sum = 0.0, sum_exp_chosen = 0.0;
      for (int64_t j = 0; j < o.top_k; ++j) {
        const auto id = static_cast<size_t>(candidates[static_cast<size_t>(j)].second);
        ASSERT_EQ(r.id(row * o.top_k + j), static_cast<int32_t>(id)) << "row " << row << " choice " << j;
        sum += s[id];
        sum_exp_chosen += std::exp(z[id]);
      }
      for (int64_t j = 0; j < o.top_k; ++j) {
        const auto id = static_cast<size_t>(candidates[static_cast<size_t>(j)].second);
        double w = s[id];
        if (o.norm == WeightNorm::kSum) w /= sum + static_cast<double>(o.norm_epsilon);
        if (o.norm == WeightNorm::kSoftmax) w = std::exp(z[id]) / sum_exp_chosen;
        w *= static_cast<double>(o.scaling_factor);
        ASSERT_NEAR(r.weight(row * o.top_k + j), w, 1e-6 * (1.0 + std::abs(w)));
      }
      for (int64_t i = 0; i < e; ++i) ASSERT_NEAR(r.probability(row * e + i), p[static_cast<size_t>(i)], 1e-6);
      ASSERT_NEAR(r.log_sum_exp.view.data<float>()[row], std::log(sum_exp), 1e-6 * std::abs(std::log(sum_exp)) + 1e-6);
    }
  }
};

TEST_P(RouteTest, ScoresAndNorms) {
  for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kIdentity}) {
    for (const WeightNorm norm : {WeightNorm::kNone, WeightNorm::kSum, WeightNorm::kSoftmax}) {
      if (score == RouterScore::kIdentity && norm == WeightNorm::kSum) continue;  // a sum of logits may be near zero
      for (const bool with_bias : {false, true}) {
        Check(16, {.top_k = 4, .score = score, .norm = norm, .norm_epsilon = 0.01f, .scaling_factor = 2.5f}, with_bias);
        Check(7, {.top_k = 1, .score = score, .norm = norm}, with_bias);
        Check(8, {.top_k = 8, .score = score, .norm = norm}, with_bias);
      }
    }
  }
}

TEST_P(RouteTest, GroupsLimitTheChoice) {
  for (const GroupScore group_score : {GroupScore::kMax, GroupScore::kTop2Sum}) {
    RouterOptions options = {.top_k = 6,
                             .score = RouterScore::kSigmoid,
                             .norm = WeightNorm::kSum,
                             .norm_epsilon = 1e-20f,
                             .scaling_factor = 2.5f,
                             .num_groups = 8,
                             .num_kept_groups = 3,
                             .group_score = group_score};
    Check(64, options, true);
    Check(64, options, false);
    options.num_kept_groups = 8;
    Check(64, options, true);
  }
}

TEST_P(RouteTest, TiesGoToTheLowestId) {
  const Tensor logits = tensors().Of(DType::kF32, {2, 6}, {0, 1, 1, 0, 1, 0, 2, 2, 2, 2, 2, 2});
  const Routing r = Route(logits, ConstView(), {.top_k = 4});
  const int32_t expected[] = {1, 2, 4, 0, 0, 1, 2, 3};
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(r.id(i), expected[i]);
}

TEST_P(RouteTest, BiasMovesTheChoiceButNotTheWeight) {
  const Tensor logits = tensors().Of(DType::kF32, {1, 3}, {3.0, 0.0, 0.0});
  const Tensor bias = tensors().Of(DType::kF32, {3}, {0.0, 0.0, 5.0});
  const Routing r = Route(logits, bias.view, {.top_k = 1, .score = RouterScore::kSigmoid});
  EXPECT_EQ(r.id(0), 2);
  EXPECT_FLOAT_EQ(r.weight(0), 0.5f);
}

// Whatever the logits are: ids are valid and distinct, numbers stay finite where they feed the statistics.
TEST_P(RouteTest, BrokenLogitsStayDefined) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::vector<double>> rows = {{nan, nan, nan, nan, nan, nan, nan, nan},
                                                 {nan, 1.0, nan, 2.0, nan, 0.0, nan, nan},
                                                 {-inf, -inf, -inf, -inf, -inf, -inf, -inf, -inf},
                                                 {inf, inf, 0.0, nan, -inf, 1.0, inf, 3e38}};
  for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kIdentity}) {
    for (const WeightNorm norm : {WeightNorm::kNone, WeightNorm::kSum, WeightNorm::kSoftmax}) {
      for (const int64_t num_groups : {1, 4}) {
        for (const std::vector<double>& row : rows) {
          const Tensor logits = tensors().Of(DType::kF32, {1, 8}, row);
          const Routing r = Route(logits, ConstView(),
                                  {.top_k = 4,
                                   .score = score,
                                   .norm = norm,
                                   .num_groups = num_groups,
                                   .num_kept_groups = num_groups == 1 ? 1 : 2,
                                   .group_score = GroupScore::kTop2Sum});
          std::set<int32_t> ids;
          for (int64_t j = 0; j < 4; ++j) {
            EXPECT_GE(r.id(j), 0);
            EXPECT_LT(r.id(j), 8);
            ids.insert(r.id(j));
          }
          EXPECT_EQ(ids.size(), 4u);
          EXPECT_TRUE(std::isfinite(r.log_sum_exp.view.data<float>()[0]));
          for (int64_t e = 0; e < 8; ++e) EXPECT_TRUE(std::isfinite(r.probability(e)));
        }
      }
    }
  }
  const Tensor logits = tensors().Of(DType::kF32, {1, 8}, rows[1]);
  const Routing r = Route(logits, ConstView(), {.top_k = 4});
  const int32_t expected[] = {3, 1, 5, 0};  // NaN is lowest, lowest id first
  for (int64_t j = 0; j < 4; ++j) EXPECT_EQ(r.id(j), expected[j]);
}

TEST_P(RouteTest, TallySumsOverRowsAndAdds) {
  const int64_t t = 50, e = 6, k = 2, sequences = 3;
  const Tensor logits = tensors().Random(DType::kF32, {t, e});
  const Routing r = Route(logits, ConstView(), {.top_k = k});
  std::vector<double> row_sequence(t);
  for (double& s : row_sequence) s = static_cast<double>(tensors().Uniform(0, sequences - 1));
  const Tensor sequence = tensors().Of(DType::kI32, {t}, row_sequence);
  const Tensor assignments = tensors().Zeros(DType::kI64, {e});
  const Tensor gate_weight = tensors().Zeros(DType::kF64, {e});
  const Tensor probability = tensors().Zeros(DType::kF64, {e});
  const Tensor squares = tensors().Zeros(DType::kF64, {1});
  const Tensor sequence_assignments = tensors().Zeros(DType::kI64, {sequences});
  const Tensor row_assignments = tensors().Zeros(DType::kI64, {1});
  const Tensor sequence_weight = tensors().Zeros(DType::kF64, {sequences});
  const RoutingTally tally = {assignments.view,          gate_weight.view,     probability.view,    squares.view,
                              sequence_assignments.view, row_assignments.view, sequence_weight.view};
  for (int i = 0; i < 2; ++i) {
    ops().TallyRouting(tally, r.ids.view, r.weights.view, r.probabilities.view, r.log_sum_exp.view, sequence.view);
  }
  std::vector<int64_t> counts(e), by_sequence(sequences);
  std::vector<double> weights(e), probabilities(e), weight_by_sequence(sequences);
  double square = 0.0;
  for (int64_t row = 0; row < t; ++row) {
    by_sequence[static_cast<size_t>(row_sequence[static_cast<size_t>(row)])] += k;
    for (int64_t j = row * k; j < (row + 1) * k; ++j) {
      ++counts[static_cast<size_t>(r.id(j))];
      weights[static_cast<size_t>(r.id(j))] += r.weight(j);
      weight_by_sequence[static_cast<size_t>(row_sequence[static_cast<size_t>(row)])] += r.weight(j);
    }
    for (int64_t i = 0; i < e; ++i) probabilities[static_cast<size_t>(i)] += r.probability(row * e + i);
    square += std::pow(r.log_sum_exp.view.data<float>()[row], 2.0);
  }
  for (int64_t i = 0; i < e; ++i) {
    const auto at = static_cast<size_t>(i);
    EXPECT_EQ(assignments.view.data<int64_t>()[i], 2 * counts[at]);
    EXPECT_NEAR(gate_weight.view.data<double>()[i], 2.0 * weights[at], 1e-9);
    EXPECT_NEAR(probability.view.data<double>()[i], 2.0 * probabilities[at], 1e-9);
  }
  for (int64_t s = 0; s < sequences; ++s) {
    EXPECT_EQ(sequence_assignments.view.data<int64_t>()[s], 2 * by_sequence[static_cast<size_t>(s)]);
    EXPECT_NEAR(sequence_weight.view.data<double>()[s], 2.0 * weight_by_sequence[static_cast<size_t>(s)], 1e-9);
  }
  EXPECT_EQ(row_assignments.view.data<int64_t>()[0], 2 * t * k);
  EXPECT_NEAR(squares.view.data<double>()[0], 2.0 * square, 1e-6);
}

TEST_P(RouteTest, GroupingIsAStableSort) {
  for (const int64_t num_experts : {1, 3, 64}) {
    const int64_t t = 33, k = 2;
    std::vector<double> ids(t * k);
    for (double& id : ids) id = static_cast<double>(tensors().Uniform(0, num_experts - 1));
    const Tensor expert_ids = tensors().Of(DType::kI32, {t, k}, ids);
    const Tensor order = tensors().Zeros(DType::kI32, {t * k});
    const Tensor offsets = tensors().Zeros(DType::kI32, {num_experts + 1});
    ops().GroupByExpert(order.view, offsets.view, expert_ids.view);
    std::vector<int32_t> expected(t * k);
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(),
                     [&](int32_t a, int32_t b) { return ids[static_cast<size_t>(a)] < ids[static_cast<size_t>(b)]; });
    for (int64_t a = 0; a < t * k; ++a) {
      ASSERT_EQ(order.view.data<int32_t>()[a], expected[static_cast<size_t>(a)]);
    }
    for (int64_t e = 0; e <= num_experts; ++e) {
      ASSERT_EQ(offsets.view.data<int32_t>()[e],
                std::count_if(ids.begin(), ids.end(), [&](double id) { return id < static_cast<double>(e); }));
    }
  }
}

CADRE_INSTANTIATE_OP_TEST(RouteTest);

}  // namespace
}  // namespace cadre
