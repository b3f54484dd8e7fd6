// For tests of experts alone, without a model around them.
#ifndef CADRE_TESTS_SUPPORT_LONE_EXPERTS_H_
#define CADRE_TESTS_SUPPORT_LONE_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>

#include "kernels/dtype.h"
#include "kernels/ops.h"

namespace cadre {

// What ops must know that compute up to `rows` rows with one of `experts` each, and nothing else.
inline OpsLimits LimitsOfLoneExperts(int64_t rows, int64_t experts, int64_t hidden, int64_t ffn) {
  return {.max_tokens = rows,
          .hidden_size = hidden,
          .max_linear_inputs = hidden,
          .num_heads = 1,
          .head_dim = 32,
          .max_positions = 16,
          .num_experts = experts,
          .top_k = 1,
          .max_ffn_size = ffn};
}

// Fills `to` with normal values of deviation 0.2. REQUIRES: kF32 or kBF16.
inline void FillWithWeights(DType dtype, std::span<std::byte> to, std::mt19937& rng) {
  std::normal_distribution<float> normal(0.0f, 0.2f);
  const size_t element = DTypeBytes(dtype);
  for (size_t at = 0; at + element <= to.size(); at += element) {
    const float value = normal(rng);
    if (dtype == DType::kF32) {
      std::memcpy(&to[at], &value, element);
    } else {
      const BFloat16 rounded = ToBFloat16(value);
      std::memcpy(&to[at], &rounded, element);
    }
  }
}

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_LONE_EXPERTS_H_
