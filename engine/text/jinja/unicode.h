#ifndef CADRE_ENGINE_TEXT_JINJA_UNICODE_H_
#define CADRE_ENGINE_TEXT_JINJA_UNICODE_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace cadre::jinja {

// What Python's str knows about characters. Case follows the Unicode version of our library, with the special cases of
// single letters (ß becomes SS) but without those of context, other than the final sigma.

bool IsSpace(char32_t c);      // str.isspace and the default of strip and split
bool IsLineBreak(char32_t c);  // where str.splitlines cuts; "\r\n" is one
bool IsPrintable(char32_t c);
bool IsAlpha(char32_t c);
bool IsDecimal(char32_t c);  // a digit of a positional system
bool IsDigit(char32_t c);    // the same, with superscripts and their kin
bool IsNumeric(char32_t c);  // all that has a value, with fractions
bool IsUpper(char32_t c);
bool IsLower(char32_t c);
bool IsWordCharacter(char32_t c);  // \w
bool IsCased(char32_t c);

void AppendUpper(char32_t c, std::string* out);
void AppendTitle(char32_t c, std::string* out);
void AppendFolded(char32_t c, std::string* out);  // for comparing without case
// Of the character at `position` of `text`.
void AppendLower(std::string_view text, std::size_t position, std::string* out);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_UNICODE_H_
