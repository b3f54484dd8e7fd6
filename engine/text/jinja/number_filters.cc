// Filters that make numbers.
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/string_functions.h"

namespace cadre::jinja {
namespace {

// Without white space around it and single underscores between digits; absent when they stand elsewhere.
std::optional<std::string> CleanNumber(const Text& text) {
  const std::string stripped = Strip(text, std::nullopt, Side::kBoth).bytes();
  std::string clean;
  for (std::size_t i = 0; i < stripped.size(); ++i) {
    if (stripped[i] != '_') {
      clean += stripped[i];
      continue;
    }
    const auto is_digit = [&](std::size_t at) {
      return at < stripped.size() && absl::ascii_isalnum(static_cast<unsigned char>(stripped[at]));
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  return clean;
}

// int(text, base).
std::optional<std::int64_t> ParseInteger(const Text& text, std::int64_t base) {
  const std::optional<std::string> clean = CleanNumber(text);
  if (!clean.has_value()) return std::nullopt;
  std::string_view digits = *clean;
  const bool is_negative = digits.starts_with('-');
  if (is_negative || digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.size() > 2 && digits[0] == '0') {
    const char letter = absl::ascii_tolower(static_cast<unsigned char>(digits[1]));
    const int prefix_base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix_base != 0 && (base == prefix_base || base == 0)) {
      base = prefix_base;
      digits.remove_prefix(2);
    }
  }
  if (base == 0) base = 10;
  std::string signed_digits = is_negative ? "-" : "";
  signed_digits += digits;
  std::int64_t value = 0;
  const char* const end = signed_digits.data() + signed_digits.size();
  const std::from_chars_result result = std::from_chars(signed_digits.data(), end, value, static_cast<int>(base));
  const bool is_number = !digits.empty() && digits[0] != '-' && result.ec == std::errc() && result.ptr == end;
  return is_number ? std::optional<std::int64_t>(value) : std::nullopt;
}

// float(text).
std::optional<double> ParseFloat(const Text& text) {
  const std::optional<std::string> clean = CleanNumber(text);
  // Python knows no hexadecimal floats here.
  if (!clean.has_value() || clean->find_first_of("xX") != std::string::npos) return std::nullopt;
  double value = 0;
  return absl::SimpleAtod(*clean, &value) ? std::optional<double>(value) : std::nullopt;
}

std::optional<std::int64_t> Truncated(double value) {
  constexpr double kLimit = 9223372036854774784.0;  // the largest double below 2^63
  if (std::isnan(value) || std::abs(value) > kLimit) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

absl::StatusOr<Value> IntFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("int", arguments, {"default", "base"}));
  const Value fallback = bound[0] == nullptr ? Value::Integer(0) : *bound[0];
  CADRE_ASSIGN_OR_RETURN(const std::int64_t base, bound.Integer(1, 10));
  constexpr std::int64_t kMaxBase = 36;
  if (base != 0 && (base < 2 || base > kMaxBase)) return fallback;
  if (input.is_undefined()) return UndefinedError(input);
  if (input.is_integral()) return Value::Integer(input.integer());
  std::optional<std::int64_t> value;
  if (input.is_string()) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(input.text().size()));
    value = ParseInteger(input.text(), base);
    if (!value.has_value()) {
      if (const std::optional<double> number = ParseFloat(input.text()); number.has_value()) value = Truncated(*number);
    }
  } else if (input.is_float()) {
    value = Truncated(input.number());
  }
  return value.has_value() ? Value::Integer(*value) : fallback;
}

absl::StatusOr<Value> FloatFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("float", arguments, {"default"}));
  const Value fallback = bound[0] == nullptr ? Value::Float(0) : *bound[0];
  if (input.is_undefined()) return UndefinedError(input);
  if (input.is_number()) return Value::Float(input.number());
  if (!input.is_string()) return fallback;
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(input.text().size()));
  const std::optional<double> value = ParseFloat(input.text());
  return value.has_value() ? Value::Float(*value) : fallback;
}

absl::StatusOr<Value> Abs(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("abs", arguments, {}).status());
  if (input.is_undefined()) return UndefinedError(input);
  if (input.is_float()) return Value::Float(std::abs(input.number()));
  if (!input.is_integral()) return Fail(absl::StrCat("abs takes a number, not a ", input.TypeName()));
  if (input.integer() == std::numeric_limits<std::int64_t>::min()) return Fail("the result does not fit into 64 bits");
  return Value::Integer(std::abs(input.integer()));
}

// Python's round: to the nearest, halves to even, by the number's exact decimal value.
double RoundTo(double value, std::int64_t precision) {
  constexpr std::int64_t kMaxDigits = 323;
  if (!std::isfinite(value) || precision > kMaxDigits) return value;
  if (precision < -kMaxDigits) return 0;
  if (precision >= 0) {
    constexpr std::size_t kMaxChars = 700;
    char buffer[kMaxChars];
    const auto end =
        std::to_chars(buffer, buffer + kMaxChars, value, std::chars_format::fixed, static_cast<int>(precision));
    double rounded = value;
    if (end.ec == std::errc()) std::from_chars(buffer, end.ptr, rounded);
    return rounded;
  }
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / scale) * scale;
}

absl::StatusOr<Value> Round(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("round", arguments, {"precision", "method"}));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t precision, bound.Integer(0, 0));
  CADRE_ASSIGN_OR_RETURN(const std::string method, bound.String(1, "common"));
  if (input.is_undefined()) return UndefinedError(input);
  if (!input.is_number()) return Fail(absl::StrCat("round takes a number, not a ", input.TypeName()));
  if (method == "common") {
    if (input.is_integral() && precision >= 0) return Value::Integer(input.integer());
    const double rounded = RoundTo(input.number(), precision);
    if (!input.is_integral()) return Value::Float(rounded);
    const std::optional<std::int64_t> whole = Truncated(rounded);
    return whole.has_value() ? absl::StatusOr<Value>(Value::Integer(*whole))
                             : Fail("the result does not fit into 64 bits");
  }
  if (method != "ceil" && method != "floor") return Fail("round: the method is common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.number() * scale;
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

absl::StatusOr<Value> LengthFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("length", arguments, {}).status());
  CADRE_ASSIGN_OR_RETURN(const std::int64_t length, Length(runtime, input));
  return Value::Integer(length);
}

constexpr NamedFilter kFilters[] = {
    {"abs", Abs},       {"count", LengthFilter},  {"float", FloatFilter},
    {"int", IntFilter}, {"length", LengthFilter}, {"round", Round},
};

}  // namespace

std::span<const NamedFilter> NumberFilters() { return kFilters; }

}  // namespace cadre::jinja
