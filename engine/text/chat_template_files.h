#ifndef CADRE_ENGINE_TEXT_CHAT_TEMPLATE_FILES_H_
#define CADRE_ENGINE_TEXT_CHAT_TEMPLATE_FILES_H_

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre {

// The text of a template, and where it was found: "chat_template.jinja".
struct TemplateSource {
  std::string text;
  std::string where;
};

// What the files of a model say about conversations.
struct ChatTemplateFiles {
  std::optional<TemplateSource> main;
  std::optional<TemplateSource> with_tools;  // for conversations with functions; absent: `main`
  // bos_token, eos_token and their kin, by the names that templates know.
  std::vector<std::pair<std::string, std::string>> special_tokens;
};

// Reads chat_template.jinja with additional_chat_templates/tool_use.jinja beside it, else `chat_template` of
// tokenizer_config.json, a text or a list of named texts ("default", "tool_use"). A missing file is no error; one that
// is malformed or too long is INVALID_ARGUMENT, by name.
absl::StatusOr<ChatTemplateFiles> ReadChatTemplateFiles(const std::filesystem::path& model_dir);

// The template in a file of its own. The error of opening it, or INVALID_ARGUMENT when it is too long.
absl::StatusOr<TemplateSource> ReadTemplateFile(const std::filesystem::path& path, std::string where);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_CHAT_TEMPLATE_FILES_H_
