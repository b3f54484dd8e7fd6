#include "tools/chat/chat_session.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/generate_options.h"

namespace cadre {
namespace {

constexpr char kQuote[] = "\"\"\"";
constexpr char kSpaces[] = " \t\n";
constexpr char kHelp[] =
    "/system TEXT    say how the model should behave; without TEXT: no longer\n"
    "/set NAME VALUE change a setting, such as temperature 0.7; without VALUE: unset; without NAME: show all\n"
    "/undo           take back the last question and its answer\n"
    "/reset          forget the conversation; the system message and the settings stay\n"
    "/history        show the conversation\n"
    "/save FILE      write the conversation as JSON\n"
    "/quit           end, as Ctrl-D does\n"
    "A line that ends with \\ goes on with the next, in a command, too; lines between \"\"\" and \"\"\" are one "
    "message,\n"
    "whatever they begin or end with. // at the beginning of a message stands for / as text.\n"
    "Ctrl-C ends the running answer.";

v1::ChatMessage MakeMessage(const char* role, const std::string& content) {
  v1::ChatMessage message;
  message.set_role(role);
  message.set_content(content);
  return message;
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(kSpaces) + 1 - begin);
}

ChatStep Notice(std::string text) { return {.notice = std::move(text)}; }

}  // namespace

void ChatSession::DropPending() {
  pending_.clear();
  is_quoted_ = has_backslash_ = false;
}

ChatStep ChatSession::OnLine(const std::string& line) {
  if (is_quoted_) {
    if (Trimmed(line) != kQuote) {
      absl::StrAppend(&pending_, line, "\n");
      return {};
    }
    std::string text = std::move(pending_);
    DropPending();
    if (!text.empty()) text.pop_back();
    return OnMessage(text);
  }
  if (!has_backslash_ && Trimmed(line) == kQuote) {
    is_quoted_ = true;
    return {};
  }
  if (line.ends_with('\\')) {
    absl::StrAppend(&pending_, line.substr(0, line.size() - 1), "\n");
    has_backslash_ = true;
    return {};
  }
  const std::string text = pending_ + line;
  DropPending();
  return OnText(text);
}

ChatStep ChatSession::OnEnd() {
  std::string text = std::move(pending_);
  const bool was_quoted = is_quoted_;
  DropPending();
  while (text.ends_with('\n')) text.pop_back();
  return was_quoted ? OnMessage(text) : OnText(text);
}

ChatStep ChatSession::OnText(const std::string& text) {
  if (!text.starts_with('/')) return OnMessage(text);
  if (text.starts_with("//")) return OnMessage(text.substr(1));
  const size_t space = text.find_first_of(kSpaces);
  return OnCommand(text.substr(0, space), space == std::string::npos ? "" : Trimmed(text.substr(space)));
}

ChatStep ChatSession::OnMessage(const std::string& text) {
  if (text.find_first_not_of(" \t\n\r") == std::string::npos) return {};
  messages_.push_back(MakeMessage("user", text));
  return {.kind = ChatStep::Kind::kSend};
}

ChatStep ChatSession::OnCommand(const std::string& command, const std::string& argument) {
  if (command == "/help") return Notice(kHelp);
  if (command == "/quit" || command == "/exit") return {.kind = ChatStep::Kind::kQuit};
  if (command == "/set") return Set(argument);
  if (command == "/undo") return Undo();
  if (command == "/system") {
    system_ = argument;
    return Notice(argument.empty() ? "no system message" : "system message set");
  }
  if (command == "/reset") {
    messages_.clear();
    return Notice("the conversation is empty");
  }
  if (command == "/save") {
    if (argument.empty()) return Notice("/save needs the name of a file");
    return {.kind = ChatStep::Kind::kSave, .argument = argument};
  }
  if (command == "/history") {
    std::string text = system_.empty() ? "" : absl::StrCat("system: ", system_, "\n");
    for (const v1::ChatMessage& message : messages_) {
      absl::StrAppend(&text, message.role(), ": ", message.content(), "\n");
    }
    if (text.empty()) return Notice("the conversation is empty");
    text.pop_back();
    return Notice(std::move(text));
  }
  return Notice(absl::StrCat("there is no command ", command, "; /help lists them"));
}

ChatStep ChatSession::Set(const std::string& argument) {
  if (argument.empty()) {
    const std::vector<std::string> set = DescribeRequestFields(base_);
    return Notice(absl::StrCat(set.empty() ? "all settings are the server's own" : absl::StrJoin(set, "\n"),
                               "\nsettings: ", absl::StrJoin(RequestFieldNames(), ", ")));
  }
  const size_t space = argument.find_first_of(" \t\n=");
  const std::string name = argument.substr(0, space);
  std::string value = space == std::string::npos ? "" : Trimmed(argument.substr(space));
  if (value.starts_with('=')) value = Trimmed(value.substr(1));
  if (name == "n") return Notice("n: a conversation has one answer");
  const absl::Status status = SetRequestField(name, value, &base_);
  if (!status.ok()) return Notice(std::string(status.message()));
  return Notice(value.empty() ? absl::StrCat(name, " is the server's own") : absl::StrCat(name, " = ", value));
}

ChatStep ChatSession::Undo() {
  if (messages_.empty()) return Notice("there is nothing to take back");
  while (!messages_.empty() && messages_.back().role() != "user") messages_.pop_back();
  if (!messages_.empty()) messages_.pop_back();
  return Notice("taken back");
}

v1::GenerateRequest ChatSession::Request() const {
  v1::GenerateRequest request = base_;
  v1::ChatInput* chat = request.mutable_chat();
  if (!system_.empty()) *chat->add_messages() = MakeMessage("system", system_);
  chat->mutable_messages()->Add(messages_.begin(), messages_.end());
  return request;
}

void ChatSession::OnAnswer(const std::string& text) { messages_.push_back(MakeMessage("assistant", text)); }

void ChatSession::OnFailure() {
  if (!messages_.empty() && messages_.back().role() == "user") messages_.pop_back();
}

std::string ChatSession::ToJson() const {
  auto json = nlohmann::ordered_json::array();
  const v1::GenerateRequest request = Request();
  for (const v1::ChatMessage& message : request.chat().messages()) {
    json.push_back({{"role", message.role()}, {"content", message.content()}});
  }
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace cadre
