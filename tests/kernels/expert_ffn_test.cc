// ExpertFfn, GatedMlp, Combine and AddGated against double precision.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

struct Mlp {
  Tensor gate;
  Tensor up;
  Tensor down;
  MlpWeights weights() const { return {gate.view, up.view, down.view}; }
};

class ExpertFfnTest : public OpTest {
 protected:
  Mlp RandomMlp(DType dtype, int64_t d, int64_t f) {
    const double scale = 1.0 / std::sqrt(static_cast<double>(d));
    return {tensors().Random(dtype, {f, d}, scale), tensors().Random(dtype, {f, d}, scale),
            tensors().Random(dtype, {d, f}, scale)};
  }

  // Compares one output row with down(silu(gate x) * (up x)). The bound counts the roundings of the three products and
  // of the activation; with bfloat16 weights the hidden values are rounded as well, each by up to 2^-9 of itself, at
  // random: six standard deviations of their sum.
  static void ExpectRow(const float* out, const Tensor& x, int64_t row, const Mlp& mlp) {
    const bool is_bf16 = mlp.gate.view.dtype() == DType::kBF16;
    const int64_t d = mlp.gate.view.dim(1);
    const int64_t f = mlp.gate.view.dim(0);
    std::vector<double> hidden(static_cast<size_t>(f));
    std::vector<double> hidden_error(static_cast<size_t>(f));
    for (int64_t j = 0; j < f; ++j) {
      double g = 0.0, u = 0.0, g_magnitude = 0.0, u_magnitude = 0.0;
      for (int64_t i = 0; i < d; ++i) {
        const double x_i = is_bf16 ? RoundToBf16(x(row * d + i)) : x(row * d + i);
        g += x_i * mlp.gate(j * d + i);
        u += x_i * mlp.up(j * d + i);
        g_magnitude += std::abs(x_i * mlp.gate(j * d + i));
        u_magnitude += std::abs(x_i * mlp.up(j * d + i));
      }
      const double silu = g / (1.0 + std::exp(-g));
      const double chain = kEpsilon * ChainLength(d);
      hidden[static_cast<size_t>(j)] = silu * u;
      // |silu'| <= 1.1; the activation itself takes about eight roundings.
      hidden_error[static_cast<size_t>(j)] = 1.1 * chain * g_magnitude * std::abs(u) +
                                             chain * u_magnitude * std::abs(silu) + 8.0 * kEpsilon * std::abs(silu * u);
    }
    for (int64_t i = 0; i < d; ++i) {
      double sum = 0.0, magnitude = 0.0, error = 0.0, square = 0.0;
      for (int64_t j = 0; j < f; ++j) {
        const double term = mlp.down(i * f + j) * hidden[static_cast<size_t>(j)];
        sum += term;
        magnitude += std::abs(term);
        square += term * term;
        error += std::abs(mlp.down(i * f + j)) * hidden_error[static_cast<size_t>(j)];
      }
      double bound = error + kEpsilon * ChainLength(f) * magnitude;
      if (is_bf16) bound += 6.0 * 0x1p-9 * std::sqrt(square);
      ASSERT_NEAR(out[i], sum, bound) << "row " << row << " column " << i;
    }
  }

  // Every assignment to a random expert out of those allowed; rows of absent experts must keep their old values.
  void CheckExperts(DType dtype, int64_t t, int64_t top_k, int64_t d, int64_t f, const std::vector<int64_t>& allowed,
                    int64_t num_experts, int64_t absent) {
    SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << " T " << t << " D " << d << " F " << f);
    std::vector<Mlp> mlps;
    std::vector<MlpWeights> weights;
    for (int64_t e = 0; e < num_experts; ++e) {
      mlps.push_back(RandomMlp(dtype, d, f));
      weights.push_back(e == absent ? MlpWeights{} : mlps.back().weights());
    }
    std::vector<double> ids(static_cast<size_t>(t * top_k));
    for (double& id : ids) {
      id = static_cast<double>(
          allowed[static_cast<size_t>(tensors().Uniform(0, static_cast<int64_t>(allowed.size()) - 1))]);
    }
    const Tensor expert_ids = tensors().Of(DType::kI32, {t, top_k}, ids);
    const Tensor order = tensors().Zeros(DType::kI32, {t * top_k});
    const Tensor offsets = tensors().Zeros(DType::kI32, {num_experts + 1});
    const Tensor x = tensors().Random(DType::kF32, {t, d});
    const Tensor y = tensors().Random(DType::kF32, {t * top_k, d});
    ops().GroupByExpert(order.view, offsets.view, expert_ids.view);
    ops().ExpertFfn(y.view, x.view, order.view, offsets.view, weights);
    for (int64_t a = 0; a < t * top_k; ++a) {
      const float* const row = y.view.data<float>() + a * d;
      const auto expert = static_cast<size_t>(expert_ids(a));
      if (static_cast<int64_t>(expert) == absent) {
        for (int64_t i = 0; i < d; ++i) ASSERT_EQ(static_cast<double>(row[i]), y(a * d + i));
      } else {
        ExpectRow(row, x, a / top_k, mlps[expert]);
      }
    }
  }
};

