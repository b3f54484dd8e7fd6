#include "engine/model/checkpoint_experts.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/failpoint.h"
#include "engine/base/status_macros.h"
#include "engine/model/element_conversion.h"

namespace cadre {
namespace {

// So many pieces of so many bytes, spread evenly, tell two checkpoints apart: training changes nearly every weight.
constexpr int64_t kNumSamples = 64;
constexpr int64_t kSampleBytes = 512;

absl::StatusOr<uint64_t> HashSamples(const InputFile& file) {
  std::vector<std::byte> samples(static_cast<size_t>(kNumSamples * kSampleBytes));
  const int64_t last = std::max<int64_t>(file.size_bytes() - kSampleBytes, 0);
  for (int64_t i = 0; i < kNumSamples; ++i) {
    const auto size = static_cast<size_t>(std::min(kSampleBytes, file.size_bytes()));
    const std::span<std::byte> sample = std::span(samples).subspan(static_cast<size_t>(i * kSampleBytes), size);
    CADRE_RETURN_IF_ERROR(file.ReadAt(last / (kNumSamples - 1) * i, sample));
  }
  return XXH3_64bits(samples.data(), samples.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertSource>> CheckpointExperts::Open(std::shared_ptr<const CheckpointFiles> files,
                                                                      const ExpertLayout& layout,
                                                                      std::vector<Matrices> matrices,
                                                                      std::vector<int64_t> layers, bool is_direct) {
  std::vector<uint64_t> samples;
  std::vector<DirectFile> direct_files;
  for (const InputFile& file : files->files()) {
    CADRE_ASSIGN_OR_RETURN(const uint64_t hash, HashSamples(file));
    samples.push_back(hash);
    if (!is_direct) continue;
    CADRE_ASSIGN_OR_RETURN(DirectFile direct, DirectFile::Open(file));
    direct_files.push_back(std::move(direct));
  }
  return std::unique_ptr<ExpertSource>(new CheckpointExperts(
      std::move(files), layout, std::move(matrices), std::move(layers), std::move(samples), std::move(direct_files)));
}

CheckpointExperts::CheckpointExperts(std::shared_ptr<const CheckpointFiles> files, const ExpertLayout& layout,
                                     std::vector<Matrices> matrices, std::vector<int64_t> layers,
                                     std::vector<uint64_t> samples, std::vector<DirectFile> direct_files)
    : files_(std::move(files)),
      layout_(layout),
      matrices_(std::move(matrices)),
      layers_(std::move(layers)),
      num_experts_(std::ssize(matrices_) / std::ssize(layers_)),
      samples_(std::move(samples)),
      direct_files_(std::move(direct_files)) {
  CADRE_CHECK_EQ(std::ssize(matrices_), num_experts_ * std::ssize(layers_));
}

absl::Status CheckpointExperts::CheckFile(size_t shard) const {
  const InputFile& file = files_->files()[shard];
  absl::Status unchanged = file.CheckUnchanged();
  if (unchanged.ok()) return unchanged;
  CADRE_ASSIGN_OR_RETURN(const uint64_t hash, HashSamples(file));
  return hash == samples_[shard] ? absl::OkStatus() : unchanged;
}

absl::Status CheckpointExperts::Read(ExpertId expert, std::span<std::byte> to, ReadPace pace) const {
  CADRE_FAILPOINT_RETURN("experts.read");
  CADRE_CHECK_EQ(static_cast<int64_t>(to.size()), layout_.size_bytes());
  const Matrices& matrices = matrices_[static_cast<size_t>(expert)];
  for (size_t i = 0; i < matrices.size(); ++i) {
    CADRE_RETURN_IF_ERROR(ReadMatrix(matrices[i], layout_.Matrix(i, to.data()), pace));
  }
  // Afterwards: what was written meanwhile is seen, too.
  for (const WeightSource& matrix : matrices) CADRE_RETURN_IF_ERROR(CheckFile(matrix.tensor->shard));
  return absl::OkStatus();
}

absl::Status CheckpointExperts::ReadMatrix(const WeightSource& from, View to, ReadPace pace) const {
  const size_t shard = from.tensor->shard;
  const DType stored = *from.tensor->info.dtype;
  const int64_t num_rows = to.dim(0);
  const int64_t row_elements = to.dim(1);
  const int64_t row_bytes = RowBytes(stored, row_elements);
  const bool is_converted = stored != to.dtype();
  const int64_t piece_rows = std::max<int64_t>(kPieceBytes / row_bytes, 1);
  // Stays in the processor's cache.
  std::vector<std::byte> buffer(is_converted ? static_cast<size_t>(piece_rows * row_bytes) : 0);
  for (int64_t first = 0; first < num_rows; first += piece_rows) {
    CADRE_RETURN_IF_ERROR(pace());
    const View piece = to.Rows(first, std::min(piece_rows, num_rows - first));
    const std::span<std::byte> read(is_converted ? buffer.data() : piece.raw(),
                                    static_cast<size_t>(piece.dim(0) * row_bytes));
    CADRE_RETURN_IF_ERROR(ReadAt(shard, from.offset_bytes + first * row_bytes, read));
    if (!is_converted) continue;
    const absl::Status converted =
        ConvertRows(stored, read.data(), piece.dim(0), row_elements, piece.dtype(), piece.raw());
    if (!converted.ok()) return OfTensor(converted, *from.tensor);
  }
  return absl::OkStatus();
}

absl::Status CheckpointExperts::ReadAt(size_t shard, int64_t offset, std::span<std::byte> out) const {
  return direct_files_.empty() ? files_->files()[shard].ReadAt(offset, out) : direct_files_[shard].ReadAt(offset, out);
}

std::string CheckpointExperts::Describe(ExpertId expert) const {
  return absl::StrCat("expert ", expert % num_experts_, " of layer ",
                      layers_[static_cast<size_t>(expert / num_experts_)]);
}

}  // namespace cadre
