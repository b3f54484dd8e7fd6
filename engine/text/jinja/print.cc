#include "engine/text/jinja/print.h"

#include <charconv>
#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/text/jinja/object.h"
#include "engine/text/jinja/unicode.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

std::string EscapeCharacter(char32_t c, char quote) {
  switch (c) {
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (c == static_cast<char32_t>(quote)) return absl::StrCat("\\", std::string(1, quote));
  if (IsPrintable(c)) {
    std::string character;
    AppendCodePoint(c, &character);
    return character;
  }
  const auto code = static_cast<unsigned>(c);
  if (c < 0x100) return absl::StrFormat("\\x%02x", code);
  return c < 0x10000 ? absl::StrFormat("\\u%04x", code) : absl::StrFormat("\\U%08x", code);
}

void AppendStringRepr(const Text& text, Text* out) {
  const std::string& bytes = text.bytes();
  const bool has_only_single = bytes.find('\'') != std::string::npos && bytes.find('"') == std::string::npos;
  const char quote = has_only_single ? '"' : '\'';
  out->Append(std::string_view(&quote, 1));
  for (std::size_t position = 0; position < bytes.size();) {
    const std::size_t begin = position;
    const char32_t c = NextCodePoint(bytes, &position);
    out->AppendDerived(EscapeCharacter(c, quote), text, begin);
  }
  out->Append(std::string_view(&quote, 1));
}

void Print(const Value& value, Text* out);

void AppendItems(const std::vector<Value>& items, Text* out) {
  bool is_first = true;
  for (const Value& item : items) {
    if (!is_first) out->Append(", ");
    is_first = false;
    Print(item, out);
  }
}

void AppendSequenceRepr(const Sequence& sequence, Text* out) {
  switch (sequence.type()) {
    case SequenceType::kList:
    case SequenceType::kView:
      out->Append("[");
      AppendItems(sequence.items(), out);
      out->Append("]");
      return;
    case SequenceType::kTuple:
      out->Append("(");
      AppendItems(sequence.items(), out);
      out->Append(sequence.items().size() == 1 ? ",)" : ")");
      return;
    case SequenceType::kGenerator:
      out->Append("<generator>");
      return;
  }
}

void AppendDictRepr(const Dict& dict, Text* out) {
  out->Append("{");
  bool is_first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!is_first) out->Append(", ");
    is_first = false;
    Print(key, out);
    out->Append(": ");
    Print(value, out);
  }
  out->Append("}");
}

void Print(const Value& value, Text* out) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      out->Append("Undefined");
      return;
    case Value::Kind::kNone:
      out->Append("None");
      return;
    case Value::Kind::kBoolean:
      out->Append(value.boolean() ? "True" : "False");
      return;
    case Value::Kind::kInteger:
      out->Append(absl::StrCat(value.integer()));
      return;
    case Value::Kind::kFloat:
      out->Append(PrintFloat(value.number()));
      return;
    case Value::Kind::kString:
      AppendStringRepr(value.text(), out);
      return;
    case Value::Kind::kSequence:
      AppendSequenceRepr(value.sequence(), out);
      return;
    case Value::Kind::kDict:
      AppendDictRepr(value.dict(), out);
      return;
    case Value::Kind::kObject:
      out->Append(value.object().Print());
      return;
  }
}

// Pays for printing `value` behind `out`. Every value prints at least one character, and all bytes of its strings.
absl::Status ChargePrint(Runtime& runtime, const Value& value, const Text& out) {
  const Extent extent = value.extent();
  CADRE_RETURN_IF_ERROR(runtime.CheckSize(out.size() + extent.bytes + extent.values - 1));
  return runtime.ChargeWalk(value);
}

}  // namespace

std::string PrintFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  constexpr int kMaxChars = 32;
  char buffer[kMaxChars];
  const std::to_chars_result end = std::to_chars(buffer, buffer + kMaxChars, value, std::chars_format::scientific);
  const std::string_view shortest(buffer, static_cast<std::size_t>(end.ptr - buffer));
  const std::size_t e = shortest.find('e');
  int exponent = 0;
  const char* const exponent_begin = shortest.data() + e + (shortest[e + 1] == '+' ? 2 : 1);
  std::from_chars(exponent_begin, shortest.data() + shortest.size(), exponent);
  std::string sign;
  std::string digits;
  for (const char c : shortest.substr(0, e)) {
    if (c == '-') sign.assign(1, '-');
    if (c >= '0' && c <= '9') digits += c;
  }
  const int num_digits = static_cast<int>(digits.size());
  constexpr int kFirstScientific = 16;
  if (exponent < -4 || exponent >= kFirstScientific) {
    if (num_digits > 1) digits.insert(1, 1, '.');
    return absl::StrFormat("%s%se%c%02d", sign, digits, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return absl::StrCat(sign, "0.", std::string(static_cast<std::size_t>(-exponent - 1), '0'), digits);
  if (num_digits <= exponent + 1) {
    return absl::StrCat(sign, digits, std::string(static_cast<std::size_t>(exponent + 1 - num_digits), '0'), ".0");
  }
  digits.insert(static_cast<std::size_t>(exponent) + 1, 1, '.');
  return sign + digits;
}

absl::Status AppendString(Runtime& runtime, const Value& value, Text* out) {
  if (value.is_undefined()) return absl::OkStatus();
  if (!value.is_string()) return AppendRepr(runtime, value, out);
  CADRE_RETURN_IF_ERROR(ChargePrint(runtime, value, *out));
  out->Append(value.text());
  return absl::OkStatus();
}

absl::Status AppendRepr(Runtime& runtime, const Value& value, Text* out) {
  CADRE_RETURN_IF_ERROR(ChargePrint(runtime, value, *out));
  Print(value, out);
  return runtime.CheckSize(out->size());
}

absl::StatusOr<Text> ToText(Runtime& runtime, const Value& value) {
  Text text;
  CADRE_RETURN_IF_ERROR(AppendString(runtime, value, &text));
  return text;
}

}  // namespace cadre::jinja
