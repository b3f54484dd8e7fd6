// Quantized weights: the format, and products with it against double precision.
#include "kernels/quantized.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"
#include "tests/support/dequantize.h"
#include "tests/support/guarded_memory.h"

namespace cadre {
namespace {

std::vector<float> Dequantized(DType dtype, const std::vector<std::byte>& row, int64_t k) {
  return DequantizedRow(dtype, row.data(), k);
}

std::vector<std::byte> Quantized(DType dtype, const std::vector<float>& weights) {
  const auto k = static_cast<int64_t>(weights.size());
  std::vector<std::byte> row(static_cast<size_t>(RowBytes(dtype, k)));
  EXPECT_TRUE(QuantizeRow(dtype, weights.data(), k, row.data()));
  return row;
}

int64_t GroupSize(DType dtype) { return dtype == DType::kQ8 ? 128 : 32; }

TEST(QuantizedRowTest, TakesEightAndFourBitsAndScales) {
  EXPECT_EQ(RowBytes(DType::kQ8, 0), 0);
  EXPECT_EQ(RowBytes(DType::kQ8, 1), 132);
  EXPECT_EQ(RowBytes(DType::kQ8, 128), 132);
  EXPECT_EQ(RowBytes(DType::kQ8, 129), 264);
  EXPECT_EQ(RowBytes(DType::kQ8, 2048), 2112);
  EXPECT_EQ(RowBytes(DType::kQ4, 2048), 1152);
  EXPECT_EQ(SizeBytes(DType::kQ4, {3, 100}), 3 * 72);
  EXPECT_EQ(RowBytes(DType::kBF16, 100), 200);
}

TEST(QuantizedRowTest, IsWrongByHalfAStepAtMost) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (const DType dtype : kQuantizedTypes) {
    for (const int64_t k : {1, 31, 32, 33, 127, 128, 129, 500}) {
      std::vector<float> weights(static_cast<size_t>(k));
      for (float& w : weights) w = normal(random);
      const std::vector<float> held = Dequantized(dtype, Quantized(dtype, weights), k);
      for (int64_t first = 0; first < k; first += GroupSize(dtype)) {
        const auto begin = static_cast<size_t>(first);
        const auto end = static_cast<size_t>(std::min(k, first + GroupSize(dtype)));
        float largest = 0.0f;
        for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(weights[i]));
        // kQ4 has one code less on one side of 0, and a scale that is rounded to 8 bits.
        const float step = dtype == DType::kQ8 ? largest / 127.0f : largest / 8.0f * (1.0f + 0x1p-8f);
        for (size_t i = begin; i < end; ++i) {
          const float most = dtype == DType::kQ8 ? 0.501f * step : 1.05f * step;
          ASSERT_NEAR(held[i], weights[i], most) << DTypeName(dtype) << " " << k << " weight " << i;
          if (std::abs(weights[i]) < 0.9f * largest) {
            ASSERT_NEAR(held[i], weights[i], 0.51f * step);
          }
        }
      }
    }
  }
}

TEST(QuantizedRowTest, HoldsWhatHasACodeExactly) {
  for (const float sign : {1.0f, -1.0f}) {
    std::vector<float> weights;
    for (int i = 0; i < 128; ++i) weights.push_back(sign * 0.25f * static_cast<float>(i % 2 == 0 ? i : -i));
    EXPECT_EQ(Dequantized(DType::kQ8, Quantized(DType::kQ8, weights), 128), weights);
    std::vector<float> few;
    for (int i = 0; i < 128; ++i) few.push_back(sign * 0.5f * static_cast<float>(i % 16 - 8));
    EXPECT_EQ(Dequantized(DType::kQ4, Quantized(DType::kQ4, few), 128), few);
  }
}

// Small weights beside large ones are why scales are shared by few.
TEST(QuantizedRowTest, GroupsHaveScalesOfTheirOwn) {
  for (const DType dtype : kQuantizedTypes) {
    std::vector<float> weights(256, 1000.0f);
    std::fill_n(weights.begin() + GroupSize(dtype), GroupSize(dtype), 0.001f);
    const std::vector<float> held = Dequantized(dtype, Quantized(dtype, weights), 256);
    EXPECT_NEAR(held[static_cast<size_t>(GroupSize(dtype))], 0.001f, 1e-5f);
    EXPECT_NEAR(held[0], 1000.0f, 4.0f);
  }
}

TEST(QuantizedRowTest, VerySmallWeightsAreZero) {
  for (const DType dtype : kQuantizedTypes) {
    const std::vector<float> weights(200, 1e-38f);
    EXPECT_EQ(Dequantized(dtype, Quantized(dtype, weights), 200), std::vector<float>(200, 0.0f));
  }
}

