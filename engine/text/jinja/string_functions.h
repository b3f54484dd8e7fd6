#ifndef CADRE_ENGINE_TEXT_JINJA_STRING_FUNCTIONS_H_
#define CADRE_ENGINE_TEXT_JINJA_STRING_FUNCTIONS_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/text.h"

namespace cadre::jinja {

// Python's string functions on marked text, for methods and filters alike.

Text Upper(const Text& text);
Text Lower(const Text& text);
Text Capitalize(const Text& text);  // first letter in title case, the rest lower
Text Title(const Text& text);       // the same for every run of letters
Text SwapCase(const Text& text);
Text CaseFold(const Text& text);  // for comparing without case

enum class Side { kLeft, kRight, kBoth };
// Without the characters of `characters`, or white space when it is absent, at the given side.
Text Strip(const Text& text, std::optional<std::string_view> characters, Side side);

// Where `what` stands in `text`, at `from` or behind it; npos when it does not. Time is linear in both.
std::size_t FindText(std::string_view text, std::string_view what, std::size_t from = 0);
// The last place where it stands.
std::size_t FindLastText(std::string_view text, std::string_view what);

// At most `count` replacements; all when it is negative. An empty `from` matches between all characters.
absl::StatusOr<Text> Replace(Runtime& runtime, const Text& text, std::string_view from, const Text& to,
                             std::int64_t count);

// The parts between separators, at most `max_splits` cuts (all when negative), from the given end. An absent separator
// means white space, and no part is empty.
std::vector<Text> Split(const Text& text, std::optional<std::string_view> separator, std::int64_t max_splits,
                        Side from);
std::vector<Text> SplitLines(const Text& text, bool keep_ends);

// `width` and the result count characters.
Text Pad(const Text& text, std::int64_t left, std::int64_t right, const Text& fill);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_STRING_FUNCTIONS_H_
