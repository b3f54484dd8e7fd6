#include "engine/text/jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

utf8proc_category_t CategoryOf(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool IsIn(char32_t c, utf8proc_category_t first, utf8proc_category_t last) {
  const utf8proc_category_t category = CategoryOf(c);
  return category >= first && category <= last;
}

struct Range {
  char32_t first;
  char32_t last;
};

// Digits that are no decimal digits: superscripts, subscripts, circled and their kin (Numeric_Type=Digit).
constexpr Range kOtherDigits[] = {{0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
                                  {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
                                  {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
                                  {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
                                  {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};

// Characters that become several: SpecialCasing.txt of Unicode, without its conditions.
struct SpecialCase {
  char32_t character;
  std::u32string_view upper;
  std::u32string_view title;
};
constexpr SpecialCase kSpecialCases[] = {{0xDF, U"SS", U"Ss"},
                                         {0x149, U"ʼN", U"ʼN"},
                                         {0x1F0, U"J\u030C", U"J\u030C"},
                                         {0x390, U"\u0399\u0308\u0301", U"\u0399\u0308\u0301"},
                                         {0x3B0, U"\u03A5\u0308\u0301", U"\u03A5\u0308\u0301"},
                                         {0x587, U"\u0535\u0552", U"\u0535\u0582"},
                                         {0x1E96, U"H\u0331", U"H\u0331"},
                                         {0x1E97, U"T\u0308", U"T\u0308"},
                                         {0x1E98, U"W\u030A", U"W\u030A"},
                                         {0x1E99, U"Y\u030A", U"Y\u030A"},
                                         {0x1E9A, U"A\u02BE", U"A\u02BE"},
                                         {0xFB00, U"FF", U"Ff"},
                                         {0xFB01, U"FI", U"Fi"},
                                         {0xFB02, U"FL", U"Fl"},
                                         {0xFB03, U"FFI", U"Ffi"},
                                         {0xFB04, U"FFL", U"Ffl"},
                                         {0xFB05, U"ST", U"St"},
                                         {0xFB06, U"ST", U"St"}};

const SpecialCase* FindSpecialCase(char32_t c) {
  const auto* found = std::find_if(std::begin(kSpecialCases), std::end(kSpecialCases),
                                   [c](const SpecialCase& special) { return special.character == c; });
  return found == std::end(kSpecialCases) ? nullptr : found;
}

void AppendAll(std::u32string_view characters, std::string* out) {
  for (const char32_t c : characters) AppendCodePoint(c, out);
}

constexpr char32_t kCapitalSigma = 0x3A3;
constexpr char32_t kSmallSigma = 0x3C3;
constexpr char32_t kFinalSigma = 0x3C2;

// Characters that neither begin nor end a word for the final sigma.
bool IsCaseIgnorable(char32_t c) {
  return c == '\'' || c == '.' || c == ':' || c == 0xAD || c == 0xB7 || c == 0x2019 ||
         IsIn(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MN) || IsIn(c, UTF8PROC_CATEGORY_LM, UTF8PROC_CATEGORY_LM) ||
         IsIn(c, UTF8PROC_CATEGORY_SK, UTF8PROC_CATEGORY_SK);
}

// Whether the sigma at `position` ends a word: a letter before it, none behind it.
bool IsFinalSigma(std::string_view text, std::size_t position) {
  bool has_letter_before = false;
  for (std::size_t end = position; end > 0;) {
    std::size_t begin = PreviousBoundary(text, end);
    end = begin;
    const char32_t c = NextCodePoint(text, &begin);
    if (IsCaseIgnorable(c)) continue;
    has_letter_before = IsCased(c);
    break;
  }
  if (!has_letter_before) return false;
  NextCodePoint(text, &position);
  while (position < text.size()) {
    const char32_t c = NextCodePoint(text, &position);
    if (!IsCaseIgnorable(c)) return !IsCased(c);
  }
  return true;
}

}  // namespace

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsLineBreak(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  return CategoryOf(c) != UTF8PROC_CATEGORY_CN && !IsIn(c, UTF8PROC_CATEGORY_ZS, UTF8PROC_CATEGORY_CO);
}

bool IsAlpha(char32_t c) { return IsIn(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO); }
bool IsDecimal(char32_t c) { return IsIn(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_ND); }
bool IsDigit(char32_t c) {
  return IsDecimal(c) || std::any_of(std::begin(kOtherDigits), std::end(kOtherDigits),
                                     [c](const Range& range) { return c >= range.first && c <= range.last; });
}
bool IsNumeric(char32_t c) { return IsIn(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO) || IsDigit(c); }
bool IsUpper(char32_t c) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0; }
bool IsLower(char32_t c) { return utf8proc_islower(static_cast<utf8proc_int32_t>(c)) != 0; }
bool IsWordCharacter(char32_t c) { return c == '_' || IsAlpha(c) || IsNumeric(c); }
bool IsCased(char32_t c) { return IsUpper(c) || IsLower(c) || CategoryOf(c) == UTF8PROC_CATEGORY_LT; }

void AppendUpper(char32_t c, std::string* out) {
  if (const SpecialCase* special = FindSpecialCase(c)) {
    AppendAll(special->upper, out);
  } else {
    AppendCodePoint(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendTitle(char32_t c, std::string* out) {
  if (const SpecialCase* special = FindSpecialCase(c)) {
    AppendAll(special->title, out);
  } else {
    AppendCodePoint(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendFolded(char32_t c, std::string* out) {
  constexpr int kMaxFolded = 8;  // no character folds into more than three
  utf8proc_int32_t folded[kMaxFolded];
  int boundary = 0;
  const utf8proc_ssize_t size =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded, kMaxFolded, UTF8PROC_CASEFOLD, &boundary);
  if (size < 0 || size > kMaxFolded) {
    AppendCodePoint(c, out);
    return;
  }
  for (utf8proc_ssize_t i = 0; i < size; ++i) AppendCodePoint(static_cast<char32_t>(folded[i]), out);
}

void AppendLower(std::string_view text, std::size_t position, std::string* out) {
  std::size_t end = position;
  const char32_t c = NextCodePoint(text, &end);
  constexpr char32_t kDottedCapitalI = 0x130;
  if (c == kDottedCapitalI) {
    AppendAll(U"i\u0307", out);
  } else if (c == kCapitalSigma) {
    AppendCodePoint(IsFinalSigma(text, position) ? kFinalSigma : kSmallSigma, out);
  } else {
    AppendCodePoint(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
  }
}

}  // namespace cadre::jinja
