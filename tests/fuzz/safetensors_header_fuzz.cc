// Any header is either refused or describes tensors that tile the data exactly.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/model/safetensors.h"
#include "kernels/check.h"

namespace cadre {
namespace {

constexpr size_t kSizeBytes = 4;
constexpr int64_t kDataOffset = 1'000'000;

void CheckSound(const std::vector<TensorInfo>& tensors, int64_t data_bytes) {
  int64_t expected = kDataOffset;
  for (const TensorInfo& tensor : tensors) {
    CADRE_CHECK(!tensor.name.empty());
    CADRE_CHECK_LE(static_cast<int64_t>(tensor.shape.size()), kMaxTensorRank);
    CADRE_CHECK_EQ(tensor.offset_bytes, expected);
    CADRE_CHECK_GE(tensor.size_bytes, 0);
    for (const int64_t dim : tensor.shape) CADRE_CHECK_GE(dim, 0);
    expected += tensor.size_bytes;
  }
  CADRE_CHECK_EQ(expected, kDataOffset + data_bytes);
}

}  // namespace
}  // namespace cadre

// The input: size of the data section (u32, little-endian), then the JSON.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < cadre::kSizeBytes) return 0;
  int64_t data_bytes = 0;
  for (size_t i = 0; i < cadre::kSizeBytes; ++i) data_bytes |= static_cast<int64_t>(data[i]) << (8 * i);
  const std::string_view json(reinterpret_cast<const char*>(data) + cadre::kSizeBytes, size - cadre::kSizeBytes);
  const auto tensors = cadre::ParseSafetensorsHeader(json, cadre::kDataOffset, data_bytes, "fuzz.safetensors");
  if (tensors.ok()) cadre::CheckSound(*tensors, data_bytes);
  return 0;
}
