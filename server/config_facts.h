// What a checkpoint's config.json says that only clients want to know.
#ifndef CADRE_SERVER_CONFIG_FACTS_H_
#define CADRE_SERVER_CONFIG_FACTS_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre {

struct ConfigFacts {
  std::vector<std::string> architectures;
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
};

// NOT_FOUND, or INVALID_ARGUMENT when the file is no JSON object. What is not as it should be in it counts as absent.
absl::StatusOr<ConfigFacts> ReadConfigFacts(const std::filesystem::path& folder);

}  // namespace cadre

#endif  // CADRE_SERVER_CONFIG_FACTS_H_