TEST(QuantizedRowTest, RefusesWhatIsNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const DType dtype : kQuantizedTypes) {
    std::vector<std::byte> row(static_cast<size_t>(RowBytes(dtype, 300)));
    for (const float bad : {kInfinity, -kInfinity, std::nanf(""), -std::nanf("")}) {
      for (const size_t at : {size_t{0}, size_t{40}, size_t{127}, size_t{128}, size_t{299}}) {
        std::vector<float> weights(300, 0.5f);
        weights[at] = bad;
        EXPECT_FALSE(QuantizeRow(dtype, weights.data(), 300, row.data())) << DTypeName(dtype) << " " << at;
      }
    }
  }
}

// Activations as a product with quantized weights takes them, and the step of each.
struct RoundedRow {
  std::vector<double> values;
  std::vector<double> steps;
};

RoundedRow RoundActivations(const std::vector<float>& x) {
  RoundedRow rounded;
  for (size_t first = 0; first < x.size(); first += 128) {
    const size_t end = std::min(x.size(), first + 128);
    float largest = 0.0f;
    for (size_t i = first; i < end; ++i) largest = std::max(largest, std::abs(x[i]));
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    for (size_t i = first; i < end; ++i) {
      rounded.values.push_back(double{std::nearbyint(x[i] * inverse)} * double{largest / 127.0f});
      rounded.steps.push_back(double{largest / 127.0f});
    }
  }
  return rounded;
}

class QuantizedOpsTest : public OpTest {
 protected:
  void SetUp() override {
    if (!ops().can_multiply(DType::kQ8)) GTEST_SKIP() << "this device takes no quantized weights";
  }

  static RoundedRow RowOf(const Tensor& x, int64_t row) {
    const int64_t k = x.view.dim(1);
    const float* const from = x.view.data<float>() + row * k;
    return RoundActivations(std::vector<float>(from, from + k));
  }

  void CheckLinear(DType dtype, int64_t t, int64_t n, int64_t k, bool accumulate) {
    SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << " T " << t << " N " << n << " K " << k);
    const Tensor x = tensors().Random(DType::kF32, {t, k});
    const Tensor w = tensors().Random(dtype, {n, k});
    const Tensor bias = tensors().Random(DType::kF32, {n});
    const Tensor out = tensors().Random(DType::kF32, {t, n});
    ops().Linear(out.view, x.view, w.view, accumulate ? bias.view : ConstView(), accumulate);
    for (int64_t row = 0; row < t; ++row) {
      const RoundedRow rounded = RowOf(x, row);
      for (int64_t col = 0; col < n; ++col) {
        double sum = accumulate ? bias(col) + out(row * n + col) : 0.0;
        double magnitude = std::abs(sum) + std::abs(bias(col));
        for (int64_t i = 0; i < k; ++i) {
          const double term = rounded.values[static_cast<size_t>(i)] * w(col * k + i);
          sum += term;
          magnitude += std::abs(term);
        }
        ASSERT_NEAR(out.view.data<float>()[row * n + col], sum, kEpsilon * ChainLength(k) * magnitude)
            << "row " << row << " column " << col;
      }
    }
  }

  // The bound is six standard deviations of what rounding the hidden values to 8 bits makes of a sum.
  void CheckMlp(DType dtype, int64_t t, int64_t d, int64_t f) {
    SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << " T " << t << " D " << d << " F " << f);
    const double scale = 1.0 / std::sqrt(static_cast<double>(d));
    const Tensor gate = tensors().Random(dtype, {f, d}, scale);
    const Tensor up = tensors().Random(dtype, {f, d}, scale);
    const Tensor down = tensors().Random(dtype, {d, f}, scale);
    const Tensor x = tensors().Random(DType::kF32, {t, d});
    const Tensor out = tensors().Zeros(DType::kF32, {t, d});
    ops().GatedMlp(out.view, x.view, {gate.view, up.view, down.view});
    for (int64_t row = 0; row < t; ++row) {
      const std::vector<double> in = RowOf(x, row).values;
      std::vector<float> hidden;
      for (int64_t j = 0; j < f; ++j) {
        double g = 0.0, u = 0.0;
        for (int64_t i = 0; i < d; ++i) {
          g += in[static_cast<size_t>(i)] * gate(j * d + i);
          u += in[static_cast<size_t>(i)] * up(j * d + i);
        }
        hidden.push_back(static_cast<float>(g / (1.0 + std::exp(-g)) * u));
      }
      const std::vector<double> steps = RoundActivations(hidden).steps;
      for (int64_t i = 0; i < d; ++i) {
        double sum = 0.0, variance = 0.0;
        for (size_t j = 0; j < hidden.size(); ++j) {
          const double w = down(i * f + static_cast<int64_t>(j));
          sum += w * double{hidden[j]};
          variance += w * w * steps[j] * steps[j] / 12.0;
        }
        ASSERT_NEAR(out.view.data<float>()[row * d + i], sum, 6.0 * std::sqrt(variance) + 1e-5) << row << " " << i;
      }
    }
  }
};

