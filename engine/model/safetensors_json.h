// The JSON of a safetensors header as it stands: grammar and limits are checked here, meaning in safetensors.h.
#ifndef CADRE_ENGINE_MODEL_SAFETENSORS_JSON_H_
#define CADRE_ENGINE_MODEL_SAFETENSORS_JSON_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre {

// "name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}
struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;  // every dimension >= 0
  int64_t begin = 0;           // >= 0, from the start of the data
  int64_t end = 0;             // >= 0
};

// Reads the header as a stream of events, so that memory follows the tensors found and not the text. INVALID_ARGUMENT,
// naming `file_name`, for anything but an object of such entries and an optional "__metadata__" object of strings.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsJson(std::string_view json, std::string_view file_name);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_SAFETENSORS_JSON_H_
