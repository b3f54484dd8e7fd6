// Classes of characters as the Hugging Face `tokenizers` library sees them.
//
// That library carries several regex engines and tables of different Unicode versions, and the libraries we build on
// know others. Each function here answers for one of them; the differences are data (unicode_additions.inc).
#ifndef CADRE_ENGINE_TEXT_UNICODE_CLASSES_H_
#define CADRE_ENGINE_TEXT_UNICODE_CLASSES_H_

#include <optional>
#include <string>
#include <string_view>

namespace cadre {

// Unicode White_Space: what `\s`, strip options and the Whitespace components mean.
bool IsWhiteSpace(char32_t code_point);

// The functions below return what stands between the brackets of a PCRE2 character class (UTF, UCP).

std::string WhiteSpaceClass();     // \s
std::string NonWhiteSpaceClass();  // \S
std::string DecimalDigitClass();   // \d
std::string WordClass();           // \w of patterns written in a tokenizer.json
std::string BracketWordClass();    // the same inside brackets, which is not quite the same
std::string PlainWordClass();      // \w of added tokens with `single_word`, and of the Whitespace component
std::string NumericClass();        // the Digits component
std::string PunctuationClass();    // the Punctuation component; see also PunctuationExclusions

// Characters that PunctuationClass() holds too many of: the component's table is of Unicode 8.
std::string PunctuationExclusions();

// `\p{name}` for a general category ("L", "Lu", ...) or a script ("Han", ...); nullopt for any other name.
std::optional<std::string> PropertyClass(std::string_view name);

// True for what the library's normal forms, of Unicode 9, take for an unassigned character: it neither decomposes, nor
// composes, nor is it reordered.
bool IsNormalizationInert(char32_t code_point);

// Lower case pairs newer than our Unicode library; the argument itself when there is none.
char32_t NewLowercase(char32_t code_point);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_UNICODE_CLASSES_H_
