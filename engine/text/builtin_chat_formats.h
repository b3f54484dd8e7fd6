#ifndef CADRE_ENGINE_TEXT_BUILTIN_CHAT_FORMATS_H_
#define CADRE_ENGINE_TEXT_BUILTIN_CHAT_FORMATS_H_

#include <optional>
#include <span>
#include <string_view>

#include "engine/text/tokenizer.h"

namespace cadre {

// A chat format that many models share, as a template, for models that come without one. Text only: a conversation with
// functions is refused by the template itself. Beside the usual variables these templates know `adds_bos`: whether the
// tokenizer is one that begins texts with a BOS token.
struct BuiltinChatFormat {
  std::string_view name;
  std::string_view source;
  // Special tokens that only models trained on this format have.
  std::string_view marks[2];
};

// chatml, mistral, llama3, deepseek.
std::span<const BuiltinChatFormat> BuiltinChatFormats();

// Null when there is none of that name.
const BuiltinChatFormat* FindBuiltinChatFormat(std::string_view name);

// The format whose marks the vocabulary has as special tokens; null when none is there.
const BuiltinChatFormat* RecognizeChatFormat(const Tokenizer& tokenizer);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_BUILTIN_CHAT_FORMATS_H_