TEST_P(ExpertFfnTest, MatchesDoublePrecision) {
  for (const DType dtype : kWeightTypes) {
    CheckExperts(dtype, 1, 2, 64, 96, {0, 1, 2, 3}, 4, -1);
    CheckExperts(dtype, 23, 2, 40, 72, {0, 1, 2, 3, 4}, 5, -1);
    CheckExperts(dtype, 9, 3, 33, 31, {0, 1, 2}, 3, -1);
    // Tiles of 8, 16 and 32 rows where matrix units are used, full and not.
    CheckExperts(dtype, 25, 2, 64, 96, {0, 1, 3, 4}, 5, 1);
    CheckExperts(dtype, 60, 1, 32, 32, {0, 1, 2, 3, 4}, 5, -1);
    CheckExperts(dtype, 180, 2, 32, 64, {0, 2, 4}, 5, 0);
  }
}

TEST_P(ExpertFfnTest, AllAssignmentsToOneExpert) {
  for (const DType dtype : kWeightTypes) {
    CheckExperts(dtype, 110, 2, 48, 64, {6}, 7, -1);
    CheckExperts(dtype, 110, 2, 64, 64, {6}, 7, -1);
  }
}

TEST_P(ExpertFfnTest, LeavesRowsOfAbsentExpertsAlone) {
  for (const DType dtype : kWeightTypes) CheckExperts(dtype, 12, 2, 32, 40, {0, 1, 2}, 3, 1);
}

TEST_P(ExpertFfnTest, GatedMlpMatchesDoublePrecision) {
  for (const DType dtype : kWeightTypes) {
    for (const int64_t t : {1, 5, 12, 100}) {
      for (const int64_t d : {64, 65}) {
        const Mlp mlp = RandomMlp(dtype, d, 2 * d);
        const Tensor x = tensors().Random(DType::kF32, {t, d});
        const Tensor out = tensors().Zeros(DType::kF32, {t, d});
        ops().GatedMlp(out.view, x.view, mlp.weights());
        for (int64_t row = 0; row < t; ++row) ExpectRow(out.view.data<float>() + row * d, x, row, mlp);
      }
    }
  }
}

TEST_P(ExpertFfnTest, SiluHoldsAtTheEnds) {
  const Tensor gate = tensors().Of(DType::kF32, {4, 1}, {100.0, -100.0, 0.0, -1e30});
  const Tensor up = tensors().Of(DType::kF32, {4, 1}, {1.0, 1.0, 1.0, 1.0});
  const Tensor down = tensors().Of(DType::kF32, {1, 4}, {1.0, 1.0, 1.0, 1.0});
  const Tensor x = tensors().Of(DType::kF32, {1, 1}, {1.0});
  const Tensor out = tensors().Zeros(DType::kF32, {1, 1});
  ops().GatedMlp(out.view, x.view, {gate.view, up.view, down.view});
  EXPECT_NEAR(out.view.data<float>()[0], 100.0, 1e-4);
}

TEST_P(ExpertFfnTest, CombineAddsWeightedRowsInOrder) {
  const int64_t t = 37, k = 3, d = 50;
  const Tensor x = tensors().Random(DType::kF32, {t, d});
  const Tensor y = tensors().Random(DType::kF32, {t * k, d});
  const Tensor w = tensors().Random(DType::kF32, {t, k});
  ops().Combine(x.view, y.view, w.view);
  for (int64_t row = 0; row < t; ++row) {
    for (int64_t i = 0; i < d; ++i) {
      float expected = static_cast<float>(x(row * d + i));
      for (int64_t j = 0; j < k; ++j) {
        const float product = static_cast<float>(w(row * k + j)) * static_cast<float>(y((row * k + j) * d + i));
        expected += product;
      }
      ASSERT_EQ(x.view.data<float>()[row * d + i], expected);
    }
  }
}

TEST_P(ExpertFfnTest, AddGatedAddsWithAndWithoutGate) {
  const int64_t t = 5, d = 19;
  const Tensor y = tensors().Random(DType::kF32, {t, d});
  const Tensor logits = tensors().Random(DType::kF32, {t, 1}, 3.0);
  for (const bool gated : {false, true}) {
    const Tensor x = tensors().Random(DType::kF32, {t, d});
    ops().AddGated(x.view, y.view, gated ? logits.view : ConstView());
    for (int64_t i = 0; i < t * d; ++i) {
      const double gate = gated ? 1.0 / (1.0 + std::exp(-logits(i / d))) : 1.0;
      const double expected = x(i) + gate * y(i);
      ASSERT_NEAR(x.view.data<float>()[i], expected, 8.0 * kEpsilon * (std::abs(x(i)) + std::abs(y(i))));
    }
  }
}

CADRE_INSTANTIATE_OP_TEST(ExpertFfnTest);

}  // namespace
}  // namespace cadre
