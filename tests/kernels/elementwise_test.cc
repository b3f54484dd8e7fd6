// GatherRows, FillSampledTokens, RmsNorm, Clamp, RopeTable and Rope against double precision.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

class ElementwiseTest : public OpTest {};

TEST_P(ElementwiseTest, GatherRowsConvertsExactly) {
  for (const DType dtype : kWeightTypes) {
    const int64_t n = 11, d = 37;
    const Tensor table = tensors().Random(dtype, {n, d});
    const Tensor rows = tensors().Of(DType::kI32, {4}, {10, 0, 3, 3});
    const Tensor out = tensors().Zeros(DType::kF32, {4, d});
    ops().GatherRows(out.view, table.view, rows.view);
    for (int64_t i = 0; i < 4 * d; ++i) {
      ASSERT_EQ(static_cast<double>(out.view.data<float>()[i]), table(static_cast<int64_t>(rows(i / d)) * d + i % d));
    }
  }
}

TEST_P(ElementwiseTest, GatherRowsChecksIds) {
  if (!GetParam().dies_of_wrong_ids) GTEST_SKIP() << "the device finds them, and stops";
  const Tensor table = tensors().Zeros(DType::kF32, {3, 2});
  const Tensor out = tensors().Zeros(DType::kF32, {1, 2});
  for (const double id : {-1.0, 3.0}) {
    const Tensor rows = tensors().Of(DType::kI32, {1}, {id});
    EXPECT_DEATH(ops().GatherRows(out.view, table.view, rows.view), "check failed|__trap");
  }
}

// Ids that are known, and padding, stay; where nothing was chosen there is some token.
TEST_P(ElementwiseTest, FillSampledTokensReplacesWhatTheHostDoesNotKnow) {
  if (!ops().can_sample(16)) GTEST_SKIP() << "the host samples";
  const Tensor sampled = tensors().Of(DType::kI32, {4}, {40, 41, kSampledNothing, 43});
  std::vector<double> ids = {7, SampledAt(3), kPadding, SampledAt(0), SampledAt(2), 0, SampledAt(3)};
  std::vector<int32_t> want = {7, 43, kPadding, 40, 0, 0, 43};
  ids.resize(700, SampledAt(1));  // more than a block of threads
  want.resize(700, 41);
  const Tensor filled = tensors().Of(DType::kI32, {700}, ids);
  ops().FillSampledTokens(filled.view, sampled.view);
  const auto* const got = filled.view.data<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(got, got + 700), want);
  if (!GetParam().dies_of_wrong_ids) return;
  const Tensor beyond = tensors().Of(DType::kI32, {1}, {double{SampledAt(4)}});
  EXPECT_DEATH(ops().FillSampledTokens(beyond.view, sampled.view), "__trap");
}

TEST_P(ElementwiseTest, RmsNormMatchesDoublePrecision) {
  const double epsilon = static_cast<double>(1e-5f);
  for (const DType dtype : kWeightTypes) {
    for (const int64_t d : {1, 15, 16, 100, 512}) {
      const Tensor x = tensors().Random(DType::kF32, {9, d}, 3.0);
      const Tensor w = tensors().Random(dtype, {d});
      const Tensor out = tensors().Zeros(DType::kF32, {9, d});
      ops().RmsNorm(out.view, x.view, w.view, 1e-5f);
      ops().RmsNorm(x.view, x.view, w.view, 1e-5f);
      for (int64_t row = 0; row < 9; ++row) {
        double sum = 0.0;
        for (int64_t i = 0; i < d; ++i) sum += x(row * d + i) * x(row * d + i);
        const double scale = 1.0 / std::sqrt(sum / static_cast<double>(d) + epsilon);
        for (int64_t i = 0; i < d; ++i) {
          const double expected = x(row * d + i) * scale * w(i);
          const double bound = (static_cast<double>(d) / 16.0 + 12.0) * kEpsilon * std::abs(expected);
          ASSERT_NEAR(out.view.data<float>()[row * d + i], expected, bound);
          ASSERT_EQ(x.view.data<float>()[row * d + i], out.view.data<float>()[row * d + i]);
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, ClampKeepsNaN) {
  const Tensor x = tensors().Of(DType::kF32, {2, 3}, {-9.0, -1.0, 0.5, 7.0, INFINITY, NAN});
  ops().Clamp(x.view, 2.0f);
  const float expected[] = {-2.0f, -1.0f, 0.5f, 2.0f, 2.0f};
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(x.view.data<float>()[i], expected[i]);
  EXPECT_TRUE(std::isnan(x.view.data<float>()[5]));
}

// The angle is a float32 product by definition; its sine and cosine are as good as float32 can be.
TEST_P(ElementwiseTest, RopeRotatesPairs) {
  const int64_t t = 20, heads = 3, d = 24, half = 8;
  const Tensor positions =
      tensors().Of(DType::kI32, {t}, {0, 1, 2, 3, 100, 4095, 131071, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
  const Tensor frequencies = tensors().Random(DType::kF32, {half});
  const Tensor cos = tensors().Zeros(DType::kF32, {t, half});
  const Tensor sin = tensors().Zeros(DType::kF32, {t, half});
  ops().RopeTable(cos.view, sin.view, positions.view, frequencies.view, 1.25f);
  const Tensor x = tensors().Random(DType::kF32, {t, heads, d});
  ops().Rope(x.view, cos.view, sin.view);
  for (int64_t row = 0; row < t; ++row) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = (row * heads + h) * d;
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<float>(positions(row)) * static_cast<float>(frequencies(i));
        const double c = 1.25 * std::cos(angle), s = 1.25 * std::sin(angle);
        const double a = x(at + i), b = x(at + i + half);
        const double bound = 5.0 * kEpsilon * 1.25 * (std::abs(a) + std::abs(b));
        ASSERT_NEAR(x.view.data<float>()[at + i], a * c - b * s, bound);
        ASSERT_NEAR(x.view.data<float>()[at + i + half], b * c + a * s, bound);
      }
      for (int64_t i = 2 * half; i < d; ++i) ASSERT_EQ(static_cast<double>(x.view.data<float>()[at + i]), x(at + i));
    }
  }
}

CADRE_INSTANTIATE_OP_TEST(ElementwiseTest);

TEST(DTypeTest, RoundsToF16AsTheCompilerDoes) {
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 4099) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    const _Float16 expected = static_cast<_Float16>(x);
    const uint16_t expected_bits = std::bit_cast<uint16_t>(expected);
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(ToFloat(ToFloat16(x))));
    } else {
      ASSERT_EQ(ToFloat16(x).bits, expected_bits) << x;
    }
  }
  for (const float x : {65504.0f, 65519.9f, 65520.0f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1.ffcp-15f, 0x1.ffep-15f}) {
    for (const float signed_x : {x, -x}) {
      const _Float16 expected = static_cast<_Float16>(signed_x);
      EXPECT_EQ(ToFloat16(signed_x).bits, std::bit_cast<uint16_t>(expected)) << signed_x;
    }
  }
}

TEST(DTypeTest, F16SurvivesTheWayToFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 x = {static_cast<uint16_t>(bits)};
    if (std::isnan(ToFloat(x))) continue;
    ASSERT_EQ(ToFloat16(ToFloat(x)).bits, x.bits);
  }
}

}  // namespace
}  // namespace cadre
