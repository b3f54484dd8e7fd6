// Rotary position embedding (Su et al. 2021, "RoFormer"), pairs (i, i + r/2).
#include <cmath>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"

namespace cadre {

void CpuOps::RopeTable(View cos, View sin, ConstView positions, ConstView inverse_frequencies, float amplitude) {
  const int64_t num_rows = positions.dim(0);
  const int64_t half = inverse_frequencies.dim(0);
  CADRE_CHECK(cos.shape() == Shape({num_rows, half}));
  CADRE_CHECK(sin.shape() == Shape({num_rows, half}));
  float* const cos_data = cos.data<float>();
  float* const sin_data = sin.data<float>();
  const int32_t* const position_data = positions.data<int32_t>();
  const float* const frequencies = inverse_frequencies.data<float>();
  constexpr int64_t kSinCosCost = 40;
  ForRows(num_rows, half * kSinCosCost, [&](int64_t t) {
    for (int64_t i = 0; i < half; ++i) {
      // The angle is rounded to float32 as the reference implementations do: models were trained with that rounding,
      // and at position 4,096 it is worth 2e-4. Sine and cosine of it are then exact to the last bit.
      const double angle = static_cast<float>(position_data[t]) * frequencies[i];
      cos_data[t * half + i] = static_cast<float>(std::cos(angle)) * amplitude;
      sin_data[t * half + i] = static_cast<float>(std::sin(angle)) * amplitude;
    }
  });
}

void CpuOps::Rope(View x, ConstView cos, ConstView sin) {
  const int64_t num_rows = x.dim(0);
  const int64_t num_heads = x.dim(1);
  const int64_t d = x.dim(2);
  const int64_t half = cos.dim(1);
  CADRE_CHECK_LE(2 * half, d);
  CADRE_CHECK(cos.shape() == Shape({num_rows, half}));
  CADRE_CHECK(sin.shape() == Shape({num_rows, half}));
  float* const x_data = x.data<float>();
  const float* const cos_data = cos.data<float>();
  const float* const sin_data = sin.data<float>();
  ForRows(num_rows, num_heads * half * 3, [&](int64_t t) {
    const float* const c = cos_data + t * half;
    const float* const s = sin_data + t * half;
    for (int64_t h = 0; h < num_heads; ++h) {
      float* const first = x_data + (t * num_heads + h) * d;
      float* const second = first + half;
      for (int64_t i = 0; i < half; ++i) {
        const float a = first[i];
        const float b = second[i];
        first[i] = a * c[i] - b * s[i];
        second[i] = b * c[i] + a * s[i];
      }
    }
  });
}

}  // namespace cadre
