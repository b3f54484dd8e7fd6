#include "server/config_facts.h"

#include <limits>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

std::optional<int32_t> TokenId(const nlohmann::json& document, const char* key) {
  const auto id = document.find(key);
  if (id == document.end() || !id->is_number_unsigned()) return std::nullopt;
  const auto value = id->get<uint64_t>();
  if (value > std::numeric_limits<int32_t>::max()) return std::nullopt;
  return static_cast<int32_t>(value);
}

}  // namespace

absl::StatusOr<ConfigFacts> ReadConfigFacts(const std::filesystem::path& folder) {
  CADRE_ASSIGN_OR_RETURN(const std::string text, ReadFileToString(folder / "config.json", kMaxConfigBytes));
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(text, "config.json"));
  if (!document.is_object()) return absl::InvalidArgumentError("config.json: is no object");
  ConfigFacts facts;
  if (const auto names = document.find("architectures"); names != document.end() && names->is_array()) {
    for (const nlohmann::json& name : *names) {
      if (name.is_string()) facts.architectures.push_back(name.get<std::string>());
    }
  }
  facts.bos_token_id = TokenId(document, "bos_token_id");
  facts.pad_token_id = TokenId(document, "pad_token_id");
  return facts;
}

}  // namespace cadre
