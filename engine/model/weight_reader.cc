#include "engine/model/weight_reader.h"

#include <algorithm>
#include <span>
#include <utility>

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

int64_t StoredBytes(const WeightSource& source) {
  return source.num_elements * static_cast<int64_t>(DTypeBytes(*source.tensor->info.dtype));
}

}  // namespace

WeightReader::WeightReader(const std::vector<InputFile>& files, Device& device,
                           std::function<void(int64_t, int64_t)> on_progress)
    : files_(files), device_(device), on_progress_(std::move(on_progress)), stored_(kChunkBytes) {}

absl::Status WeightReader::ReadAll(const std::vector<WeightTransfer>& transfers) {
  for (const InputFile& file : files_) file.ExpectSequentialReads();
  for (const WeightTransfer& transfer : transfers) total_bytes_ += StoredBytes(transfer.from);
  for (const WeightTransfer& transfer : transfers) {
    if (absl::Status status = Read(transfer); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(status.message(), " (tensor ", Quoted(transfer.from.tensor->info.name), ")"));
    }
  }
  for (const InputFile& file : files_) CADRE_RETURN_IF_ERROR(file.CheckUnchanged());
  if (on_progress_) on_progress_(done_bytes_, total_bytes_);
  return absl::OkStatus();
}

absl::Status WeightReader::Read(const WeightTransfer& transfer) {
  const InputFile& file = files_[transfer.from.tensor->shard];
  const DType stored_dtype = *transfer.from.tensor->info.dtype;
  const DType held_dtype = transfer.to.dtype();
  const auto stored_bytes = static_cast<int64_t>(DTypeBytes(stored_dtype));
  const auto held_bytes = static_cast<int64_t>(DTypeBytes(held_dtype));
  const int64_t chunk_elements = kChunkBytes / stored_bytes;
  for (int64_t done = 0; done < transfer.from.num_elements; done += chunk_elements) {
    const int64_t count = std::min(chunk_elements, transfer.from.num_elements - done);
    const std::span<std::byte> chunk(stored_.data(), static_cast<size_t>(count * stored_bytes));
    CADRE_RETURN_IF_ERROR(file.ReadAt(transfer.from.offset_bytes + done * stored_bytes, chunk));
    const std::byte* data = chunk.data();
    if (held_dtype != stored_dtype) {
      converted_.resize(std::max(converted_.size(), static_cast<size_t>(count * held_bytes)));
      ConvertElements(stored_dtype, data, held_dtype, converted_.data(), static_cast<size_t>(count));
      data = converted_.data();
    }
    device_.CopyToDevice(View(transfer.to.raw() + done * held_bytes, held_dtype, {count}), data);
    // The staging memory is used again at once, and a device may copy in the background.
    CADRE_RETURN_IF_ERROR(device_.Synchronize());
    AddProgress(count * stored_bytes);
  }
  return absl::OkStatus();
}

void WeightReader::AddProgress(int64_t bytes) {
  done_bytes_ += bytes;
  if (!on_progress_ || done_bytes_ - reported_bytes_ < kProgressBytes) return;
  reported_bytes_ = done_bytes_;
  on_progress_(done_bytes_, total_bytes_);
}

}  // namespace cadre
