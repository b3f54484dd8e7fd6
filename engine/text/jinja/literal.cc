#include "engine/text/jinja/literal.h"

#include <charconv>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

absl::Status Bad(const std::string& message) { return absl::FailedPreconditionError(message); }

// The character that a letter behind a backslash stands for; 0 for other letters.
char SimpleEscape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return 0;
  }
}

absl::Status AppendCode(std::string_view digits, std::size_t wanted, int base, std::string* out) {
  std::uint32_t code = 0;
  const char* const end = digits.data() + digits.size();
  const std::from_chars_result result = std::from_chars(digits.data(), end, code, base);
  constexpr std::uint32_t kLastCode = 0x10FFFF;
  const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (digits.size() < wanted || result.ptr != end || code > kLastCode || is_surrogate) {
    return Bad(absl::StrCat("the escape \\", Quoted(digits), " in a string is no character"));
  }
  AppendCodePoint(code, out);
  return absl::OkStatus();
}

std::size_t CountDigits(std::string_view text, bool (*is_digit)(unsigned char), std::size_t from) {
  std::size_t end = from;
  while (end < text.size() && (is_digit(static_cast<unsigned char>(text[end])) ||
                               (text[end] == '_' && end > from && text[end - 1] != '_' && end + 1 < text.size() &&
                                is_digit(static_cast<unsigned char>(text[end + 1]))))) {
    ++end;
  }
  return end - from;
}

bool IsDecimalDigit(unsigned char c) { return absl::ascii_isdigit(c); }
bool IsHexDigit(unsigned char c) { return absl::ascii_isxdigit(c); }
bool IsOctalDigit(unsigned char c) { return c >= '0' && c <= '7'; }
bool IsBinaryDigit(unsigned char c) { return c == '0' || c == '1'; }

std::string WithoutUnderscores(std::string_view digits) {
  std::string plain;
  for (const char c : digits) {
    if (c != '_') plain += c;
  }
  return plain;
}

absl::Status ParseInteger(std::string_view digits, int base, Token* token) {
  const std::string plain = WithoutUnderscores(digits);
  const char* const end = plain.data() + plain.size();
  const std::from_chars_result result = std::from_chars(plain.data(), end, token->integer, base);
  if (result.ec != std::errc() || result.ptr != end) {
    return Bad(absl::StrCat("the number ", plain, " does not fit into 64 bits"));
  }
  token->type = Token::Type::kInteger;
  return absl::OkStatus();
}

// End of the fraction and exponent behind the digits that end at `end`; `end` when there is none.
std::size_t FloatEnd(std::string_view text, std::size_t end) {
  std::size_t float_end = end;
  if (end < text.size() && text[end] == '.') {
    const std::size_t digits = CountDigits(text, IsDecimalDigit, end + 1);
    if (digits > 0) float_end = end + 1 + digits;
  }
  if (float_end < text.size() && (text[float_end] == 'e' || text[float_end] == 'E')) {
    std::size_t exponent = float_end + 1;
    if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
    const std::size_t digits = CountDigits(text, IsDecimalDigit, exponent);
    if (digits > 0) float_end = exponent + digits;
  }
  return float_end;
}

}  // namespace

absl::StatusOr<std::string> UnescapeString(std::string_view body) {
  std::string value;
  for (std::size_t i = 0; i < body.size();) {
    if (body[i] != '\\' || i + 1 == body.size()) {
      value += body[i++];
      continue;
    }
    const char letter = body[i + 1];
    if (const char simple = SimpleEscape(letter); simple != 0) {
      value += simple;
      i += 2;
    } else if (letter == '\n') {
      i += 2;
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      const std::size_t wanted = letter == 'x' ? 2 : letter == 'u' ? 4 : 8;
      const std::string_view digits = body.substr(i + 2, wanted);
      CADRE_RETURN_IF_ERROR(AppendCode(digits, wanted, 16, &value));
      i += 2 + wanted;
    } else if (IsOctalDigit(static_cast<unsigned char>(letter))) {
      std::size_t size = 1;
      while (size < 3 && i + 1 + size < body.size() && IsOctalDigit(static_cast<unsigned char>(body[i + 1 + size]))) {
        ++size;
      }
      CADRE_RETURN_IF_ERROR(AppendCode(body.substr(i + 1, size), 1, 8, &value));
      i += 1 + size;
    } else if (letter == 'N') {
      return Bad("named characters (\\N{...}) in strings are not supported");
    } else {
      value += body[i++];
    }
  }
  return value;
}

absl::StatusOr<std::size_t> ReadNumber(std::string_view text, bool integer_only, Token* token) {
  if (text[0] == '0' && text.size() > 2) {
    const char letter = absl::ascii_tolower(static_cast<unsigned char>(text[1]));
    const auto read_based = [&](bool (*is_digit)(unsigned char), int base) -> absl::StatusOr<std::size_t> {
      const std::size_t digits = CountDigits(text, is_digit, 2);
      CADRE_RETURN_IF_ERROR(ParseInteger(text.substr(2, digits), base, token));
      return 2 + digits;
    };
    const auto digit = static_cast<unsigned char>(text[2]);
    if (letter == 'x' && IsHexDigit(digit)) return read_based(IsHexDigit, 16);
    if (letter == 'o' && IsOctalDigit(digit)) return read_based(IsOctalDigit, 8);
    if (letter == 'b' && IsBinaryDigit(digit)) return read_based(IsBinaryDigit, 2);
  }
  std::size_t end = CountDigits(text, IsDecimalDigit, 0);
  if (const std::size_t float_end = integer_only ? end : FloatEnd(text, end); float_end > end) {
    const std::string plain = WithoutUnderscores(text.substr(0, float_end));
    std::from_chars(plain.data(), plain.data() + plain.size(), token->number);
    token->type = Token::Type::kFloat;
    return float_end;
  }
  // Python knows no numbers such as 007: two tokens, which the parser refuses.
  if (text[0] == '0' && text.substr(0, end).find_first_not_of("0_") != std::string_view::npos) end = 1;
  CADRE_RETURN_IF_ERROR(ParseInteger(text.substr(0, end), 10, token));
  return end;
}

}  // namespace cadre::jinja
