#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/text/jinja/json.h"
#include "engine/text/jinja/print.h"
#include "engine/text/jinja/sequence_functions.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

std::string EscapeCharacter(char32_t c, bool ensure_ascii) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  const auto code = static_cast<unsigned>(c);
  if (c < ' ' || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
    if (c == 0x7F) return "\x7F";
    return absl::StrFormat("\\u%04x", code);
  }
  if (ensure_ascii && c >= 0x10000) {
    const unsigned offset = code - 0x10000;
    return absl::StrFormat("\\u%04x\\u%04x", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF));
  }
  std::string character;
  AppendCodePoint(c, &character);
  return character;
}

std::string PrintNumber(const Value& value) {
  if (value.is_integer()) return absl::StrCat(value.integer());
  const double number = value.number();
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return PrintFloat(number);
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  absl::Status Write(const Value& value) {
    CADRE_RETURN_IF_ERROR(runtime_.Charge(1));
    CADRE_RETURN_IF_ERROR(runtime_.CheckSize(out_.size()));
    switch (value.kind()) {
      case Value::Kind::kNone:
        out_.Append("null");
        return absl::OkStatus();
      case Value::Kind::kBoolean:
        out_.Append(value.boolean() ? "true" : "false");
        return absl::OkStatus();
      case Value::Kind::kInteger:
      case Value::Kind::kFloat:
        out_.Append(PrintNumber(value));
        return absl::OkStatus();
      case Value::Kind::kString:
        return WriteString(value.text());
      case Value::Kind::kSequence:
        if (value.sequence().has_places()) return WriteList(value.sequence().items());
        break;
      case Value::Kind::kDict:
        return WriteDict(value.dict());
      default:
        break;
    }
    return Fail(absl::StrCat("tojson: Object of type ", value.TypeName(), " is not JSON serializable"));
  }

  Text Take() { return std::move(out_); }

 private:
  absl::Status WriteString(const Text& text) {
    CADRE_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
    out_.Append("\"");
    const std::string& bytes = text.bytes();
    std::size_t written = 0;
    for (std::size_t position = 0; position < bytes.size();) {
      const std::size_t begin = position;
      const char32_t c = NextCodePoint(bytes, &position);
      if (c >= ' ' && c != '"' && c != '\\' && (c < 0x7F || !style_.ensure_ascii)) continue;
      out_.AppendSlice(text, written, begin);
      out_.AppendDerived(EscapeCharacter(c, style_.ensure_ascii), text, begin);
      written = position;
    }
    out_.AppendSlice(text, written, bytes.size());
    out_.Append("\"");
    return absl::OkStatus();
  }

  absl::Status WriteKey(const Value& key) {
    switch (key.kind()) {
      case Value::Kind::kString:
        return WriteString(key.text());
      case Value::Kind::kNone:
        return WriteString(Text::FromTemplate("null"));
      case Value::Kind::kBoolean:
        return WriteString(Text::FromTemplate(key.boolean() ? "true" : "false"));
      case Value::Kind::kInteger:
      case Value::Kind::kFloat:
        return WriteString(Text::FromTemplate(PrintNumber(key)));
      default:
        return Fail(absl::StrCat("tojson: a key of type ", key.TypeName(), " is not possible in JSON"));
    }
  }

  absl::Status WriteList(const std::vector<Value>& items) {
    if (items.empty()) {
      out_.Append("[]");
      return absl::OkStatus();
    }
    out_.Append("[");
    ++level_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      StartItem(/*is_first=*/i == 0);
      CADRE_RETURN_IF_ERROR(Write(items[i]));
    }
    --level_;
    NewLine();
    out_.Append("]");
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict) {
    if (dict.size() == 0) {
      out_.Append("{}");
      return absl::OkStatus();
    }
    std::vector<Dict::Entry> entries = dict.entries();
    if (style_.sort_keys) CADRE_RETURN_IF_ERROR(SortByKeyInPlace(runtime_, /*is_reversed=*/false, &entries));
    out_.Append("{");
    ++level_;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      StartItem(/*is_first=*/i == 0);
      CADRE_RETURN_IF_ERROR(WriteKey(entries[i].first));
      out_.Append(style_.key_separator);
      CADRE_RETURN_IF_ERROR(Write(entries[i].second));
    }
    --level_;
    NewLine();
    out_.Append("}");
    return absl::OkStatus();
  }

  void StartItem(bool is_first) {
    if (!is_first) out_.Append(style_.item_separator);
    NewLine();
  }

  void NewLine() {
    if (!style_.indent.has_value()) return;
    out_.Append("\n");
    for (int i = 0; i < level_; ++i) out_.Append(*style_.indent);
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  Text out_;
  int level_ = 0;
};

}  // namespace

absl::StatusOr<Text> WriteJson(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  CADRE_RETURN_IF_ERROR(writer.Write(value));
  return writer.Take();
}

}  // namespace cadre::jinja
