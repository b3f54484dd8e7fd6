#include "tests/golden/golden_data.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;

constexpr int kFormat = 1;

absl::Status Wrong(const fs::path& file, const std::string& reason) {
  return absl::InvalidArgumentError(absl::StrCat(file.string(), ": ", reason));
}

// Flattens [MoE layers][n][K]; every row must be as long as the first.
absl::Status ReadExpertIds(const json& layers, const fs::path& file, Golden* golden, GoldenPrompt* prompt) {
  const auto num_layers = static_cast<int64_t>(layers.size());
  const auto top_k = num_layers == 0 ? int64_t{0} : static_cast<int64_t>(layers.at(0).at(0).size());
  if (golden->prompts.empty()) {
    golden->num_moe_layers = num_layers;
    golden->top_k = top_k;
  }
  for (const json& layer : layers) {
    if (layer.size() != prompt->tokens.size()) return Wrong(file, "expert_ids must have one row per token");
    for (const json& row : layer) {
      for (const json& id : row) prompt->expert_ids.push_back(id.get<int32_t>());
    }
  }
  const auto expected = golden->num_moe_layers * golden->top_k * static_cast<int64_t>(prompt->tokens.size());
  if (static_cast<int64_t>(prompt->expert_ids.size()) != expected) {
    return Wrong(file, absl::StrCat("expert_ids has ", prompt->expert_ids.size(), " numbers, expected ", expected));
  }
  return absl::OkStatus();
}

absl::StatusOr<Golden> ReadDocument(const fs::path& file) {
  std::ifstream stream(file);
  const json document = json::parse(stream);
  if (document.at("format") != kFormat) return Wrong(file, absl::StrCat("format must be ", kFormat));
  Golden golden;
  golden.vocab_size = document.at("vocab_size").get<int64_t>();
  const std::string dtype = document.at("reference_dtype").get<std::string>();
  if (dtype != "float32" && dtype != "bfloat16") return Wrong(file, absl::StrCat("reference_dtype is ", dtype));
  golden.reference_dtype = dtype == "float32" ? DType::kF32 : DType::kBF16;
  for (const json& entry : document.at("prompts")) {
    GoldenPrompt prompt;
    prompt.tokens = entry.at("tokens").get<std::vector<int32_t>>();
    prompt.logit_positions = entry.at("logit_positions").get<std::vector<int32_t>>();
    CADRE_RETURN_IF_ERROR(ReadExpertIds(entry.at("expert_ids"), file, &golden, &prompt));
    golden.prompts.push_back(std::move(prompt));
  }
  if (golden.prompts.empty()) return Wrong(file, "there are no prompts");
  return golden;
}

absl::Status ReadLogits(const fs::path& file, Golden* golden) {
  std::ifstream stream(file, std::ios::binary);
  for (GoldenPrompt& prompt : golden->prompts) {
    prompt.logits.resize(prompt.logit_positions.size() * static_cast<size_t>(golden->vocab_size));
    stream.read(reinterpret_cast<char*>(prompt.logits.data()),
                static_cast<std::streamsize>(prompt.logits.size() * sizeof(float)));
  }
  if (!stream) return Wrong(file, "is missing or too short");
  if (stream.peek() != std::ifstream::traits_type::eof()) return Wrong(file, "is too long");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Golden> ReadGolden(const fs::path& dir) {
  const fs::path file = dir / "golden.json";
  try {
    CADRE_ASSIGN_OR_RETURN(Golden golden, ReadDocument(file));
    CADRE_RETURN_IF_ERROR(ReadLogits(dir / "golden_logits.f32", &golden));
    return golden;
  } catch (const json::exception& error) {
    return Wrong(file, error.what());
  }
}

std::vector<fs::path> FindGoldenDirs(const fs::path& dir) {
  if (fs::exists(dir / "golden.json")) return {dir};
  std::vector<fs::path> dirs;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    if (fs::exists(entry.path() / "golden.json")) dirs.push_back(entry.path());
  }
  std::sort(dirs.begin(), dirs.end());
  return dirs;
}

}  // namespace cadre
