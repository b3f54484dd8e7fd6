#include "engine/text/chat_template_files.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/limits.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

constexpr std::string_view kTemplateFile = "chat_template.jinja";
constexpr std::string_view kToolTemplateFile = "additional_chat_templates/tool_use.jinja";
constexpr std::string_view kConfigFile = "tokenizer_config.json";
constexpr std::string_view kSpecialTokensFile = "special_tokens_map.json";
constexpr std::int64_t kMaxConfigBytes = 256 << 20;
constexpr std::size_t kMaxNamedTemplates = 64;
constexpr std::string_view kSpecialTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                   "pad_token", "cls_token", "mask_token"};

// The file as JSON, null when it does not exist.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::filesystem::path& model_dir, std::string_view name) {
  const absl::StatusOr<std::string> text = ReadFileToString(model_dir / name, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return nlohmann::json();
  CADRE_RETURN_IF_ERROR(text.status());
  CADRE_ASSIGN_OR_RETURN(nlohmann::json json, ParseJson(*text, name));
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(ToAbsl(name), ": not a JSON object"));
  return json;
}

// The file's template, absent when there is no such file.
absl::StatusOr<std::optional<TemplateSource>> ReadOptional(const std::filesystem::path& model_dir,
                                                           std::string_view name) {
  absl::StatusOr<TemplateSource> source = ReadTemplateFile(model_dir / name, std::string(name));
  if (absl::IsNotFound(source.status())) return std::nullopt;
  CADRE_RETURN_IF_ERROR(source.status());
  return std::optional<TemplateSource>(*std::move(source));
}

// A token is spelled as a string, or as an object with the string in `content`.
void AddSpecialTokens(const nlohmann::json& json, ChatTemplateFiles* files) {
  if (!json.is_object()) return;
  for (const std::string_view name : kSpecialTokenNames) {
    const bool is_known = std::any_of(files->special_tokens.begin(), files->special_tokens.end(),
                                      [name](const auto& token) { return token.first == name; });
    const auto member = json.find(std::string(name));
    if (is_known || member == json.end()) continue;
    const nlohmann::json* content = &*member;
    if (member->is_object()) {
      const auto inner = member->find("content");
      if (inner == member->end()) continue;
      content = &*inner;
    }
    if (content->is_string()) files->special_tokens.emplace_back(name, content->get<std::string>());
  }
}

absl::Status ReadNamedTemplates(const nlohmann::json& list, const std::string& where, ChatTemplateFiles* files) {
  if (list.size() > kMaxNamedTemplates) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", list.size(), " templates, the limit is ", kMaxNamedTemplates));
  }
  for (const nlohmann::json& entry : list) {
    const bool is_entry = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                          entry.contains("template") && entry["template"].is_string();
    if (!is_entry) return absl::InvalidArgumentError(absl::StrCat(where, ": an entry without name and template"));
    const std::string name = entry["name"].get<std::string>();
    TemplateSource source{entry["template"].get<std::string>(), absl::StrCat(where, " ", Quoted(name))};
    if (name == "default") {
      files->main = std::move(source);
    } else if (name == "tool_use") {
      files->with_tools = std::move(source);
    }
  }
  if (!files->main.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": a list without a template called \"default\""));
  }
  return absl::OkStatus();
}

absl::Status ReadConfigTemplate(const nlohmann::json& config, ChatTemplateFiles* files) {
  const auto member = config.find("chat_template");
  if (member == config.end() || member->is_null()) return absl::OkStatus();
  const std::string where = absl::StrCat(ToAbsl(kConfigFile), ": chat_template");
  if (member->is_array()) return ReadNamedTemplates(*member, where, files);
  if (!member->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is neither a text nor a list of named texts"));
  }
  files->main = TemplateSource{member->get<std::string>(), where};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TemplateSource> ReadTemplateFile(const std::filesystem::path& path, std::string where) {
  CADRE_ASSIGN_OR_RETURN(std::string text, ReadFileToString(path, std::int64_t{jinja::kMaxTemplateBytes}));
  return TemplateSource{std::move(text), std::move(where)};
}

absl::StatusOr<ChatTemplateFiles> ReadChatTemplateFiles(const std::filesystem::path& model_dir) {
  ChatTemplateFiles files;
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(model_dir, kConfigFile));
  AddSpecialTokens(config, &files);
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json special_tokens, ReadJsonFile(model_dir, kSpecialTokensFile));
  AddSpecialTokens(special_tokens, &files);
  CADRE_ASSIGN_OR_RETURN(files.main, ReadOptional(model_dir, kTemplateFile));
  if (files.main.has_value()) {
    CADRE_ASSIGN_OR_RETURN(files.with_tools, ReadOptional(model_dir, kToolTemplateFile));
    return files;
  }
  if (config.is_object()) CADRE_RETURN_IF_ERROR(ReadConfigTemplate(config, &files));
  return files;
}

}  // namespace cadre
