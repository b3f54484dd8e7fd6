// model.safetensors.index.json: which file holds which tensor.
#ifndef CADRE_ENGINE_MODEL_SHARD_INDEX_H_
#define CADRE_ENGINE_MODEL_SHARD_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace cadre {

inline constexpr char kShardIndexFile[] = "model.safetensors.index.json";
// DeepSeek-V3 has 163 shards. Every shard stays open while it is loaded, so this also bounds descriptors.
inline constexpr size_t kMaxShards = 512;
inline constexpr int64_t kMaxIndexBytes = int64_t{1} << 25;

// Tensor name -> the plain name of a .safetensors file in the folder of the index.
using ShardIndex = absl::flat_hash_map<std::string, std::string>;

// The weight_map of the text, never empty. INVALID_ARGUMENT names the tensor and the reason: a file name with a folder
// in it or hidden, more than kMaxShards files, anything that is not such a map.
absl::StatusOr<ShardIndex> ParseShardIndex(std::string_view text);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_SHARD_INDEX_H_
