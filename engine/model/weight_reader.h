// Moves tensor data from files to a device, at the disk's rate and within a fixed amount of host memory.
#ifndef CADRE_ENGINE_MODEL_WEIGHT_READER_H_
#define CADRE_ENGINE_MODEL_WEIGHT_READER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
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

// An error of reading or converting `tensor`, with its name.
absl::Status OfTensor(const absl::Status& error, const StoredTensor& tensor);

struct WeightTransfer {
  WeightSource from;
  View to;                      // as many elements, of the type they are converted to; [N, k] where that is quantized
  bool is_host_memory = false;  // `to` is; else the device's
};

// Chunks are taken in order by as many threads as are asked for, each of which reads one, converts it and sends it to
// the device: reading and copying overlap, and copies are from staging memory.
class WeightReader {
 public:
  // Stored bytes that are read at once. Small enough to stay in the last-level cache between the read, the conversion
  // and the copy; large enough for a GPU's copy engine.
  static constexpr int64_t kChunkBytes = int64_t{1} << 22;

  // `files` are the shards that the sources count in. `on_progress` may be empty; it is called from the threads that
  // read, by one at a time. REQUIRES: num_threads >= 1.
  WeightReader(const std::vector<InputFile>& files, Device& device, int num_threads,
               std::function<void(int64_t, int64_t)> on_progress);

  // Reads all transfers, which should come in the order of their files and offsets. Stops at the first error: DATA_LOSS
  // when a file is shorter than its header said or was written to meanwhile, INVALID_ARGUMENT when a weight cannot be
  // quantized, else what the disk or the device says.
  absl::Status ReadAll(const std::vector<WeightTransfer>& transfers);

 private:
  struct Chunk {
    const WeightTransfer* transfer;
    int64_t first;  // element of the transfer
    int64_t count;
  };

  void Plan(const std::vector<WeightTransfer>& transfers);
  // False if the system has no more threads.
  bool StartHelper(std::vector<std::thread>* helpers);
  // Until there are no more chunks, or one failed.
  void ReadChunks(const DeviceBuffer& staging);
  absl::Status ReadNext(const Chunk& chunk, std::byte* staging, std::vector<std::byte>* stored);
  void AddProgress(int64_t bytes);
  void NoteError(size_t chunk, const absl::Status& status);

  const std::vector<InputFile>& files_;
  Device& device_;
  const int num_threads_;
  const std::function<void(int64_t, int64_t)> on_progress_;
  std::vector<Chunk> chunks_;
  size_t staging_bytes_ = 0;  // the largest chunk, as held
  int64_t total_bytes_ = 0;

  std::atomic<size_t> next_chunk_ = 0;
  std::atomic<bool> has_failed_ = false;
  std::mutex mutex_;  // for what follows
  int64_t done_bytes_ = 0;
  int64_t reported_bytes_ = 0;
  std::pair<size_t, absl::Status> error_;  // of the earliest chunk that failed
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_WEIGHT_READER_H_
