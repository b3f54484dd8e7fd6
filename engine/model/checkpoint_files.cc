#include "engine/model/checkpoint_files.h"

#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

constexpr char kSingleFile[] = "model.safetensors";

absl::Status IndexError(const std::string& reason) {
  return absl::InvalidArgumentError(absl::StrCat(kShardIndexFile, ": ", reason));
}

}  // namespace

absl::StatusOr<CheckpointFiles> CheckpointFiles::Open(const std::filesystem::path& model_dir) {
  CheckpointFiles files;
  std::error_code ignored;
  if (std::filesystem::exists(std::filesystem::symlink_status(model_dir / kSingleFile, ignored))) {
    files.index_name_ = kSingleFile;
    CADRE_RETURN_IF_ERROR(files.AddFile(model_dir / kSingleFile));
    files.BuildLookup();
  } else if (std::filesystem::exists(std::filesystem::symlink_status(model_dir / kShardIndexFile, ignored))) {
    files.index_name_ = kShardIndexFile;
    CADRE_RETURN_IF_ERROR(files.OpenSharded(model_dir));
  } else {
    return absl::NotFoundError(
        absl::StrCat(model_dir.string(), ": has neither ", kSingleFile, " nor ", kShardIndexFile));
  }
  return files;
}

absl::Status CheckpointFiles::OpenSharded(const std::filesystem::path& model_dir) {
  CADRE_ASSIGN_OR_RETURN(const std::string text, ReadFileToString(model_dir / kShardIndexFile, kMaxIndexBytes));
  CADRE_ASSIGN_OR_RETURN(const ShardIndex weight_map, ParseShardIndex(text));
  std::set<std::string> names;
  for (const auto& [tensor, name] : weight_map) names.insert(name);
  for (const std::string& name : names) {
    CADRE_RETURN_IF_ERROR(AddFile(model_dir / name));
    // At once, so that shards cannot make us hold more tensors than the index names.
    CADRE_RETURN_IF_ERROR(CheckShard(files_.size() - 1, weight_map));
  }
  BuildLookup();
  for (const auto& [tensor, name] : weight_map) {
    if (Find(tensor) == nullptr) {
      return IndexError(absl::StrCat("tensor ", Quoted(tensor), " is not in ", Quoted(name)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointFiles::AddFile(const std::filesystem::path& path) {
  CADRE_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  CADRE_ASSIGN_OR_RETURN(std::vector<TensorInfo> infos, ReadSafetensorsHeader(file));
  for (TensorInfo& info : infos) tensors_.push_back({.info = std::move(info), .shard = files_.size()});
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status CheckpointFiles::CheckShard(size_t shard, const ShardIndex& weight_map) const {
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.shard != shard) continue;
    const auto it = weight_map.find(tensor.info.name);
    if (it == weight_map.end()) {
      return absl::InvalidArgumentError(absl::StrCat(Describe(tensor), ": is not in ", kShardIndexFile));
    }
    if (it->second != files_[tensor.shard].path().filename()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Describe(tensor), ": ", kShardIndexFile, " says that it is in ", Quoted(it->second)));
    }
  }
  return absl::OkStatus();
}

void CheckpointFiles::BuildLookup() {
  lookup_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) lookup_.emplace(tensors_[i].info.name, i);
}

const StoredTensor* CheckpointFiles::Find(std::string_view name) const {
  const auto it = lookup_.find(ToAbsl(name));
  return it == lookup_.end() ? nullptr : &tensors_[it->second];
}

std::string CheckpointFiles::Describe(const StoredTensor& tensor) const {
  return absl::StrCat(files_[tensor.shard].path().filename().string(), ": tensor ", Quoted(tensor.info.name));
}

}  // namespace cadre
