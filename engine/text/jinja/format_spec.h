#ifndef CADRE_ENGINE_TEXT_JINJA_FORMAT_SPEC_H_
#define CADRE_ENGINE_TEXT_JINJA_FORMAT_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/text.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// The most characters that a width or precision may ask for.
inline constexpr std::int64_t kMaxFormatWidth = 10'000;

// How one value is printed, by either of Python's two ways of formatting.
struct FormatSpec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '=' (between sign and digits), or '\0': the value's own
  char sign = '-';    // '-', '+' or ' '
  bool has_comma = false;
  bool is_alternate = false;  // "0x" before hexadecimal digits
  std::int64_t width = 0;
  std::optional<std::int64_t> precision;
  char type = '\0';
};

// The value as the spec prints it. An error when its type is not for values of this kind.
absl::StatusOr<Text> PrintFormatted(Runtime& runtime, const Value& value, const FormatSpec& spec);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_FORMAT_SPEC_H_
