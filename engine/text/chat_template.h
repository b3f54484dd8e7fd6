#ifndef CADRE_ENGINE_TEXT_CHAT_TEMPLATE_H_
#define CADRE_ENGINE_TEXT_CHAT_TEMPLATE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/chat_template_files.h"
#include "engine/text/conversation.h"
#include "engine/text/jinja/template.h"
#include "engine/text/tokenizer.h"

namespace cadre {

// Turns conversations into prompts, as `apply_chat_template` of Hugging Face transformers (5.23) does. Immutable,
// thread-safe.
class ChatTemplate {
 public:
  // `choice` is "auto" (the model's own template, else the built-in format whose special tokens the vocabulary has),
  // the name of a built-in format, or the path of a template file. NOT_FOUND when auto finds nothing, or the error of
  // opening the file; otherwise the errors of ReadChatTemplateFiles and jinja::Template::Parse, which name the file and
  // line.
  static absl::StatusOr<ChatTemplate> Load(const std::filesystem::path& model_dir, const Tokenizer& tokenizer,
                                           std::string_view choice);

  // A template as such, for conversations with and without functions.
  static absl::StatusOr<ChatTemplate> Parse(const TemplateSource& source,
                                            std::vector<std::pair<std::string, std::string>> special_tokens);

  // Where it comes from: "chat_template.jinja", "built-in chatml".
  const std::string& source() const { return source_; }

  // The prompt, with the marks of what came from the client: everything in `conversation` did. INVALID_ARGUMENT is what
  // the template says with raise_exception; FAILED_PRECONDITION and RESOURCE_EXHAUSTED are as in
  // jinja::Template::Render, and FAILED_PRECONDITION also when the prompt does not show the message to be continued.
  absl::StatusOr<jinja::Text> Render(const Conversation& conversation, const jinja::RenderOptions& options = {}) const;

 private:
  // What a template wants to see where a message leaves things open; found out by trying when it is loaded.
  struct Style {
    enum class NoContent { kAbsent, kNone, kEmpty };
    NoContent no_content = NoContent::kAbsent;  // of a message that only calls functions
    bool arguments_as_text = false;             // of a call: JSON text instead of a dict
  };
  struct Variant {
    jinja::Template body;
    Style style;
  };

  explicit ChatTemplate(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::shared_ptr<const Variant>> Compile(const TemplateSource& source) const;
  absl::StatusOr<jinja::Text> RenderWith(const jinja::Template& body, const Style& style,
                                         const Conversation& conversation, const jinja::RenderOptions& options) const;
  Style FindStyle(const jinja::Template& body) const;
  bool ShowsToolCalls(const jinja::Template& body, const Style& style) const;
  jinja::Dict Variables(const Style& style, const Conversation& conversation) const;
  static jinja::Value MessageValue(const Style& style, const ChatMessage& message);

  std::string source_;
  std::vector<std::pair<std::string, std::string>> special_tokens_;
  std::optional<bool> adds_bos_;  // of a built-in format: whether the tokenizer begins texts with a BOS token
  std::shared_ptr<const Variant> main_;
  std::shared_ptr<const Variant> with_tools_;  // may be `main_`
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_CHAT_TEMPLATE_H_
