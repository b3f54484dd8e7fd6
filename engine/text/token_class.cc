#include "engine/text/token_class.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>

#include "engine/base/check.h"
#include "engine/text/unicode_classes.h"
#include "engine/text/utf8.h"
#include "utf8proc.h"

namespace cadre {
namespace {

constexpr std::array<std::string_view, kNumTokenClasses> kNames = {
    "special", "bytes",  "whitespace", "code",  "digits", "punctuation", "latin",  "cyrillic",
    "greek",   "arabic", "hebrew",     "indic", "han",    "kana",        "hangul", "other"};

// Blocks of the Unicode Standard, as scripts; rising, not overlapping.
struct ScriptRange {
  char32_t first;
  char32_t last;
  TokenClass script;
};
constexpr ScriptRange kScripts[] = {
    {0x0041, 0x024F, TokenClass::kLatin},     // Basic Latin to Latin Extended-B
    {0x0250, 0x02AF, TokenClass::kLatin},     // IPA Extensions
    {0x0370, 0x03FF, TokenClass::kGreek},     // Greek and Coptic
    {0x0400, 0x052F, TokenClass::kCyrillic},  // Cyrillic, Cyrillic Supplement
    {0x0590, 0x05FF, TokenClass::kHebrew},    // Hebrew
    {0x0600, 0x06FF, TokenClass::kArabic},    // Arabic
    {0x0750, 0x077F, TokenClass::kArabic},    // Arabic Supplement
    {0x08A0, 0x08FF, TokenClass::kArabic},    // Arabic Extended-A
    {0x0900, 0x0DFF, TokenClass::kIndic},     // Devanagari to Sinhala
    {0x1100, 0x11FF, TokenClass::kHangul},    // Hangul Jamo
    {0x1C80, 0x1C8F, TokenClass::kCyrillic},  // Cyrillic Extended-C
    {0x1E00, 0x1EFF, TokenClass::kLatin},     // Latin Extended Additional
    {0x1F00, 0x1FFF, TokenClass::kGreek},     // Greek Extended
    {0x2C60, 0x2C7F, TokenClass::kLatin},     // Latin Extended-C
    {0x2DE0, 0x2DFF, TokenClass::kCyrillic},  // Cyrillic Extended-A
    {0x2E80, 0x2FDF, TokenClass::kHan},       // CJK and Kangxi radicals
    {0x3005, 0x3007, TokenClass::kHan},       // iteration mark, closing mark, zero
    {0x3040, 0x30FF, TokenClass::kKana},      // Hiragana, Katakana
    {0x3130, 0x318F, TokenClass::kHangul},    // Hangul Compatibility Jamo
    {0x31F0, 0x31FF, TokenClass::kKana},      // Katakana Phonetic Extensions
    {0x3400, 0x4DBF, TokenClass::kHan},       // CJK Unified Ideographs Extension A
    {0x4E00, 0x9FFF, TokenClass::kHan},       // CJK Unified Ideographs
    {0xA720, 0xA7FF, TokenClass::kLatin},     // Latin Extended-D
    {0xA960, 0xA97F, TokenClass::kHangul},    // Hangul Jamo Extended-A
    {0xAC00, 0xD7FF, TokenClass::kHangul},    // Hangul Syllables, Jamo Extended-B
    {0xF900, 0xFAFF, TokenClass::kHan},       // CJK Compatibility Ideographs
    {0xFB1D, 0xFB4F, TokenClass::kHebrew},    // Hebrew presentation forms
    {0xFB50, 0xFDFF, TokenClass::kArabic},    // Arabic Presentation Forms-A
    {0xFE70, 0xFEFE, TokenClass::kArabic},    // Arabic Presentation Forms-B
    {0xFF21, 0xFF5A, TokenClass::kLatin},     // full-width letters
    {0xFF66, 0xFF9F, TokenClass::kKana},      // half-width Katakana
    {0xFFA0, 0xFFDC, TokenClass::kHangul},    // half-width Hangul
    {0x1B000, 0x1B16F, TokenClass::kKana},    // Kana supplements
    {0x20000, 0x323AF, TokenClass::kHan},     // CJK Unified Ideographs Extensions B to H
};

TokenClass ScriptOf(char32_t letter) {
  const auto* const range = std::lower_bound(std::begin(kScripts), std::end(kScripts), letter,
                                             [](const ScriptRange& r, char32_t c) { return r.last < c; });
  return range != std::end(kScripts) && letter >= range->first ? range->script : TokenClass::kOther;
}

bool IsCodeSymbol(char32_t c) {
  constexpr std::string_view kSymbols = "{}[]<>=+*/\\|&^%$#@~`_;";
  return c < 0x80 && kSymbols.find(static_cast<char>(c)) != std::string_view::npos;
}

bool IsLetter(utf8proc_category_t category) {
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsPunctuation(utf8proc_category_t category) {
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsAsciiLower(char32_t c) { return c >= 'a' && c <= 'z'; }
bool IsAsciiUpper(char32_t c) { return c >= 'A' && c <= 'Z'; }

// What the characters of a text are.
struct Contents {
  bool has_text = false;  // other than white space
  bool is_code = false;
  bool has_digits = false;
  bool has_punctuation = false;
  bool has_others = false;
  std::optional<char32_t> first_letter;
};

Contents Read(std::string_view text) {
  Contents contents;
  char32_t before = 0;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = NextCodePoint(text, &position);
    const bool is_inner_capital = IsAsciiUpper(c) && IsAsciiLower(before);
    before = c;
    if (IsWhiteSpace(c)) continue;
    contents.has_text = true;
    contents.is_code |= IsCodeSymbol(c) || is_inner_capital;
    const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
    if (IsLetter(category)) {
      if (!contents.first_letter) contents.first_letter = c;
    } else if (category == UTF8PROC_CATEGORY_ND) {
      contents.has_digits = true;
    } else if (IsPunctuation(category)) {
      contents.has_punctuation = true;
    } else {
      contents.has_others = true;
    }
  }
  return contents;
}

}  // namespace

std::string_view TokenClassName(TokenClass token_class) { return kNames[static_cast<size_t>(token_class)]; }

TokenClass ClassifyTokenText(std::string_view text) {
  if (!IsValidUtf8(text)) return TokenClass::kBytes;
  const Contents contents = Read(text);
  if (!contents.has_text) return TokenClass::kWhitespace;
  if (contents.is_code) return TokenClass::kCode;
  if (contents.first_letter) return ScriptOf(*contents.first_letter);
  if (contents.has_digits) return TokenClass::kDigits;
  if (contents.has_punctuation && !contents.has_others) return TokenClass::kPunctuation;
  return TokenClass::kOther;
}

std::vector<uint8_t> ClassifyVocabulary(const Tokenizer& tokenizer, int32_t vocab_size) {
  CADRE_CHECK_GE(vocab_size, 0);
  std::vector<uint8_t> classes(static_cast<size_t>(vocab_size), static_cast<uint8_t>(TokenClass::kSpecial));
  for (int32_t id = 0; id < vocab_size; ++id) {
    const std::optional<TokenSpelling> spelling = tokenizer.SpellToken(id);
    if (!spelling || spelling->later.empty()) continue;
    classes[static_cast<size_t>(id)] = static_cast<uint8_t>(ClassifyTokenText(spelling->later));
  }
  return classes;
}

}  // namespace cadre
