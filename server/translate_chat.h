// Conversations on the wire as prompts.
#ifndef CADRE_SERVER_TRANSLATE_CHAT_H_
#define CADRE_SERVER_TRANSLATE_CHAT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cadre/v1/generation_service.pb.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace cadre {

// What a served model can do with conversations. Both are empty for a model that was never asked.
struct ChatSupport {
  std::shared_ptr<const ChatTemplate> chat_template;  // null: conversations are refused
  std::string error;                                  // why
};

// The conversation, every limit checked and its JSON read. INVALID_ARGUMENT names the field ("chat.messages[2].role"),
// the value and the limit.
absl::StatusOr<Conversation> TranslateConversation(const v1::ChatInput& wire);

// Token ids of the rendered conversation. Special tokens in the client's text are text unless `options.parse_special`;
// the tokenizer adds no special tokens of its own unless `options.add_special_tokens`, and never a second BOS.
// FAILED_PRECONDITION when the model has no usable template; INVALID_ARGUMENT as above, or with what the template says.
absl::StatusOr<std::vector<int32_t>> TokenizeChat(const v1::ChatInput& wire, const v1::PromptOptions& options,
                                                  const ChatSupport& support, const Tokenizer& tokenizer);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_CHAT_H_
