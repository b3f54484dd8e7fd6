#ifndef CADRE_ENGINE_MODEL_ELEMENT_CONVERSION_H_
#define CADRE_ENGINE_MODEL_ELEMENT_CONVERSION_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
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

// Converts rows of k elements: to a float type as above, or to rows of quantized weights (kernels/quantized.h).
// INVALID_ARGUMENT if a weight to be quantized is not finite; `out` is then not to be used.
absl::Status ConvertRows(DType from, const std::byte* in, int64_t num_rows, int64_t k, DType to, std::byte* out);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_ELEMENT_CONVERSION_H_
