// Linear against double precision, over dtypes and the awkward sizes of every blocking factor.
#include <cmath>
#include <cstdint>

#include "gtest/gtest.h"
#include "tests/kernels/op_test.h"
#include "tests/support/guarded_memory.h"

namespace cadre {
namespace {

class LinearTest : public OpTest {
 protected:
  // The bound counts every rounding of one output: the chain of sums, the bias, the old value.
  void Check(DType dtype, int64_t t, int64_t n, int64_t k, bool with_bias, bool accumulate) {
    SCOPED_TRACE(::testing::Message() << DTypeName(dtype) << " T " << t << " N " << n << " K " << k);
    const Tensor x = tensors().Random(DType::kF32, {t, k});
    const Tensor w = tensors().Random(dtype, {n, k});
    const Tensor bias = tensors().Random(dtype, {n});
    const Tensor out = tensors().Random(DType::kF32, {t, n});
    ops().Linear(out.view, x.view, w.view, with_bias ? bias.view : ConstView(), accumulate);
    for (int64_t row = 0; row < t; ++row) {
      for (int64_t col = 0; col < n; ++col) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (int64_t i = 0; i < k; ++i) {
          const double x_i = dtype == DType::kBF16 ? RoundToBf16(x(row * k + i)) : x(row * k + i);
          sum += x_i * w(col * k + i);
          magnitude += std::abs(x_i * w(col * k + i));
        }
        if (with_bias) sum += bias(col);
        if (accumulate) sum += out(row * n + col);
        const double end_magnitude = std::abs(sum) + std::abs(bias(col)) + std::abs(out(row * n + col));
        const double bound = kEpsilon * (ChainLength(k) * magnitude + 3.0 * end_magnitude);
        ASSERT_NEAR(out.view.data<float>()[row * n + col], sum, bound) << "row " << row << " column " << col;
      }
    }
  }
};

TEST_P(LinearTest, MatchesDoublePrecision) {
  for (const DType dtype : kWeightTypes) {
    for (const int64_t k : {1, 15, 16, 31, 32, 33, 100, 512, 1030}) {
      for (const int64_t n : {1, 5, 32, 67}) Check(dtype, 7, n, k, false, false);
    }
    for (const int64_t t : {1, 2, 3, 4, 5, 6, 8, 13, 16, 17, 96, 97, 200}) {
      Check(dtype, t, 37, 72, false, false);
      Check(dtype, t, 37, 96, false, false);
    }
  }
}

TEST_P(LinearTest, AddsBiasAndAccumulates) {
  for (const DType dtype : kWeightTypes) {
    Check(dtype, 3, 40, 64, true, false);
    Check(dtype, 3, 40, 64, false, true);
    Check(dtype, 9, 33, 65, true, true);
  }
}

// Many panels: one task multiplies all chunks of rows with its panel, as in the prefill of a real model.
TEST_P(LinearTest, MultipliesManyRowsWithManyPanels) {
  for (const DType dtype : kWeightTypes) Check(dtype, 200, 520, 72, true, true);
  for (const bool accumulate : {false, true}) Check(DType::kBF16, 290, 910, 96, true, accumulate);
}

TEST_P(LinearTest, AcceptsNoRows) {
  const Tensor w = tensors().Random(DType::kBF16, {8, 16});
  const Tensor bias = tensors().Random(DType::kBF16, {8});
  const Tensor x = tensors().Random(DType::kF32, {1, 16});
  const Tensor out = tensors().Random(DType::kF32, {1, 8});
  ops().Linear(out.view.Rows(0, 0), x.view.Rows(0, 0), w.view, bias.view, false);
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(out.view.data<float>()[i], static_cast<float>(out(i))) << i;
}

// Inf or NaN next to a row of weights must not leak into it through a vector that reaches beyond its end.
TEST_P(LinearTest, ReadsOnlyItsOwnWeights) {
  for (const DType dtype : kWeightTypes) {
    const int64_t k = 21;
    Tensor w = tensors().Random(dtype, {3, k});
    for (int64_t i = 0; i < k; ++i) {
      const uint16_t f16_infinity = 0x7C00;
      const uint16_t bf16_infinity = 0x7F80;
      const float infinity = INFINITY;
      const void* from = &infinity;
      if (dtype == DType::kF16) from = &f16_infinity;
      if (dtype == DType::kBF16) from = &bf16_infinity;
      std::memcpy(w.view.raw() + static_cast<size_t>(k + i) * DTypeBytes(dtype), from, DTypeBytes(dtype));
    }
    const Tensor x = tensors().Random(DType::kF32, {2, k});
    const Tensor out = tensors().Zeros(DType::kF32, {2, 3});
    ops().Linear(out.view, x.view, w.view, ConstView(), false);
    for (const int64_t i : {0, 2, 3, 5}) EXPECT_TRUE(std::isfinite(out.view.data<float>()[i])) << DTypeName(dtype);
    for (const int64_t i : {1, 4}) EXPECT_FALSE(std::isfinite(out.view.data<float>()[i])) << DTypeName(dtype);
  }
}

TEST_P(LinearTest, ReadsNothingBehindTheWeights) {
  if (!GetParam().reads_host_memory) GTEST_SKIP() << "compute-sanitizer's memcheck finds it there";
  for (const DType dtype : kWeightTypes) {
    for (const int64_t n : {1, 3, 16, 19, 33}) {
      for (const int64_t k : {5, 21, 32, 50}) {
        const GuardedMemory memory(static_cast<size_t>(n * k) * DTypeBytes(dtype));
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

TEST_P(LinearTest, ChecksShapes) {
  const Tensor w = tensors().Random(DType::kF32, {8, 16});
  const Tensor x = tensors().Random(DType::kF32, {2, 17});
  const Tensor out = tensors().Zeros(DType::kF32, {2, 8});
  EXPECT_DEATH(ops().Linear(out.view, x.view, w.view, ConstView(), false), "check failed");
  const int64_t too_many = TestLimits().max_tokens + 1;
  const Tensor long_x = tensors().Zeros(DType::kF32, {too_many, 16});
  const Tensor long_out = tensors().Zeros(DType::kF32, {too_many, 8});
  EXPECT_DEATH(ops().Linear(long_out.view, long_x.view, w.view, ConstView(), false), "max_tokens");
}

CADRE_INSTANTIATE_OP_TEST(LinearTest);

}  // namespace
}  // namespace cadre
