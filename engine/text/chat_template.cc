#include "engine/text/chat_template.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/builtin_chat_formats.h"
#include "engine/text/jinja/string_functions.h"

namespace cadre {
namespace {

using jinja::Dict;
using jinja::Text;
using jinja::Value;

// Put behind the text of the message that is to be continued, to find its end in the prompt.
constexpr std::string_view kEndTag = "CONTINUE_FINAL_MESSAGE_TAG ";

// Roles that templates know. Some make a token of one: '<|' + message.role + '|>'. That works for these names, and for
// no other that a client makes up.
constexpr std::string_view kKnownRoles[] = {"assistant",   "developer", "function", "ipython",
                                            "observation", "system",    "tool",     "user"};

Value RoleString(const std::string& role) {
  const bool is_known = std::find(std::begin(kKnownRoles), std::end(kKnownRoles), role) != std::end(kKnownRoles);
  return Value::String(is_known ? Text::FromTemplate(role) : Text::FromClient(role));
}

Value ClientString(const std::string& text) { return Value::String(Text::FromClient(text)); }

bool Contains(const Text& text, std::string_view what) { return text.bytes().find(what) != std::string::npos; }

std::string_view WithoutSpaceBehind(std::string_view tag) { return tag.substr(0, tag.size() - 1); }

// `rendered` up to the end of the continued message, whose text was `content`.
absl::StatusOr<Text> CutAtEndTag(const Text& rendered, const std::string& content) {
  const std::string stripped = jinja::Strip(Text::FromTemplate(content), std::nullopt, jinja::Side::kBoth).bytes();
  const std::size_t tag = rendered.bytes().rfind(WithoutSpaceBehind(kEndTag));
  if (tag == std::string::npos || !Contains(rendered, stripped)) {
    return absl::FailedPreconditionError(
        "the template does not show the text of the last message as it is, so that it cannot be continued");
  }
  Text prompt = rendered.Slice(0, tag);
  // A template that keeps the tag's space keeps that of the message; one that trims would have trimmed it here, too.
  if (rendered.bytes().compare(tag, kEndTag.size(), kEndTag) == 0) return prompt;
  return jinja::Strip(prompt, std::nullopt, jinja::Side::kRight);
}

absl::Status AtSource(const absl::Status& status, const std::string& where) {
  return absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
}

bool AddsBos(const Tokenizer& tokenizer, const std::vector<std::pair<std::string, std::string>>& special_tokens) {
  const auto bos = std::find_if(special_tokens.begin(), special_tokens.end(),
                                [](const auto& token) { return token.first == "bos_token"; });
  if (bos == special_tokens.end()) return false;
  const absl::StatusOr<std::vector<std::int32_t>> ids = tokenizer.Encode("");
  return ids.ok() && !ids->empty() && ids->front() == tokenizer.TokenToId(bos->second);
}

// A question, a call and its result.
Conversation ProbeOfToolCalls() {
  Dict arguments;
  arguments.Set("probe_key", Value::String("probe_value"));
  const ToolCall call{.id = "probe0000",  // Mistral's templates want nine characters
                      .name = "probe_function",
                      .arguments_json = R"({"probe_key": "probe_value"})",
                      .arguments = Value::Mapping(std::move(arguments))};
  Conversation probe;
  probe.messages = {
      {.role = "user", .content = "probe_question"},
      {.role = "assistant", .tool_calls = {call}},
      {.role = "tool", .content = "probe_result", .name = call.name, .tool_call_id = call.id},
  };
  return probe;
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Load(const std::filesystem::path& model_dir, const Tokenizer& tokenizer,
                                                std::string_view choice) {
  CADRE_ASSIGN_OR_RETURN(ChatTemplateFiles files, ReadChatTemplateFiles(model_dir));
  const bool is_auto = choice == "auto";
  const BuiltinChatFormat* builtin = is_auto ? nullptr : FindBuiltinChatFormat(choice);
  if (is_auto && !files.main.has_value()) {
    builtin = RecognizeChatFormat(tokenizer);
    if (builtin == nullptr) {
      return absl::NotFoundError(
          "the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json), and its "
          "vocabulary is of no format that is built in");
    }
  }
  std::string source;
  if (builtin != nullptr) {
    source = absl::StrCat("built-in ", ToAbsl(builtin->name));
    files.main = TemplateSource{std::string(builtin->source), source};
    files.with_tools.reset();
  } else if (!is_auto) {
    source = std::string(choice);
    CADRE_ASSIGN_OR_RETURN(files.main, ReadTemplateFile(std::filesystem::path(choice), source));
    files.with_tools.reset();
  } else {
    source = files.main->where.substr(0, files.main->where.find(':'));
  }
  ChatTemplate chat_template(std::move(source));
  if (builtin != nullptr) chat_template.adds_bos_ = AddsBos(tokenizer, files.special_tokens);
  chat_template.special_tokens_ = std::move(files.special_tokens);
  CADRE_ASSIGN_OR_RETURN(chat_template.main_, chat_template.Compile(*files.main));
  chat_template.with_tools_ = chat_template.main_;
  if (files.with_tools.has_value()) {
    CADRE_ASSIGN_OR_RETURN(chat_template.with_tools_, chat_template.Compile(*files.with_tools));
  }
  return chat_template;
}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(const TemplateSource& source,
                                                 std::vector<std::pair<std::string, std::string>> special_tokens) {
  ChatTemplate chat_template(source.where);
  chat_template.special_tokens_ = std::move(special_tokens);
  CADRE_ASSIGN_OR_RETURN(chat_template.main_, chat_template.Compile(source));
  chat_template.with_tools_ = chat_template.main_;
  return chat_template;
}

absl::StatusOr<std::shared_ptr<const ChatTemplate::Variant>> ChatTemplate::Compile(const TemplateSource& source) const {
  absl::StatusOr<jinja::Template> body = jinja::Template::Parse(source.text);
  if (!body.ok()) return AtSource(body.status(), source.where);
  const Style style = FindStyle(*body);
  return std::make_shared<const Variant>(Variant{*std::move(body), style});
}

absl::StatusOr<Text> ChatTemplate::Render(const Conversation& conversation, const jinja::RenderOptions& options) const {
  const Variant& variant = conversation.tools.empty() ? *main_ : *with_tools_;
  return RenderWith(variant.body, variant.style, conversation, options);
}

absl::StatusOr<Text> ChatTemplate::RenderWith(const jinja::Template& body, const Style& style,
                                              const Conversation& conversation,
                                              const jinja::RenderOptions& options) const {
  if (!conversation.continue_final_message) return body.Render(Variables(style, conversation), options);
  Conversation tagged = conversation;
  const std::string content = tagged.messages.back().content.value_or("");
  tagged.messages.back().content = absl::StrCat(content, ToAbsl(kEndTag));
  CADRE_ASSIGN_OR_RETURN(const Text rendered, body.Render(Variables(style, tagged), options));
  return CutAtEndTag(rendered, content);
}

Dict ChatTemplate::Variables(const Style& style, const Conversation& conversation) const {
  Dict variables;
  for (const auto& [name, token] : special_tokens_) variables.Set(name, Value::String(token));
  if (adds_bos_.has_value()) variables.Set("adds_bos", Value::Boolean(*adds_bos_));
  for (const auto& [name, value] : conversation.arguments.entries()) variables.Set(name.bytes(), value);
  std::vector<Value> messages;
  messages.reserve(conversation.messages.size());
  for (const ChatMessage& message : conversation.messages) messages.push_back(MessageValue(style, message));
  variables.Set("messages", Value::List(std::move(messages)));
  variables.Set("tools", conversation.tools.empty() ? Value::None() : Value::List(conversation.tools));
  variables.Set("documents", conversation.documents.empty() ? Value::None() : Value::List(conversation.documents));
  variables.Set("add_generation_prompt", Value::Boolean(conversation.add_generation_prompt));
  return variables;
}

Value ChatTemplate::MessageValue(const Style& style, const ChatMessage& message) {
  Dict dict;
  // Two names for one thing: templates of gpt-oss read the first, all others the second.
  if (message.reasoning_content.has_value()) dict.Set("thinking", ClientString(*message.reasoning_content));
  dict.Set("role", RoleString(message.role));
  if (message.content.has_value()) {
    dict.Set("content", ClientString(*message.content));
  } else if (message.tool_calls.empty() || style.no_content == Style::NoContent::kEmpty) {
    dict.Set("content", Value::String(""));
  } else if (style.no_content == Style::NoContent::kNone) {
    dict.Set("content", Value::None());
  }
  if (!message.name.empty()) dict.Set("name", ClientString(message.name));
  if (!message.tool_calls.empty()) {
    std::vector<Value> calls;
    for (const ToolCall& call : message.tool_calls) {
      Dict function;
      function.Set("name", ClientString(call.name));
      function.Set("arguments", style.arguments_as_text ? ClientString(call.arguments_json) : call.arguments);
      Dict entry;
      if (!call.id.empty()) entry.Set("id", ClientString(call.id));
      entry.Set("type", Value::String("function"));
      entry.Set("function", Value::Mapping(std::move(function)));
      calls.push_back(Value::Mapping(std::move(entry)));
    }
    dict.Set("tool_calls", Value::List(std::move(calls)));
  }
  if (!message.tool_call_id.empty()) dict.Set("tool_call_id", ClientString(message.tool_call_id));
  if (message.reasoning_content.has_value()) dict.Set("reasoning_content", ClientString(*message.reasoning_content));
  return Value::Mapping(std::move(dict));
}

ChatTemplate::Style ChatTemplate::FindStyle(const jinja::Template& body) const {
  using NoContent = Style::NoContent;
  for (const NoContent no_content : {NoContent::kAbsent, NoContent::kNone, NoContent::kEmpty}) {
    for (const bool arguments_as_text : {false, true}) {
      const Style style{no_content, arguments_as_text};
      if (ShowsToolCalls(body, style)) return style;
    }
  }
  // One that knows of no calls renders what is said around them, if it can do with a message that says nothing.
  for (const NoContent no_content : {NoContent::kAbsent, NoContent::kEmpty, NoContent::kNone}) {
    const Style style{no_content, false};
    if (body.Render(Variables(style, ProbeOfToolCalls())).ok()) return style;
  }
  return {};
}

bool ChatTemplate::ShowsToolCalls(const jinja::Template& body, const Style& style) const {
  const Conversation probe = ProbeOfToolCalls();
  const absl::StatusOr<Text> rendered = body.Render(Variables(style, probe));
  if (!rendered.ok() || !Contains(*rendered, "probe_function") || !Contains(*rendered, "probe_result")) return false;
  if (style.arguments_as_text) return Contains(*rendered, probe.messages[1].tool_calls[0].arguments_json);
  // Printed as Python prints a dict, the arguments are no JSON: such a template was written for text.
  return Contains(*rendered, "probe_value") && !Contains(*rendered, "'probe_key'");
}

}  // namespace cadre
