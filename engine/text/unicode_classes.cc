#include "engine/text/unicode_classes.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cadre {
namespace {

struct NamedRange {
  std::string_view name;  // of a general category or a script; empty in tables about one class
  char32_t first;
  char32_t last;
};

struct LowercaseRange {
  char32_t first;
  char32_t last;
  char32_t first_lower;  // first + i has the lower case first_lower + i
};

#include "engine/text/unicode_additions.inc"

constexpr std::string_view kScripts[] = {"Arabic", "Cyrillic", "Devanagari", "Greek", "Han", "Hangul",
                                         "Hebrew", "Hiragana", "Katakana",   "Latin", "Thai"};
constexpr std::string_view kCategories[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",
                                            "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
                                            "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp"};

// Letters that are numbers or symbols by category, yet Alphabetic: circled and squared Latin letters.
constexpr std::string_view kAlphabeticSymbols =
    "\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";

std::string ClassRange(const NamedRange& range) {
  return absl::StrFormat("\\x{%X}-\\x{%X}", static_cast<std::uint32_t>(range.first),
                         static_cast<std::uint32_t>(range.last));
}

template <std::size_t kSize>
std::string ClassRanges(const NamedRange (&table)[kSize]) {
  std::string text;
  for (const NamedRange& range : table) text += ClassRange(range);
  return text;
}

// A category's additions are those of all its subcategories: "L" takes "Lu", "Ll", ...
template <std::size_t kSize>
std::string ClassRangesOf(std::string_view name, const NamedRange (&table)[kSize]) {
  std::string text;
  for (const NamedRange& range : table) {
    if (range.name.substr(0, name.size()) == name) text += ClassRange(range);
  }
  return text;
}

std::string CategoryClass(std::string_view name) {
  return absl::StrCat("\\p{", std::string(name), "}", ClassRangesOf(name, kCategoryAdditions));
}

std::string AlphabeticClass() {
  return absl::StrCat(CategoryClass("L"), CategoryClass("M"), CategoryClass("Nd"), CategoryClass("Nl"),
                      CategoryClass("Pc"), std::string(kAlphabeticSymbols));
}

}  // namespace

bool IsWhiteSpace(char32_t c) {
  if (c < 0x80) return c == 0x20 || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string WhiteSpaceClass() {
  return "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";
}

std::string NonWhiteSpaceClass() {
  return "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"
         "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}";
}

std::string DecimalDigitClass() { return CategoryClass("Nd"); }

// Outside brackets, Oniguruma asks an older table about Latin-1, with superscript digits and vulgar fractions.
std::string WordClass() { return absl::StrCat(AlphabeticClass(), "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"); }

std::string BracketWordClass() { return AlphabeticClass(); }

// Unicode Technical Standard 18, annex C: Alphabetic, M, Nd, Pc and the two joiners.
std::string PlainWordClass() { return absl::StrCat(AlphabeticClass(), "\\x{200C}\\x{200D}"); }

std::string NumericClass() { return absl::StrCat("\\p{N}", ClassRanges(kDigitsAdditions)); }

std::string PunctuationClass() { return absl::StrCat("\\p{P}$+<=>\\^`|~", ClassRanges(kPunctuationAdditions)); }

std::string PunctuationExclusions() {
  return absl::StrCat(ClassRanges(kPunctuationExclusions), ClassRangesOf("P", kCategoryAdditions));
}

std::optional<std::string> PropertyClass(std::string_view name) {
  if (std::find(std::begin(kCategories), std::end(kCategories), name) != std::end(kCategories)) {
    return CategoryClass(name);
  }
  if (std::find(std::begin(kScripts), std::end(kScripts), name) != std::end(kScripts)) {
    // Without the prefix PCRE2 would match Script_Extensions, which is more.
    return absl::StrCat("\\p{sc:", std::string(name), "}", ClassRangesOf(name, kScriptAdditions));
  }
  return std::nullopt;
}

bool IsNormalizationInert(char32_t code_point) {
  const auto* range = std::upper_bound(std::begin(kNormalizationInert), std::end(kNormalizationInert), code_point,
                                       [](char32_t c, const NamedRange& r) { return c < r.first; });
  return range != std::begin(kNormalizationInert) && code_point <= std::prev(range)->last;
}

char32_t NewLowercase(char32_t code_point) {
  for (const LowercaseRange& range : kLowercaseAdditions) {
    if (code_point >= range.first && code_point <= range.last) return range.first_lower + (code_point - range.first);
  }
  return code_point;
}

}  // namespace cadre
