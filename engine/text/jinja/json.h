#ifndef CADRE_ENGINE_TEXT_JINJA_JSON_H_
#define CADRE_ENGINE_TEXT_JINJA_JSON_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// Lists and objects inside each other that ReadJson accepts.
inline constexpr int kMaxJsonDepth = 64;

// The value of a JSON text that a client sent: its strings and names are marked as the client's, its members keep their
// order, the last of equal names counts. INVALID_ARGUMENT, without naming the field, for anything that is not JSON in
// UTF-8, nested deeper than kMaxJsonDepth, or with whole numbers beyond 64 bits.
absl::StatusOr<Value> ReadJson(std::string_view json);

// How Python's json.dumps is called.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<Text> indent;  // of one level; absent: one line
  Text item_separator = Text::FromTemplate(", ");
  Text key_separator = Text::FromTemplate(": ");
};

// The value as JSON, with the marks of its strings.
absl::StatusOr<Text> WriteJson(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_JSON_H_
