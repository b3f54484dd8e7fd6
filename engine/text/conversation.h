#ifndef CADRE_ENGINE_TEXT_CONVERSATION_H_
#define CADRE_ENGINE_TEXT_CONVERSATION_H_

#include <optional>
#include <string>
#include <vector>

#include "engine/text/jinja/value.h"

namespace cadre {

// A function that the model called.
struct ToolCall {
  std::string id;  // may be empty
  std::string name;
  std::string arguments_json;  // as the client wrote it
  jinja::Value arguments;      // the same, read; a dict
};

struct ChatMessage {
  std::string role = {};
  std::optional<std::string> content = {};
  std::string name = {};  // empty: none
  std::vector<ToolCall> tool_calls = {};
  std::string tool_call_id = {};  // empty: none
  std::optional<std::string> reasoning_content = {};
};

// What a chat template turns into a prompt. All text is UTF-8 and comes from a client; the names of well-known roles
// are nobody's, so that a template may make a token of one.
struct Conversation {
  std::vector<ChatMessage> messages;
  std::vector<jinja::Value> tools;      // dicts
  std::vector<jinja::Value> documents;  // dicts
  jinja::Dict arguments;                // more variables for the template
  bool add_generation_prompt = true;
  // The prompt ends where the text of the last message ends, for the model to go on with it. REQUIRES: no
  // add_generation_prompt, and a last message with content.
  bool continue_final_message = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_CONVERSATION_H_
