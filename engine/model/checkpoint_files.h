// The files of one checkpoint and the tensors in them, found and checked by their headers alone.
#ifndef CADRE_ENGINE_MODEL_CHECKPOINT_FILES_H_
#define CADRE_ENGINE_MODEL_CHECKPOINT_FILES_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/base/file.h"
#include "engine/model/safetensors.h"
#include "engine/model/shard_index.h"

namespace cadre {

struct StoredTensor {
  TensorInfo info;
  size_t shard = 0;  // index into CheckpointFiles::files()
};

class CheckpointFiles {
 public:
  // model.safetensors if there is one, else the shards that model.safetensors.index.json names (the order of
  // transformers). A shard is named by a plain file name; it may be a symbolic link (download caches are made of them)
  // to a regular file anywhere, since whoever can plant a link in the folder can plant a file. INVALID_ARGUMENT names
  // file, tensor and reason: a name with a folder in it, a tensor that the index and the shards do not agree on, a bad
  // header. NOT_FOUND for a missing file.
  static absl::StatusOr<CheckpointFiles> Open(const std::filesystem::path& model_dir);

  const std::vector<InputFile>& files() const { return files_; }
  // In the order of the files and of the offsets in them.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // Null when there is none.
  const StoredTensor* Find(std::string_view name) const;
  // Name of the file that lists the tensors: for messages about one that is missing.
  const std::string& index_name() const { return index_name_; }
  // "model-00001-of-00002.safetensors: tensor \"x\"", to open a message.
  std::string Describe(const StoredTensor& tensor) const;

 private:
  absl::Status OpenSharded(const std::filesystem::path& model_dir);
  absl::Status AddFile(const std::filesystem::path& path);
  absl::Status CheckShard(size_t shard, const ShardIndex& weight_map) const;
  void BuildLookup();

  std::vector<InputFile> files_;
  std::vector<StoredTensor> tensors_;
  absl::flat_hash_map<absl::string_view, size_t> lookup_;  // name, owned by tensors_ -> index into tensors_
  std::string index_name_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_CHECKPOINT_FILES_H_
