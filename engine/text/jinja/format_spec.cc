#include "engine/text/jinja/format_spec.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/text/jinja/print.h"
#include "engine/text/jinja/string_functions.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

absl::Status BadType(const FormatSpec& spec, const Value& value) {
  return Fail(absl::StrCat("the format '", std::string(1, spec.type), "' is not for a ", value.TypeName()));
}

std::string WithCommas(std::string digits) {
  std::size_t end = digits.find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits.size();
  constexpr std::size_t kGroup = 3;
  for (std::size_t i = end; i > kGroup;) {
    i -= kGroup;
    digits.insert(i, 1, ',');
  }
  return digits;
}

std::string DigitsOf(std::uint64_t magnitude, int base) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), kDigits[magnitude % static_cast<std::uint64_t>(base)]);
    magnitude /= static_cast<std::uint64_t>(base);
  } while (magnitude > 0);
  return digits;
}

// Magnitude and prefix of an integer; the sign is added later.
absl::StatusOr<std::string> PrintInteger(const Value& value, const FormatSpec& spec) {
  const std::int64_t integer = value.integer();
  const std::uint64_t magnitude =
      integer < 0 ? ~static_cast<std::uint64_t>(integer) + 1 : static_cast<std::uint64_t>(integer);
  const std::string prefix = spec.is_alternate ? absl::StrCat("0", std::string(1, spec.type)) : "";
  switch (spec.type) {
    case '\0':
    case 'd':
    case 'i':
    case 'u':
      return DigitsOf(magnitude, 10);
    case 'x':
      return prefix + DigitsOf(magnitude, 16);
    case 'X':
      return prefix + absl::AsciiStrToUpper(DigitsOf(magnitude, 16));
    case 'o':
      return prefix + DigitsOf(magnitude, 8);
    case 'b':
      return prefix + DigitsOf(magnitude, 2);
    default:
      return BadType(spec, value);
  }
}

// Magnitude of a float.
absl::StatusOr<std::string> PrintReal(const Value& value, const FormatSpec& spec) {
  const double number = std::abs(value.number());
  constexpr std::int64_t kDefaultPrecision = 6;
  const int precision = static_cast<int>(spec.precision.value_or(kDefaultPrecision));
  if (std::isnan(number)) return std::string("nan");
  if (std::isinf(number)) return std::string("inf");
  switch (spec.type) {
    case '\0':
      return spec.precision.has_value() ? absl::StrFormat("%.*g", precision, number) : PrintFloat(number);
    case 'f':
    case 'F':
      return absl::StrFormat("%.*f", precision, number);
    case 'e':
      return absl::StrFormat("%.*e", precision, number);
    case 'E':
      return absl::StrFormat("%.*E", precision, number);
    case 'g':
      return absl::StrFormat("%.*g", precision, number);
    case 'G':
      return absl::StrFormat("%.*G", precision, number);
    case '%':
      return absl::StrFormat("%.*f%%", precision, number * 100);
    default:
      return BadType(spec, value);
  }
}

bool IsRealType(char type) { return type != '\0' && std::string_view("eEfFgG%").find(type) != std::string_view::npos; }

absl::StatusOr<Text> PrintNumber(const Value& value, const FormatSpec& spec) {
  const bool is_real = value.is_float() || IsRealType(spec.type);
  CADRE_ASSIGN_OR_RETURN(std::string digits, is_real ? PrintReal(value, spec) : PrintInteger(value, spec));
  if (spec.has_comma) digits = WithCommas(std::move(digits));
  const bool is_negative = is_real ? std::signbit(value.number()) : value.integer() < 0;
  std::string sign = is_negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  if (spec.align == '=') {
    const std::int64_t missing = spec.width - static_cast<std::int64_t>(sign.size() + digits.size());
    for (std::int64_t i = 0; i < missing; ++i) sign += spec.fill;
  }
  return Text::FromTemplate(sign + digits);
}

absl::StatusOr<Text> PrintText(Runtime& runtime, const Value& value, const FormatSpec& spec) {
  if (spec.type != '\0' && spec.type != 's') return BadType(spec, value);
  if (spec.align == '=' || spec.has_comma || spec.sign != '-') return Fail("this format is for numbers only");
  CADRE_ASSIGN_OR_RETURN(Text text, ToText(runtime, value));
  if (!spec.precision.has_value()) return text;
  std::size_t end = 0;
  for (std::int64_t i = 0; i < *spec.precision && end < text.size(); ++i) NextCodePoint(text.bytes(), &end);
  return text.Slice(0, end);
}

}  // namespace

absl::StatusOr<Text> PrintFormatted(Runtime& runtime, const Value& value, const FormatSpec& spec) {
  if (spec.width > kMaxFormatWidth || spec.precision.value_or(0) > kMaxFormatWidth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a format of more than ", kMaxFormatWidth, " characters, the limit"));
  }
  const bool is_number = value.is_integer() || value.is_float() || (value.is_boolean() && spec.type != '\0');
  CADRE_ASSIGN_OR_RETURN(const Text printed,
                         is_number&& spec.type != 's' ? PrintNumber(value, spec) : PrintText(runtime, value, spec));
  const std::int64_t missing = spec.width - static_cast<std::int64_t>(CountCodePoints(printed.bytes()));
  CADRE_RETURN_IF_ERROR(
      runtime.ChargeBytes(printed.size() + static_cast<std::size_t>(std::max<std::int64_t>(missing, 0))));
  if (missing <= 0) return printed;
  const char align = spec.align != '\0' ? spec.align : is_number ? '>' : '<';
  const std::int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  return Pad(printed, left, missing - left, Text::FromTemplate(spec.fill));
}

}  // namespace cadre::jinja
