// What the tests of the verbs share: a device per target, and tensors that know their values as doubles.
#ifndef CADRE_TESTS_KERNELS_OP_TEST_H_
#define CADRE_TESTS_KERNELS_OP_TEST_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/quantized.h"
#include "tests/support/dequantize.h"
#include "tests/support/test_target.h"

namespace cadre {

// Half a unit in the last place of float32, relative: the error of one rounding.
inline constexpr double kEpsilon = 0x1p-24;

// Rounds to `bits` bits of mantissa (the leading one included) with exponents not below `min_exponent`, ties to even:
// a definition independent of the code under test.
inline double RoundTo(double x, int bits, int min_exponent) {
  if (x == 0.0 || !std::isfinite(x)) return x;
  int exponent = 0;
  std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, min_exponent) - bits);
  return std::nearbyint(x / unit) * unit;
}
inline double RoundToBf16(double x) { return RoundTo(x, 8, -125); }
inline double RoundToF16(double x) { return RoundTo(x, 11, -13); }

// A tensor on a device beside the exact values of its elements.
struct Tensor {
  DeviceBuffer buffer;
  View view;
  std::vector<double> values;

  double operator()(int64_t i) const { return values[static_cast<size_t>(i)]; }
};

// Room for every shape that the tests use.
inline OpsLimits TestLimits() {
  return {.max_tokens = 320,
          .hidden_size = 520,
          .max_linear_inputs = 2048,
          .num_heads = 64,
          .head_dim = 256,
          .max_positions = 1024,
          .num_experts = 256,
          .top_k = 8,
          .max_ffn_size = 520};
}

class Tensors {
 public:
  Tensors(Device& device, uint32_t seed) : device_(device), random_(seed) {}

  std::mt19937& random() { return random_; }
  int64_t Uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }

  Tensor Zeros(DType dtype, Shape shape) {
    Tensor t;
    const auto bytes = static_cast<size_t>(SizeBytes(dtype, shape));
    absl::StatusOr<DeviceBuffer> buffer = device_.Allocate(bytes);
    EXPECT_TRUE(buffer.ok()) << buffer.status().ToString();
    t.buffer = *std::move(buffer);
    t.view = t.buffer.view(dtype, shape);
    t.values.assign(static_cast<size_t>(shape.num_elements()), 0.0);
    return t;
  }

  // The given values, rounded to dtype.
  Tensor Of(DType dtype, Shape shape, const std::vector<double>& values) {
    Tensor t = Zeros(dtype, shape);
    for (size_t i = 0; i < values.size(); ++i) Set(&t, static_cast<int64_t>(i), values[i]);
    return t;
  }

  // Normally distributed values.
  Tensor Random(DType dtype, Shape shape, double scale = 1.0) {
    std::normal_distribution<double> normal(0.0, scale);
    std::vector<double> values(static_cast<size_t>(shape.num_elements()));
    for (double& value : values) value = normal(random_);
    return IsQuantized(dtype) ? Quantized(dtype, shape, values) : Of(dtype, shape, values);
  }

  // [N, K]; the values are those that the codes stand for.
  Tensor Quantized(DType dtype, Shape shape, const std::vector<double>& values) {
    Tensor t = Zeros(dtype, shape);
    const int64_t k = shape[1];
    std::vector<float> row(static_cast<size_t>(k));
    for (int64_t i = 0; i < shape[0]; ++i) {
      std::copy_n(values.begin() + i * k, k, row.begin());
      EXPECT_TRUE(QuantizeRow(dtype, row.data(), k, t.view.Rows(i, 1).raw()));
      const std::vector<float> held = DequantizedRow(dtype, t.view.Rows(i, 1).raw(), k);
      std::copy(held.begin(), held.end(), t.values.begin() + i * k);
    }
    return t;
  }

  static void Set(Tensor* t, int64_t i, double value) {
    std::byte* const to = t->view.raw() + static_cast<size_t>(i) * DTypeBytes(t->view.dtype());
    switch (t->view.dtype()) {
      case DType::kF32:
        return Store(t, i, to, static_cast<float>(value), static_cast<double>(static_cast<float>(value)));
      case DType::kF64:
        return Store(t, i, to, value, value);
      case DType::kI32:
        return Store(t, i, to, static_cast<int32_t>(value), value);
      case DType::kI64:
        return Store(t, i, to, static_cast<int64_t>(value), value);
      case DType::kBF16: {
        const double rounded = RoundToBf16(value);
        uint32_t bits = 0;
        const float exact = static_cast<float>(rounded);
        std::memcpy(&bits, &exact, sizeof(bits));
        return Store(t, i, to, static_cast<uint16_t>(bits >> 16), rounded);
      }
      case DType::kF16: {
        const double rounded = RoundToF16(value);
        return Store(t, i, to, static_cast<_Float16>(rounded), rounded);
      }
      case DType::kQ8:
      case DType::kQ4:
        ADD_FAILURE() << "elements of quantized rows cannot be set one by one";
    }
  }

 private:
  template <typename T>
  static void Store(Tensor* t, int64_t i, std::byte* to, T stored, double exact) {
    std::memcpy(to, &stored, sizeof(stored));
    t->values[static_cast<size_t>(i)] = exact;
  }

  Device& device_;
  std::mt19937 random_;
};

// Runs over all of TestTargets(), with two threads.
class OpTest : public ::testing::TestWithParam<TestTarget> {
 protected:
  OpTest() : device_(GetParam().make(2)), tensors_(*device_, 17) { EXPECT_TRUE(ops().Reserve(TestLimits()).ok()); }

  Device& device() { return *device_; }
  Ops& ops() { return device_->ops(); }
  Tensors& tensors() { return tensors_; }

  // Roundings that one term of a product can meet, for error bounds: with 16 lanes, the terms of a lane; with AMX, the
  // steps of 32 inputs and the 16 pairs within a step.
  static double ChainLength(int64_t k) {
    const double terms = static_cast<double>(k);
    return GetParam().adds_in_tiles ? std::max(terms / 16.0, terms / 32.0 + 16.0) + 8.0 : terms / 16.0 + 8.0;
  }

 private:
  std::unique_ptr<Device> device_;
  Tensors tensors_;
};

inline std::string TargetName(const ::testing::TestParamInfo<TestTarget>& info) { return info.param.name; }

#define CADRE_INSTANTIATE_OP_TEST(suite) \
  INSTANTIATE_TEST_SUITE_P(AllTargets, suite, ::testing::ValuesIn(TestTargets()), TargetName)

inline constexpr DType kWeightTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
inline constexpr DType kQuantizedTypes[] = {DType::kQ8, DType::kQ4};

}  // namespace cadre

#endif  // CADRE_TESTS_KERNELS_OP_TEST_H_
