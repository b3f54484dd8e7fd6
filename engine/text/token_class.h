// What kind of text a token is, for telling which kinds go to which experts.
#ifndef CADRE_ENGINE_TEXT_TOKEN_CLASS_H_
#define CADRE_ENGINE_TEXT_TOKEN_CLASS_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace cadre {

// By the first of these that holds, white space at the ends aside:
enum class TokenClass : uint8_t {
  kSpecial,      // a control token, or an id without text
  kBytes,        // not whole characters: parts of UTF-8
  kWhitespace,   // nothing else
  kCode,         // has one of {}[]<>=+*/\|&^%$#@~`_; or an upper case ASCII letter behind a lower case one
  kDigits,       // decimal digits of any script, and no letters
  kPunctuation,  // ASCII and general punctuation, CJK and full-width forms of it; no letters
  // The script of the first letter.
  kLatin,
  kCyrillic,
  kGreek,
  kArabic,
  kHebrew,
  kIndic,  // Devanagari to Sinhala
  kHan,
  kKana,
  kHangul,
  kOther,  // other scripts, symbols, emoji
};
inline constexpr int kNumTokenClasses = 16;

// "whitespace", "latin", ...
std::string_view TokenClassName(TokenClass token_class);

// Of the text that a token adds behind others. Never kSpecial.
TokenClass ClassifyTokenText(std::string_view text);

// The class of every id below `vocab_size`, as a number; kSpecial for ids that the tokenizer does not have.
std::vector<uint8_t> ClassifyVocabulary(const Tokenizer& tokenizer, int32_t vocab_size);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_TOKEN_CLASS_H_
