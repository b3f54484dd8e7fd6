#include "server/translate_chat.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/json.h"
#include "engine/text/utf8.h"
#include "server/errors.h"
#include "server/request_limits.h"

namespace cadre {
namespace {

// Variables of every template, which no argument may replace.
constexpr std::string_view kReservedArguments[] = {"add_generation_prompt", "documents", "messages", "tools"};

absl::Status CheckCount(std::string field, int count, int limit) {
  if (count <= limit) return absl::OkStatus();
  return InvalidField(std::move(field), absl::StrCat(count, " entries, the limit is ", limit));
}

// A text of at most `limit` bytes; protobuf has seen to it that messages from the wire are UTF-8, others may not be.
absl::Status CheckText(std::string field, const std::string& text, size_t limit) {
  if (text.size() > limit) {
    return InvalidField(std::move(field), absl::StrCat(text.size(), " bytes, the limit is ", limit));
  }
  return IsValidUtf8(text) ? absl::OkStatus() : InvalidField(std::move(field), "is not valid UTF-8");
}

// A JSON object; the error names the field and shows the beginning of the text.
absl::StatusOr<jinja::Value> ReadObject(const std::string& field, const std::string& json) {
  CADRE_RETURN_IF_ERROR(CheckText(field, json, kMaxChatJsonBytes));
  absl::StatusOr<jinja::Value> value = jinja::ReadJson(json);
  if (!value.ok()) return InvalidField(field, absl::StrCat(Excerpt(json), " ", value.status().message()));
  if (!value->is_dict()) return InvalidField(field, absl::StrCat(Excerpt(json), " is not a JSON object"));
  return value;
}

absl::StatusOr<ToolCall> TranslateToolCall(const std::string& field, const v1::ToolCall& wire) {
  CADRE_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".id"), wire.id(), kMaxChatNameBytes));
  CADRE_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".name"), wire.name(), kMaxChatNameBytes));
  if (wire.name().empty()) return InvalidField(absl::StrCat(field, ".name"), "is empty");
  ToolCall call;
  call.id = wire.id();
  call.name = wire.name();
  call.arguments_json = wire.arguments().empty() ? "{}" : wire.arguments();
  CADRE_ASSIGN_OR_RETURN(call.arguments, ReadObject(absl::StrCat(field, ".arguments"), call.arguments_json));
  return call;
}

absl::StatusOr<ChatMessage> TranslateMessage(const std::string& field, const v1::ChatMessage& wire) {
  CADRE_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".role"), wire.role(), kMaxChatNameBytes));
  if (wire.role().empty()) return InvalidField(absl::StrCat(field, ".role"), "is empty");
  CADRE_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".content"), wire.content(), kMaxPromptBytes));
  CADRE_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".name"), wire.name(), kMaxChatNameBytes));
  CADRE_RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".tool_call_id"), wire.tool_call_id(), kMaxChatNameBytes));
  CADRE_RETURN_IF_ERROR(
      CheckText(absl::StrCat(field, ".reasoning_content"), wire.reasoning_content(), kMaxPromptBytes));
  CADRE_RETURN_IF_ERROR(CheckCount(absl::StrCat(field, ".tool_calls"), wire.tool_calls_size(), kMaxToolCallsOfMessage));
  ChatMessage message;
  message.role = wire.role();
  if (wire.has_content()) message.content = wire.content();
  message.name = wire.name();
  message.tool_call_id = wire.tool_call_id();
  if (wire.has_reasoning_content()) message.reasoning_content = wire.reasoning_content();
  for (int i = 0; i < wire.tool_calls_size(); ++i) {
    CADRE_ASSIGN_OR_RETURN(ToolCall call,
                           TranslateToolCall(absl::StrCat(field, ".tool_calls[", i, "]"), wire.tool_calls(i)));
    message.tool_calls.push_back(std::move(call));
  }
  return message;
}

absl::StatusOr<std::vector<jinja::Value>> TranslateObjects(
    const std::string& field, const google::protobuf::RepeatedPtrField<std::string>& wire) {
  CADRE_RETURN_IF_ERROR(CheckCount(field, wire.size(), kMaxChatTools));
  std::vector<jinja::Value> objects;
  for (int i = 0; i < wire.size(); ++i) {
    CADRE_ASSIGN_OR_RETURN(jinja::Value object, ReadObject(absl::StrCat(field, "[", i, "]"), wire[i]));
    objects.push_back(std::move(object));
  }
  return objects;
}

