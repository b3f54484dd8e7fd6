#include "engine/model/element_conversion.h"

#include "engine/base/check.h"

namespace cadre {
namespace {

template <typename From, typename To>
void Convert(const From* in, To* out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = FromFloat<To>(ToFloat(in[i]));
}

template <typename From>
void ConvertFrom(const From* in, DType to, std::byte* out, size_t count) {
  switch (to) {
    case DType::kF32:
      return Convert(in, reinterpret_cast<float*>(out), count);
    case DType::kBF16:
      return Convert(in, reinterpret_cast<BFloat16*>(out), count);
    case DType::kF16:
      return Convert(in, reinterpret_cast<Float16*>(out), count);
    default:
      CADRE_CHECK(false);
  }
}

}  // namespace

void ConvertElements(DType from, const std::byte* in, DType to, std::byte* out, size_t count) {
  switch (from) {
    case DType::kF32:
      return ConvertFrom(reinterpret_cast<const float*>(in), to, out, count);
    case DType::kBF16:
      return ConvertFrom(reinterpret_cast<const BFloat16*>(in), to, out, count);
    case DType::kF16:
      return ConvertFrom(reinterpret_cast<const Float16*>(in), to, out, count);
    case DType::kF64:
      return ConvertFrom(reinterpret_cast<const double*>(in), to, out, count);
    default:
      CADRE_CHECK(false);
  }
}

}  // namespace cadre
