// The safetensors format: u64 header length (little-endian), a JSON header, then the tensors side by side.
#ifndef CADRE_ENGINE_MODEL_SAFETENSORS_H_
#define CADRE_ENGINE_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/file.h"
#include "kernels/dtype.h"

namespace cadre {

// The format's own limit on the header, in bytes.
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;
// Ours. The largest published files have about ten thousand tensors, of rank 3 at most. With the header's size they
// bound what a header can make us hold: its text plus about 150 MB.
inline constexpr int64_t kMaxTensorsPerFile = 1 << 18;
inline constexpr int64_t kMaxTensorNameBytes = 512;
inline constexpr int64_t kMaxTensorRank = 8;

// One tensor of a file. The header that it comes from has been checked: the bytes are inside the file.
struct TensorInfo {
  std::string name;
  std::string_view dtype_name;  // as the format spells it: "BF16"; static storage
  std::optional<DType> dtype;   // absent: a type that the format knows and cadre does not compute with
  std::vector<int64_t> shape;
  int64_t offset_bytes = 0;  // from the start of the file
  int64_t size_bytes = 0;
};

// Checks the JSON text of a header whose data section starts at byte `data_offset` of the file and has `data_bytes`.
// The tensors come in the order of their offsets. INVALID_ARGUMENT, naming `file_name`, the tensor and the reason, for
// anything that the format forbids (bad JSON, duplicate names, a size that is not shape times element size, overlaps,
// holes, bytes past the end or left over) and for our limits above.
absl::StatusOr<std::vector<TensorInfo>> ParseSafetensorsHeader(std::string_view json, int64_t data_offset,
                                                               int64_t data_bytes, std::string_view file_name);

// Reads and checks the header of an open file.
absl::StatusOr<std::vector<TensorInfo>> ReadSafetensorsHeader(const InputFile& file);

// "[64, 2048]".
std::string ShapeToString(const std::vector<int64_t>& shape);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_SAFETENSORS_H_