absl::StatusOr<jinja::Dict> TranslateArguments(const std::string& wire) {
  const std::string field = "chat.template_arguments";
  if (wire.empty()) return jinja::Dict();
  CADRE_ASSIGN_OR_RETURN(const jinja::Value arguments, ReadObject(field, wire));
  CADRE_RETURN_IF_ERROR(CheckCount(field, static_cast<int>(arguments.dict().size()), kMaxTemplateArguments));
  for (const std::string_view reserved : kReservedArguments) {
    if (arguments.dict().Find(reserved) != nullptr) {
      return InvalidField(field, absl::StrCat(Excerpt(reserved), " has a field of its own"));
    }
  }
  return arguments.dict();
}

absl::Status CheckContinuation(const v1::ChatInput& wire) {
  if (!wire.continue_final_message()) return absl::OkStatus();
  if (wire.add_generation_prompt()) {
    return InvalidField("chat.continue_final_message", "excludes chat.add_generation_prompt; set one of them");
  }
  const int last = wire.messages_size() - 1;
  if (!wire.messages(last).content().empty()) return absl::OkStatus();
  return InvalidField(absl::StrCat("chat.messages[", last, "].content"), "is empty: there is no text to continue");
}

absl::Status CheckTotalSize(const v1::ChatInput& wire) {
  const size_t size = wire.ByteSizeLong();
  if (size <= kMaxPromptBytes) return absl::OkStatus();
  return InvalidField("chat", absl::StrCat(size, " bytes, the limit is ", kMaxPromptBytes));
}

// The error of rendering as the client's, with the template's own message or the line of the template.
absl::Status RenderError(const absl::Status& status) {
  if (absl::IsInvalidArgument(status)) {
    return InvalidField("chat", absl::StrCat("refused by the chat template: ", status.message()));
  }
  return InvalidField("chat", absl::StrCat("the chat template failed at ", status.message()));
}

}  // namespace

absl::StatusOr<Conversation> TranslateConversation(const v1::ChatInput& wire) {
  if (wire.messages().empty()) return InvalidField("chat.messages", "is empty");
  CADRE_RETURN_IF_ERROR(CheckCount("chat.messages", wire.messages_size(), kMaxChatMessages));
  CADRE_RETURN_IF_ERROR(CheckTotalSize(wire));
  CADRE_RETURN_IF_ERROR(CheckContinuation(wire));
  Conversation conversation;
  for (int i = 0; i < wire.messages_size(); ++i) {
    CADRE_ASSIGN_OR_RETURN(ChatMessage message,
                           TranslateMessage(absl::StrCat("chat.messages[", i, "]"), wire.messages(i)));
    conversation.messages.push_back(std::move(message));
  }
  CADRE_ASSIGN_OR_RETURN(conversation.tools, TranslateObjects("chat.tools", wire.tools()));
  CADRE_ASSIGN_OR_RETURN(conversation.documents, TranslateObjects("chat.documents", wire.documents()));
  CADRE_ASSIGN_OR_RETURN(conversation.arguments, TranslateArguments(wire.template_arguments()));
  conversation.continue_final_message = wire.continue_final_message();
  conversation.add_generation_prompt =
      wire.has_add_generation_prompt() ? wire.add_generation_prompt() : !wire.continue_final_message();
  return conversation;
}

absl::StatusOr<std::vector<int32_t>> TokenizeChat(const v1::ChatInput& wire, const v1::PromptOptions& options,
                                                  const ChatSupport& support, const Tokenizer& tokenizer) {
  if (support.chat_template == nullptr) {
    return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                      .reason = reason::kNoChatTemplate,
                      .message = absl::StrCat("chat: ", support.error,
                                              "; start the server with --chat-template, or "
                                              "send text"),
                      .metadata = {{"field", "chat"}}});
  }
  CADRE_ASSIGN_OR_RETURN(const Conversation conversation, TranslateConversation(wire));
  jinja::RenderOptions render;
  render.limits.output_bytes = kMaxPromptBytes;
  const absl::StatusOr<jinja::Text> prompt = support.chat_template->Render(conversation, render);
  if (!prompt.ok()) return RenderError(prompt.status());
  const std::span<const TextSpan> client_spans =
      options.parse_special() ? std::span<const TextSpan>() : std::span<const TextSpan>(prompt->client_spans());
  absl::StatusOr<std::vector<int32_t>> ids =
      tokenizer.EncodeMarked(prompt->bytes(), client_spans, options.add_special_tokens());
  if (!ids.ok()) return InvalidField("chat", std::string(ids.status().message()));
  return ids;
}

}  // namespace cadre
