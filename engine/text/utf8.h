// UTF-8, byte by byte: what is a character, what is not yet one, what never will be.
#ifndef CADRE_ENGINE_TEXT_UTF8_H_
#define CADRE_ENGINE_TEXT_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace cadre {

// U+FFFD in UTF-8: what stands for bytes that are no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// What the first bytes of a text are.
struct Utf8Head {
  enum class Kind {
    kCharacter,   // a whole character of `size` bytes
    kIncomplete,  // all `size` bytes are the beginning of a character, and the text ends there
    kInvalid,     // `size` bytes that no character begins with: a maximal subpart (Unicode 15, section 3.9, D93b)
  };
  Kind kind;
  std::size_t size;
};

// Classifies the head of `text`. REQUIRES: text is not empty.
Utf8Head ReadUtf8Head(std::string_view text);

bool IsValidUtf8(std::string_view text);

// Size in bytes of the beginning of a character at the end of `text`; 0 when it ends with a whole one, or with garbage.
std::size_t IncompleteSuffixSize(std::string_view text);

// Appends `bytes` with every maximal invalid part replaced by U+FFFD, as all of WHATWG, Python and Rust do it.
void AppendValidUtf8(std::string_view bytes, std::string* out);

// The character at `*position`, which moves behind it. REQUIRES: text is valid UTF-8, *position a boundary before its
// end.
char32_t NextCodePoint(std::string_view text, std::size_t* position);

void AppendCodePoint(char32_t code_point, std::string* out);

// Start of the character that ends at `position`. REQUIRES: valid UTF-8, 0 < position <= size, a boundary.
std::size_t PreviousBoundary(std::string_view text, std::size_t position);

// Number of characters. REQUIRES: valid UTF-8.
std::size_t CountCodePoints(std::string_view text);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_UTF8_H_
