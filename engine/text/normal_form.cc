#include "engine/text/normal_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/unicode_classes.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

// The base of the trailing Hangul consonants is itself a vowel; utf8proc 2.8 takes it for a consonant, loses it in a
// composition, and composes it with nothing else.
constexpr char32_t kHangulTrailingBase = 0x11A7;

// One character decomposes to at most 18 (U+FDFA).
constexpr std::size_t kMaxDecomposition = 32;

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

int CombiningClass(utf8proc_int32_t code_point) { return utf8proc_get_property(code_point)->combining_class; }

// Puts each run of combining marks in canonical order. The library's own loop would be quadratic in the length of the
// run, and the length is the client's choice.
void OrderMarks(std::vector<utf8proc_int32_t>* code_points) {
  auto first = code_points->begin();
  while (first != code_points->end()) {
    first = std::find_if(first, code_points->end(), [](utf8proc_int32_t c) { return CombiningClass(c) != 0; });
    const auto last =
        std::find_if(first, code_points->end(), [](utf8proc_int32_t c) { return CombiningClass(c) == 0; });
    std::stable_sort(first, last,
                     [](utf8proc_int32_t a, utf8proc_int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    first = last;
  }
}

// Normalizes decomposed code points, appends them to `out` and clears them.
void AppendOrdered(bool compose, std::vector<utf8proc_int32_t>* code_points, std::string* out) {
  if (code_points->empty()) return;
  OrderMarks(code_points);
  if (compose) {
    const utf8proc_ssize_t size =
        utf8proc_normalize_utf32(code_points->data(), static_cast<utf8proc_ssize_t>(code_points->size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    CADRE_CHECK_GE(size, 0);
    code_points->resize(static_cast<std::size_t>(size));
  }
  for (const utf8proc_int32_t code_point : *code_points) AppendCodePoint(static_cast<char32_t>(code_point), out);
  code_points->clear();
}

}  // namespace

std::string Normalize(std::string_view text, NormalForm form) {
  if (IsAscii(text)) return std::string(text);
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> pending;
  for (std::size_t position = 0; position < text.size();) {
    const char32_t code_point = NextCodePoint(text, &position);
    if (IsNormalizationInert(code_point) || code_point == kHangulTrailingBase) {
      AppendOrdered(compose, &pending, &out);
      AppendCodePoint(code_point, &out);
      continue;
    }
    std::array<utf8proc_int32_t, kMaxDecomposition> parts;
    int boundary = 0;
    const utf8proc_ssize_t num_parts = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts.data(),
                                                               parts.size(), options, &boundary);
    CADRE_CHECK(num_parts >= 0 && num_parts <= static_cast<utf8proc_ssize_t>(parts.size()));
    pending.insert(pending.end(), parts.begin(), parts.begin() + num_parts);
  }
  AppendOrdered(compose, &pending, &out);
  return out;
}

std::string ToLowercase(std::string_view text) {
  // The one character whose lower case is two: capital I with a dot is "i" and a combining dot.
  constexpr char32_t kCapitalIWithDot = 0x130;
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const char32_t code_point = NextCodePoint(text, &position);
    if (code_point == kCapitalIWithDot) {
      out += "i\xCC\x87";
      continue;
    }
    const auto lower = static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point)));
    AppendCodePoint(lower == code_point ? NewLowercase(code_point) : lower, &out);
  }
  return out;
}

}  // namespace cadre
