// Matrices [N, k] whose weights share scales in groups: how a row lies in memory, and how it is made.
//
//   kQ8  one scale for 128 weights: w = scale * (code - 128), codes 1 to 255.           8.25 bits a weight
//        ceil(k / 128) * 128 codes of a byte, then as many scales of float32 as there are blocks of 128.
//   kQ4  one scale for 32 weights: w = scale * (code - 8), codes 0 to 15.               4.5 bits a weight
//        Of each group of 32, 16 bytes: byte i has code i in its low half and code i + 16 in its high half. Then, of
//        each block of 128, 4 scales of bfloat16.
//
// Codes are unsigned because the instructions that multiply bytes want one side so. Those behind the last weight of a
// row stand for 0. Weights are rounded to the nearest code: with kQ8 the largest of a group becomes +-127 scales. With
// kQ4 it becomes -8 scales (but for the rounding of the scale), so that no code is left unused, and one of the opposite
// sign that is as large is cut at 7.
#ifndef CADRE_KERNELS_QUANTIZED_H_
#define CADRE_KERNELS_QUANTIZED_H_

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace cadre {

inline constexpr int kQ8Zero = 128;
inline constexpr int kQ4Zero = 8;
inline constexpr int64_t kQ4Group = 32;  // weights that share a scale
// Groups whose weights are all smaller than this become zeros: their scale would have no reciprocal.
inline constexpr float kSmallestQuantized = 1e-30f;

// The place in a row of the code in the low half of byte i of the codes of kQ4.
constexpr int64_t LowCodeOfByte(int64_t i) { return i / (kQ4Group / 2) * kQ4Group + i % (kQ4Group / 2); }

// Bytes of the codes at the start of a row of k weights; the scales are behind them.
constexpr int64_t QuantizedCodeBytes(DType dtype, int64_t k) {
  const int64_t padded = (k + kQuantizedBlock - 1) / kQuantizedBlock * kQuantizedBlock;
  return dtype == DType::kQ8 ? padded : padded / 2;
}

// Writes RowBytes(dtype, k) bytes at `row`, aligned to 4 for kQ8 and to 2 for kQ4. False, and nothing that may be used,
// if a weight is infinite or not a number. REQUIRES: IsQuantized(dtype). Any thread.
bool QuantizeRow(DType dtype, const float* weights, int64_t k, std::byte* row);

}  // namespace cadre

#endif  // CADRE_KERNELS_QUANTIZED_H_
