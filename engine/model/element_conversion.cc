#include "engine/model/element_conversion.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "kernels/quantized.h"

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

absl::Status ConvertRows(DType from, const std::byte* in, int64_t num_rows, int64_t k, DType to, std::byte* out) {
  const auto row_elements = static_cast<size_t>(k);
  if (!IsQuantized(to)) {
    ConvertElements(from, in, to, out, static_cast<size_t>(num_rows) * row_elements);
    return absl::OkStatus();
  }
  std::vector<float> row(row_elements);
  for (int64_t i = 0; i < num_rows; ++i) {
    ConvertElements(from, in + i * RowBytes(from, k), DType::kF32, reinterpret_cast<std::byte*>(row.data()),
                    row_elements);
    if (QuantizeRow(to, row.data(), k, out + i * RowBytes(to, k))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("a weight is infinite or not a number, which ", std::string(DTypeName(to)), " cannot hold"));
  }
  return absl::OkStatus();
}

}  // namespace cadre
