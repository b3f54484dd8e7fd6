#include "engine/model/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/safetensors_json.h"

namespace cadre {
namespace {

constexpr int64_t kLengthBytes = 8;

struct ElementType {
  std::string_view name;
  int64_t bytes;
  std::optional<DType> dtype;
};

constexpr std::array<ElementType, 15> kElementTypes = {{
    {"BF16", 2, DType::kBF16},
    {"F16", 2, DType::kF16},
    {"F32", 4, DType::kF32},
    {"F64", 8, DType::kF64},
    {"I32", 4, DType::kI32},
    {"I64", 8, DType::kI64},
    {"BOOL", 1, std::nullopt},
    {"U8", 1, std::nullopt},
    {"I8", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
    {"U16", 2, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt},
}};

const ElementType* FindElementType(std::string_view name) {
  const auto it = std::find_if(kElementTypes.begin(), kElementTypes.end(),
                               [name](const ElementType& type) { return type.name == name; });
  return it == kElementTypes.end() ? nullptr : &*it;
}

absl::Status TensorError(std::string_view file_name, std::string_view tensor, const std::string& reason) {
  return absl::InvalidArgumentError(absl::StrCat(ToAbsl(file_name), ": tensor ", Quoted(tensor), ": ", reason));
}

// Bytes of `shape`, or nothing when they do not fit in 63 bits.
std::optional<int64_t> ByteCount(const std::vector<int64_t>& shape, int64_t element_bytes) {
  int64_t bytes = element_bytes;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  }
  return bytes;
}

// Checks one entry by itself: type, size and place.
absl::StatusOr<TensorInfo> CheckEntry(SafetensorsEntry entry, int64_t data_offset, int64_t data_bytes,
                                      std::string_view file_name) {
  const ElementType* type = FindElementType(entry.dtype);
  if (type == nullptr) return TensorError(file_name, entry.name, absl::StrCat("unknown dtype ", Quoted(entry.dtype)));
  if (entry.begin > entry.end || entry.end > data_bytes) {
    return TensorError(file_name, entry.name,
                       absl::StrCat("data_offsets [", entry.begin, ", ", entry.end, "] are not a range of the ",
                                    data_bytes, " data bytes"));
  }
  const std::optional<int64_t> size_bytes = ByteCount(entry.shape, type->bytes);
  if (size_bytes != entry.end - entry.begin) {
    return TensorError(file_name, entry.name,
                       absl::StrCat("shape ", ShapeToString(entry.shape), " of ", ToAbsl(type->name), " takes ",
                                    size_bytes.has_value() ? absl::StrCat(*size_bytes) : "more than 2^63",
                                    " bytes, data_offsets hold ", entry.end - entry.begin));
  }
  return TensorInfo{.name = std::move(entry.name),
                    .dtype_name = type->name,
                    .dtype = type->dtype,
                    .shape = std::move(entry.shape),
                    .offset_bytes = data_offset + entry.begin,
                    .size_bytes = *size_bytes};
}

absl::Status CheckNamesDiffer(const std::vector<TensorInfo>& tensors, std::string_view file_name) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  return twice == names.end() ? absl::OkStatus() : TensorError(file_name, *twice, "is in the header twice");
}

// `tensors` in order of offset must tile [data_offset, data_end) exactly.
absl::Status CheckTiling(const std::vector<TensorInfo>& tensors, int64_t data_offset, int64_t data_end,
                         std::string_view file_name) {
  int64_t expected = data_offset;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset_bytes != expected) {
      return TensorError(file_name, tensor.name,
                         absl::StrCat("starts at data byte ", tensor.offset_bytes - data_offset,
                                      tensor.offset_bytes < expected ? ", inside the tensor before it, which ends at "
                                                                     : ", after a hole that starts at ",
                                      expected - data_offset));
    }
    expected += tensor.size_bytes;
  }
  if (expected != data_end) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(file_name), ": ", data_end - expected, " bytes after the last tensor belong to no tensor"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TensorInfo>> ParseSafetensorsHeader(std::string_view json, int64_t data_offset,
                                                               int64_t data_bytes, std::string_view file_name) {
  CADRE_ASSIGN_OR_RETURN(std::vector<SafetensorsEntry> entries, ParseSafetensorsJson(json, file_name));
  std::vector<TensorInfo> tensors;
  tensors.reserve(entries.size());
  for (SafetensorsEntry& entry : entries) {
    CADRE_ASSIGN_OR_RETURN(TensorInfo tensor, CheckEntry(std::move(entry), data_offset, data_bytes, file_name));
    tensors.push_back(std::move(tensor));
  }
  CADRE_RETURN_IF_ERROR(CheckNamesDiffer(tensors, file_name));
  // Empty tensors share their offset with the tensor that follows.
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset_bytes, a.size_bytes) < std::pair(b.offset_bytes, b.size_bytes);
  });
  CADRE_RETURN_IF_ERROR(CheckTiling(tensors, data_offset, data_offset + data_bytes, file_name));
  return tensors;
}

absl::StatusOr<std::vector<TensorInfo>> ReadSafetensorsHeader(const InputFile& file) {
  const std::string file_name = file.path().filename().string();
  if (file.size_bytes() < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file_name, ": has ", file.size_bytes(), " bytes, a safetensors file has at least ", kLengthBytes));
  }
  std::array<std::byte, kLengthBytes> length_bytes;
  CADRE_RETURN_IF_ERROR(file.ReadAt(0, length_bytes));
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < length_bytes.size(); ++i)
    header_bytes |= std::to_integer<uint64_t>(length_bytes[i]) << (8 * i);

  const int64_t room = std::min(file.size_bytes() - kLengthBytes, kMaxSafetensorsHeaderBytes);
  if (header_bytes > static_cast<uint64_t>(room)) {
    return absl::InvalidArgumentError(absl::StrCat(file_name, ": header length is ", header_bytes, " bytes, limit is ",
                                                   room, " (the file has ", file.size_bytes(), ")"));
  }
  std::string json(header_bytes, '\0');
  CADRE_RETURN_IF_ERROR(file.ReadAt(kLengthBytes, std::as_writable_bytes(std::span(json))));
  const int64_t data_offset = kLengthBytes + static_cast<int64_t>(header_bytes);
  return ParseSafetensorsHeader(json, data_offset, file.size_bytes() - data_offset, file_name);
}

std::string ShapeToString(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace cadre
