#include "engine/model/weight_reader.h"

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/element_conversion.h"

namespace cadre {
namespace {

// Often enough for a progress line, seldom enough to cost nothing.
constexpr int64_t kProgressBytes = int64_t{1} << 26;

// Vectors of bytes are aligned for every element type, since operator new is.
static_assert(alignof(std::max_align_t) >= 8);

DType StoredType(const WeightSource& source) { return *source.tensor->info.dtype; }

// Elements that are read and converted as one: whole rows where rows are quantized.
int64_t UnitElements(const View& to) { return IsQuantized(to.dtype()) ? to.dim(1) : 1; }

// Of elements as they are held: whole units.
int64_t HeldBytes(const View& to, int64_t num_elements) {
  return num_elements / UnitElements(to) * RowBytes(to.dtype(), UnitElements(to));
}

}  // namespace

absl::Status OfTensor(const absl::Status& error, const StoredTensor& tensor) {
  return absl::Status(error.code(), absl::StrCat(error.message(), " (tensor ", Quoted(tensor.info.name), ")"));
}

WeightReader::WeightReader(const std::vector<InputFile>& files, Device& device, int num_threads,
                           std::function<void(int64_t, int64_t)> on_progress)
    : files_(files), device_(device), num_threads_(num_threads), on_progress_(std::move(on_progress)) {
  CADRE_CHECK_GE(num_threads, 1);
}

absl::Status WeightReader::ReadAll(const std::vector<WeightTransfer>& transfers) {
  for (const InputFile& file : files_) file.ExpectSequentialReads();
  Plan(transfers);
  CADRE_ASSIGN_OR_RETURN(const DeviceBuffer staging, device_.AllocateStaging(staging_bytes_));
  std::vector<std::thread> helpers;
  const size_t num_threads = std::min(static_cast<size_t>(num_threads_), chunks_.size());
  while (helpers.size() + 1 < num_threads && StartHelper(&helpers)) continue;
  ReadChunks(staging);
  for (std::thread& helper : helpers) helper.join();
  if (has_failed_) return error_.second;
  for (const InputFile& file : files_) CADRE_RETURN_IF_ERROR(file.CheckUnchanged());
  if (on_progress_) on_progress_(done_bytes_, total_bytes_);
  return absl::OkStatus();
}

void WeightReader::Plan(const std::vector<WeightTransfer>& transfers) {
  for (const WeightTransfer& transfer : transfers) {
    const int64_t stored_bytes = RowBytes(StoredType(transfer.from), 1);
    const int64_t unit = UnitElements(transfer.to);
    const int64_t chunk_elements = std::max<int64_t>(kChunkBytes / stored_bytes / unit, 1) * unit;
    total_bytes_ += transfer.from.num_elements * stored_bytes;
    for (int64_t first = 0; first < transfer.from.num_elements; first += chunk_elements) {
      const int64_t count = std::min(chunk_elements, transfer.from.num_elements - first);
      chunks_.push_back({&transfer, first, count});
      staging_bytes_ = std::max(staging_bytes_, static_cast<size_t>(HeldBytes(transfer.to, count)));
    }
  }
}

bool WeightReader::StartHelper(std::vector<std::thread>* helpers) {
  try {
    helpers->emplace_back([this] {
      // Without staging memory of its own, a helper leaves the work to others.
      absl::StatusOr<DeviceBuffer> staging = device_.AllocateStaging(staging_bytes_);
      if (staging.ok()) ReadChunks(*staging);
    });
    return true;
  } catch (const std::system_error&) {  // no more threads are allowed: those that there are do it
    return false;
  }
}

void WeightReader::ReadChunks(const DeviceBuffer& staging) {
  std::vector<std::byte> stored;
  while (!has_failed_) {
    const size_t index = next_chunk_.fetch_add(1);
    if (index >= chunks_.size()) return;
    const absl::Status status = ReadNext(chunks_[index], staging.data(), &stored);
    if (!status.ok()) return NoteError(index, status);
  }
}

absl::Status WeightReader::ReadNext(const Chunk& chunk, std::byte* staging, std::vector<std::byte>* stored) {
  const WeightTransfer& transfer = *chunk.transfer;
  const DType stored_dtype = StoredType(transfer.from);
  const DType held_dtype = transfer.to.dtype();
  const auto stored_bytes = static_cast<size_t>(RowBytes(stored_dtype, chunk.count));
  const int64_t unit = UnitElements(transfer.to);
  const View to(transfer.to.raw() + HeldBytes(transfer.to, chunk.first), held_dtype, {chunk.count / unit, unit});
  std::byte* const held = transfer.is_host_memory ? to.raw() : staging;
  std::byte* read_to = held;
  if (held_dtype != stored_dtype) {
    stored->resize(std::max(stored->size(), stored_bytes));
    read_to = stored->data();
  }
  const int64_t offset = transfer.from.offset_bytes + RowBytes(stored_dtype, chunk.first);
  const absl::Status read = files_[transfer.from.tensor->shard].ReadAt(offset, std::span(read_to, stored_bytes));
  if (!read.ok()) return OfTensor(read, *transfer.from.tensor);
  if (held_dtype != stored_dtype) {
    const absl::Status converted = ConvertRows(stored_dtype, read_to, to.dim(0), unit, held_dtype, held);
    if (!converted.ok()) return OfTensor(converted, *transfer.from.tensor);
  }
  if (!transfer.is_host_memory) {
    device_.CopyToDevice(to, staging);
    // The staging memory is used again at once, and a device may copy in the background. An error may be that of
    // another thread's copy.
    CADRE_RETURN_IF_ERROR(device_.Synchronize());
  }
  AddProgress(static_cast<int64_t>(stored_bytes));
  return absl::OkStatus();
}

void WeightReader::AddProgress(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  done_bytes_ += bytes;
  if (!on_progress_ || done_bytes_ - reported_bytes_ < kProgressBytes) return;
  reported_bytes_ = done_bytes_;
  on_progress_(done_bytes_, total_bytes_);
}

void WeightReader::NoteError(size_t chunk, const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (has_failed_ && error_.first < chunk) return;
  error_ = {chunk, status};
  has_failed_ = true;
}

}  // namespace cadre
