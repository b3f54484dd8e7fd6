// The routed experts of a checkpoint, read from its files one at a time.
#ifndef CADRE_ENGINE_MODEL_CHECKPOINT_EXPERTS_H_
#define CADRE_ENGINE_MODEL_CHECKPOINT_EXPERTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/direct_file.h"
#include "engine/experts/expert_source.h"
#include "engine/model/checkpoint_files.h"
#include "engine/model/expert_layout.h"
#include "engine/model/weight_reader.h"

namespace cadre {

// Thread-safe. A file that was written to since it was opened is read on if samples of it are what they were: one that
// has been mended is, another checkpoint is not.
class CheckpointExperts final : public ExpertSource {
 public:
  using Matrices = std::array<WeightSource, ExpertLayout::kNumMatrices>;

  // Reads the samples. `matrices` are of all experts, layer by layer; `layers` are the numbers of those layers in the
  // model. With `is_direct` experts are read past the page cache: FAILED_PRECONDITION where that cannot be done.
  static absl::StatusOr<std::unique_ptr<ExpertSource>> Open(std::shared_ptr<const CheckpointFiles> files,
                                                            const ExpertLayout& layout, std::vector<Matrices> matrices,
                                                            std::vector<int64_t> layers, bool is_direct);

  int64_t expert_bytes() const override { return layout_.size_bytes(); }
  // DATA_LOSS when a file has become shorter or another one, INVALID_ARGUMENT when a weight cannot be quantized, else
  // what the disk says.
  absl::Status Read(ExpertId expert, std::span<std::byte> to, ReadPace pace) const override;
  std::string Describe(ExpertId expert) const override;

 private:
  CheckpointExperts(std::shared_ptr<const CheckpointFiles> files, const ExpertLayout& layout,
                    std::vector<Matrices> matrices, std::vector<int64_t> layers, std::vector<uint64_t> samples,
                    std::vector<DirectFile> direct_files);

  absl::Status ReadAt(size_t shard, int64_t offset, std::span<std::byte> out) const;
  absl::Status CheckFile(size_t shard) const;
  absl::Status ReadMatrix(const WeightSource& from, View to, ReadPace pace) const;

  const std::shared_ptr<const CheckpointFiles> files_;
  const ExpertLayout layout_;
  const std::vector<Matrices> matrices_;
  const std::vector<int64_t> layers_;
  const int64_t num_experts_;                   // of a layer
  const std::vector<uint64_t> samples_;         // hash of each file's
  const std::vector<DirectFile> direct_files_;  // of all files, or none
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_CHECKPOINT_EXPERTS_H_
