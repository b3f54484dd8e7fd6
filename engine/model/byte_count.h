// Sizes in bytes that saturate instead of wrapping: the plan of an absurd model must read "too large", never "fits".
#ifndef CADRE_ENGINE_MODEL_BYTE_COUNT_H_
#define CADRE_ENGINE_MODEL_BYTE_COUNT_H_

#include <cstdint>
#include <limits>

namespace cadre {

// Both arguments >= 0.
constexpr int64_t SaturatingMultiply(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<int64_t>::max() : product;
}

constexpr int64_t SaturatingAdd(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_BYTE_COUNT_H_
