#ifndef CADRE_ENGINE_TEXT_JINJA_LITERAL_H_
#define CADRE_ENGINE_TEXT_JINJA_LITERAL_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja/lexer.h"

namespace cadre::jinja {

// The value of what stands between the quotes of a string: Python's escapes (\n, \x41, \u00e9, \101, ...); an unknown
// one stays as it is. FAILED_PRECONDITION for one that is cut short, is no character, or is named (\N{...}).
absl::StatusOr<std::string> UnescapeString(std::string_view body);

// Size of the number at the head of `text`, which starts with a digit, and its value in `token`. 42, 1_000, 0x1F, 0o17,
// 0b101 are integers, 1.5, 1e3, 1_0.5e-7 are floats. FAILED_PRECONDITION when an integer does not fit into 64 bits.
// With `integer_only`, what follows the digits is left alone.
absl::StatusOr<std::size_t> ReadNumber(std::string_view text, bool integer_only, Token* token);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_LITERAL_H_
