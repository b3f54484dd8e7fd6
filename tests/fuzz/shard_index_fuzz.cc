// Any shard index is either refused or names files that can only lie in the folder of the model.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "engine/base/check.h"
#include "engine/model/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const absl::StatusOr<cadre::ShardIndex> index = cadre::ParseShardIndex({reinterpret_cast<const char*>(data), size});
  if (!index.ok()) {
    CADRE_CHECK(absl::IsInvalidArgument(index.status()));
    return 0;
  }
  CADRE_CHECK(!index->empty());
  std::set<std::string> files;
  for (const auto& [tensor, file] : *index) {
    CADRE_CHECK(!file.empty() && file.front() != '.');
    CADRE_CHECK(std::none_of(file.begin(), file.end(), [](char c) { return c == '/' || c == '\0'; }));
    files.insert(file);
  }
  CADRE_CHECK(files.size() <= cadre::kMaxShards);
  return 0;
}
