// Moves tensor data from files to a device, at the disk's rate and within a fixed amount of host memory.
#ifndef CADRE_ENGINE_MODEL_WEIGHT_READER_H_
#define CADRE_ENGINE_MODEL_WEIGHT_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/checkpoint_files.h"
#include "kernels/device.h"

namespace cadre {

// A run of elements in a file.
struct WeightSource {
  const StoredTensor* tensor = nullptr;
  int64_t offset_bytes = 0;  // from the start of the file
  int64_t num_elements = 0;
};

struct WeightTransfer {
  WeightSource from;
  View to;  // as many elements, of the type they are converted to
};

class WeightReader {
 public:
  // Stored bytes that are read at once. Small enough to stay in the last-level cache between the read, the conversion
  // and the copy; large enough for a GPU's copy engine.
  static constexpr int64_t kChunkBytes = int64_t{1} << 22;

  // `files` are the shards that the sources count in. `on_progress` may be empty.
  WeightReader(const std::vector<InputFile>& files, Device& device, std::function<void(int64_t, int64_t)> on_progress);

  // Reads all transfers, which should come in the order of their files and offsets. Stops at the first error: DATA_LOSS
  // when a file is shorter than its header said or was written to meanwhile, else what the disk or the device says.
  absl::Status ReadAll(const std::vector<WeightTransfer>& transfers);

 private:
  absl::Status Read(const WeightTransfer& transfer);
  void AddProgress(int64_t bytes);

  const std::vector<InputFile>& files_;
  Device& device_;
  const std::function<void(int64_t, int64_t)> on_progress_;
  std::vector<std::byte> stored_;     // one chunk as read
  std::vector<std::byte> converted_;  // the same chunk in its new type
  int64_t done_bytes_ = 0;
  int64_t reported_bytes_ = 0;
  int64_t total_bytes_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_WEIGHT_READER_H_