TEST_P(QuantizedOpsTest, LinearMatchesDoublePrecision) {
  for (const DType dtype : kQuantizedTypes) {
    for (const int64_t k : {1, 31, 64, 65, 127, 128, 129, 300, 512, 1030}) {
      for (const int64_t n : {1, 5, 32, 67}) CheckLinear(dtype, 7, n, k, false);
    }
    for (const int64_t t : {1, 2, 3, 4, 5, 8, 13, 96, 97, 200}) CheckLinear(dtype, t, 37, 140, false);
    CheckLinear(dtype, 3, 40, 256, true);
  }
}

TEST_P(QuantizedOpsTest, GatedMlpMatchesDoublePrecision) {
  for (const DType dtype : kQuantizedTypes) {
    for (const int64_t t : {1, 5, 100}) {
      CheckMlp(dtype, t, 64, 130);
      CheckMlp(dtype, t, 129, 128);
      CheckMlp(dtype, t, 33, 31);
    }
  }
}

// As far from the product with the weights as they were as eight and four bits are expected to be.
TEST_P(QuantizedOpsTest, IsNearTheProductWithExactWeights) {
  const int64_t t = 4, n = 64, k = 512;
  const Tensor x = tensors().Random(DType::kF32, {t, k});
  const Tensor exact = tensors().Random(DType::kF32, {n, k});
  const Tensor wanted = tensors().Zeros(DType::kF32, {t, n});
  const Tensor out = tensors().Zeros(DType::kF32, {t, n});
  ops().Linear(wanted.view, x.view, exact.view, ConstView(), false);
  for (const auto& [dtype, most] : {std::pair(DType::kQ8, 0.02), std::pair(DType::kQ4, 0.15)}) {
    const Tensor held = tensors().Quantized(dtype, {n, k}, exact.values);
    ops().Linear(out.view, x.view, held.view, ConstView(), false);
    double error = 0.0, square = 0.0;
    for (int64_t i = 0; i < t * n; ++i) {
      const double value = wanted.view.data<float>()[i];
      error += std::pow(double{out.view.data<float>()[i]} - value, 2.0);
      square += value * value;
    }
    EXPECT_LT(std::sqrt(error / square), most) << DTypeName(dtype);
    EXPECT_GT(std::sqrt(error / square), most / 20.0) << DTypeName(dtype);
  }
}

TEST_P(QuantizedOpsTest, WhatIsNotFiniteStaysSo) {
  const int64_t n = 5, k = 300;
  for (const DType dtype : kQuantizedTypes) {
    const Tensor w = tensors().Random(dtype, {n, k});
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      const Tensor x = tensors().Random(DType::kF32, {3, k});
      x.view.data<float>()[k + 131] = bad;
      const Tensor out = tensors().Zeros(DType::kF32, {3, n});
      ops().Linear(out.view, x.view, w.view, ConstView(), false);
      for (int64_t i = 0; i < 3 * n; ++i) {
        EXPECT_EQ(std::isfinite(out.view.data<float>()[i]), i / n != 1) << DTypeName(dtype) << " " << i;
      }
    }
  }
}

TEST_P(QuantizedOpsTest, ActivationsThatAreZeroGiveZero) {
  for (const DType dtype : kQuantizedTypes) {
    const Tensor w = tensors().Random(dtype, {9, 200});
    const Tensor x = tensors().Zeros(DType::kF32, {2, 200});
    const Tensor out = tensors().Random(DType::kF32, {2, 9});
    ops().Linear(out.view, x.view, w.view, ConstView(), false);
    for (int64_t i = 0; i < 18; ++i) EXPECT_EQ(out.view.data<float>()[i], 0.0f);
  }
}

TEST_P(QuantizedOpsTest, ReadsNothingBehindTheWeights) {
  for (const DType dtype : kQuantizedTypes) {
    for (const int64_t n : {1, 3, 16, 33}) {
      for (const int64_t k : {5, 128, 200}) {
        const GuardedMemory memory(static_cast<size_t>(SizeBytes(dtype, {n, k})));
        for (const int64_t t : {1, 7}) {
          const Tensor x = tensors().Random(DType::kF32, {t, k});
          const Tensor out = tensors().Random(DType::kF32, {t, n});
          ops().Linear(out.view, x.view, View(memory.data(), dtype, {n, k}), ConstView(), false);
          for (int64_t i = 0; i < t * n; ++i) ASSERT_EQ(out.view.data<float>()[i], 0.0f);
        }
      }
    }
  }
}

CADRE_INSTANTIATE_OP_TEST(QuantizedOpsTest);

}  // namespace
}  // namespace cadre
