#ifndef CADRE_ENGINE_MODEL_ELEMENT_CONVERSION_H_
#define CADRE_ENGINE_MODEL_ELEMENT_CONVERSION_H_

#include <cstddef>

#include "kernels/dtype.h"

namespace cadre {

// Floating-point types that a checkpoint may store.
constexpr bool IsStoredFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF64;
}

// Converts `count` elements by way of float32, rounding to nearest, ties to even: bfloat16 and float16 to float32 are
// exact, too large for float16 becomes infinity, NaN stays NaN. `from` and `to` are float types (`to` not float64);
// both pointers are aligned to their elements and the ranges do not overlap.
void ConvertElements(DType from, const std::byte* in, DType to, std::byte* out, size_t count);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_ELEMENT_CONVERSION_H_
