// Element types of tensors, as they are stored in checkpoints and buffers.
#ifndef CADRE_KERNELS_DTYPE_H_
#define CADRE_KERNELS_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace cadre {

// kQ8 and kQ4 are weights in groups that share a scale (kernels/quantized.h): rows of them have a size, elements none.
enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI64, kF64, kQ8, kQ4 };

constexpr bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }
constexpr bool IsQuantized(DType dtype) { return dtype == DType::kQ8 || dtype == DType::kQ4; }

// Of an element; 0 where elements have no size of their own.
constexpr size_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kQ8:
    case DType::kQ4:
      return 0;
  }
  return 0;
}

// Inputs of a quantized row come in blocks of so many, the last one padded.
inline constexpr int64_t kQuantizedBlock = 128;
inline constexpr int64_t kQ8BlockBytes = kQuantizedBlock + 4;          // codes, a scale
inline constexpr int64_t kQ4BlockBytes = kQuantizedBlock / 2 + 4 * 2;  // codes, four scales

// Of a row of k >= 0 elements.
constexpr int64_t RowBytes(DType dtype, int64_t k) {
  if (!IsQuantized(dtype)) return k * static_cast<int64_t>(DTypeBytes(dtype));
  const int64_t num_blocks = k / kQuantizedBlock + (k % kQuantizedBlock == 0 ? 0 : 1);
  return num_blocks * (dtype == DType::kQ8 ? kQ8BlockBytes : kQ4BlockBytes);
}

// Lower-case names as people type them: "float32", "bfloat16", ...
constexpr std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "float64";
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kI32:
      return "int32";
    case DType::kI64:
      return "int64";
    case DType::kQ8:
      return "int8";
    case DType::kQ4:
      return "int4";
  }
  return "unknown";
}

// bfloat16 as its 16 bits: the upper half of a float32.
struct BFloat16 {
  uint16_t bits;
};
// IEEE binary16 as its 16 bits.
struct Float16 {
  uint16_t bits;
};

constexpr float ToFloat(float x) { return x; }
constexpr float ToFloat(double x) { return static_cast<float>(x); }
constexpr float ToFloat(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// Rounds to nearest, ties to even; NaN stays a (quiet) NaN.
constexpr BFloat16 ToBFloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

constexpr float ToFloat(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1Fu;
  const uint32_t mantissa = x.bits & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  // Subnormal: mantissa * 2^-24 is exact in float32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

// Rounds to nearest, ties to even; overflow becomes infinity, NaN stays a (quiet) NaN.
constexpr Float16 ToFloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return {static_cast<uint16_t>(sign | 0x7E00u)};
  // 65520 is halfway between the largest finite value and the next power of two.
  if (magnitude >= 0x477FF000u) return {static_cast<uint16_t>(sign | 0x7C00u)};
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves multiples of 2^-24, correctly rounded, in the low bits of the sum.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3F000000u))};
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
}

// `x` rounded to T: float, BFloat16 or Float16.
template <typename T>
constexpr T FromFloat(float x) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, BFloat16> || std::is_same_v<T, Float16>);
  if constexpr (std::is_same_v<T, BFloat16>) {
    return ToBFloat16(x);
  } else if constexpr (std::is_same_v<T, Float16>) {
    return ToFloat16(x);
  } else {
    return x;
  }
}

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::kF16;
};

}  // namespace cadre

#endif  // CADRE_KERNELS_DTYPE_H_
