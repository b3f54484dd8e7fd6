#include "engine/model/shard_index.h"

#include <set>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

constexpr int kMaxIndexDepth = 8;

absl::Status IndexError(const std::string& reason) {
  return absl::InvalidArgumentError(absl::StrCat(kShardIndexFile, ": ", reason));
}

// A name that can only mean a file inside the model's folder.
bool IsPlainShardName(const std::string& name) {
  return name.find('/') == std::string::npos && name.find('\0') == std::string::npos &&
         absl::EndsWith(name, ".safetensors") && name.front() != '.' && name.size() <= 255;
}

}  // namespace

absl::StatusOr<ShardIndex> ParseShardIndex(std::string_view text) {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(text, kShardIndexFile, kMaxIndexDepth));
  const auto map = document.is_object() ? document.find("weight_map") : document.end();
  if (map == document.end() || !map->is_object() || map->empty()) {
    return IndexError("weight_map must be an object that is not empty");
  }
  ShardIndex weight_map;
  weight_map.reserve(map->size());
  std::set<std::string_view> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) return IndexError(absl::StrCat("tensor ", Quoted(tensor), ": its file must be a string"));
    const auto& name = file.get_ref<const std::string&>();
    if (!IsPlainShardName(name)) {
      return IndexError(
          absl::StrCat("tensor ", Quoted(tensor), ": ", Quoted(name), " is not the plain name of a .safetensors file"));
    }
    weight_map.emplace(tensor, name);
    files.insert(name);
  }
  if (files.size() > kMaxShards) {
    return IndexError(absl::StrCat("names ", files.size(), " files, limit is ", kMaxShards));
  }
  return weight_map;
}

}  // namespace cadre
