#ifndef CADRE_TESTS_SUPPORT_DEQUANTIZE_H_
#define CADRE_TESTS_SUPPORT_DEQUANTIZE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/dtype.h"

namespace cadre {

// What a row of k quantized weights stands for, exactly: kernels/quantized.h read a second time, byte by byte.
inline std::vector<float> DequantizedRow(DType dtype, const std::byte* row, int64_t k) {
  const int64_t num_blocks = (k + 127) / 128;
  std::vector<float> weights(static_cast<size_t>(k));
  for (int64_t i = 0; i < k; ++i) {
    const int64_t block = i / 128;
    const int64_t within = i % 128;
    float& weight = weights[static_cast<size_t>(i)];
    if (dtype == DType::kQ8) {
      const auto* const scales = reinterpret_cast<const float*>(row + num_blocks * 128);
      weight = scales[block] * static_cast<float>(std::to_integer<int>(row[i]) - 128);
    } else {
      const auto* const scales = reinterpret_cast<const BFloat16*>(row + num_blocks * 64);
      const int both = std::to_integer<int>(row[block * 64 + within / 32 * 16 + i % 16]);
      weight = ToFloat(scales[i / 32]) * static_cast<float>((i % 32 < 16 ? both % 16 : both / 16) - 8);
    }
  }
  return weights;
}

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_DEQUANTIZE_H_
