// A conversation and the commands that change it.
#ifndef CADRE_TOOLS_CHAT_CHAT_SESSION_H_
#define CADRE_TOOLS_CHAT_CHAT_SESSION_H_

#include <string>
#include <utility>
#include <vector>

#include "cadre/v1/generation_service.pb.h"

namespace cadre {

// What follows from a line of input.
struct ChatStep {
  enum class Kind {
    kNothing,  // read on
    kSend,     // ask the server for Request(), then call OnAnswer or OnFailure
    kSave,     // write ToJson() to the file `argument`
    kQuit,
  };
  Kind kind = Kind::kNothing;
  std::string argument = {};
  std::string notice = {};  // to be shown, without a line break at its end; may be empty
};

// No input, no output: the command does both.
class ChatSession {
 public:
  // `base` holds the settings of every request.
  explicit ChatSession(v1::GenerateRequest base) : base_(std::move(base)) {}

  // A line of input without its line break. A line that ends with a backslash goes on with the next; what they make
  // together is a command when the first begins with a slash, and text when it begins with two, which stand for one.
  // Between lines of three double quotes every line is text.
  ChatStep OnLine(const std::string& line);
  // The input is over: a message that is not complete yet is sent as it is, a command done.
  ChatStep OnEnd();
  // Whether the next line belongs to the message or command before.
  bool is_continued() const { return is_quoted_ || has_backslash_; }
  // Forgets a message or command that is not complete yet.
  void DropPending();

  // How the model should behave, as it is; empty: nothing is said.
  void SetSystemMessage(std::string text) { system_ = std::move(text); }

  // The conversation so far, to be answered.
  v1::GenerateRequest Request() const;
  // The answer, or as much of it as came before it was cancelled.
  void OnAnswer(const std::string& text);
  // No answer came: the message is taken back.
  void OnFailure();

  // [{"role": "user", "content": "..."}, ...]
  std::string ToJson() const;
  const std::vector<v1::ChatMessage>& messages() const { return messages_; }

 private:
  // Whole lines, not quoted.
  ChatStep OnText(const std::string& text);
  ChatStep OnMessage(const std::string& text);
  ChatStep OnCommand(const std::string& command, const std::string& argument);
  ChatStep Set(const std::string& argument);
  ChatStep Undo();

  v1::GenerateRequest base_;
  std::string system_;
  std::vector<v1::ChatMessage> messages_;  // without the system message
  std::string pending_;                    // lines of what is not complete yet
  bool is_quoted_ = false;
  bool has_backslash_ = false;
};

}  // namespace cadre

#endif  // CADRE_TOOLS_CHAT_CHAT_SESSION_H_
