#include <algorithm>
#include <limits>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/model/config_reader.h"
#include "engine/model/model_config.h"

namespace cadre {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxEosTokens = 1024;
constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

std::vector<int32_t> ReadEosTokenIds(ConfigReader& reader) {
  std::vector<int32_t> ids;
  for (const int64_t id : reader.IntList("eos_token_id", 0, kMaxInt32, kMaxEosTokens, /*or_single=*/true)) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace

absl::StatusOr<GenerationDefaults> ParseGenerationDefaults(std::string_view generation_json,
                                                           std::string_view config_json) {
  const std::string_view generation_text = generation_json.empty() ? "{}" : generation_json;
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json document,
                         ParseJson(generation_text, "generation_config.json", kMaxDepth));
  ConfigReader reader(document, "generation_config.json");
  GenerationDefaults defaults;
  defaults.eos_token_ids = ReadEosTokenIds(reader);
  // The ranges are those of a request's fields.
  defaults.temperature = static_cast<float>(reader.Number("temperature", 0.0, 100.0, 1.0));
  defaults.top_k = static_cast<int32_t>(reader.Int({"top_k"}, -1, kMaxInt32, 0));
  defaults.top_p = static_cast<float>(reader.Number("top_p", 1e-6, 1.0, 1.0));
  defaults.min_p = static_cast<float>(reader.Number("min_p", 0.0, 1.0, 0.0));
  defaults.repetition_penalty = static_cast<float>(reader.Number("repetition_penalty", 1e-6, 10.0, 1.0));
  if (reader.Has("max_new_tokens")) {
    defaults.max_new_tokens = static_cast<int32_t>(reader.Int({"max_new_tokens"}, 1, kMaxInt32));
  }
  if (!reader.Bool("do_sample", true)) defaults.temperature = 0.0f;
  defaults.top_k = std::max(defaults.top_k, 0);  // -1 is another way to say off
  CADRE_RETURN_IF_ERROR(reader.status());

  if (defaults.eos_token_ids.empty()) {
    CADRE_ASSIGN_OR_RETURN(const nlohmann::json config, ParseJson(config_json, "config.json", kMaxDepth));
    ConfigReader config_reader(config, "config.json");
    defaults.eos_token_ids = ReadEosTokenIds(config_reader);
    CADRE_RETURN_IF_ERROR(config_reader.status());
  }
  return defaults;
}

absl::StatusOr<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& model_dir) {
  CADRE_ASSIGN_OR_RETURN(const std::string config, ReadFileToString(model_dir / "config.json", kMaxConfigBytes));
  const absl::StatusOr<std::string> generation =
      ReadFileToString(model_dir / "generation_config.json", kMaxConfigBytes);
  if (!generation.ok() && !absl::IsNotFound(generation.status())) return generation.status();
  return ParseGenerationDefaults(generation.ok() ? std::string_view(*generation) : std::string_view(), config);
}

}  // namespace cadre
