#ifndef CADRE_ENGINE_BASE_JSON_H_
#define CADRE_ENGINE_BASE_JSON_H_

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cadre {

// The most values (objects, arrays, strings, numbers, literals) one document may hold. The largest published
// tokenizer.json files have about two million; a parsed value costs about 100 bytes, so this bounds memory at 0.5 GiB.
inline constexpr std::size_t kMaxJsonValues = std::size_t{1} << 22;

// Parses one JSON document (RFC 8259, UTF-8) that comes from outside. `what` names the document in error messages,
// usually a file name. InvalidArgument, with the position, for: a syntax error, invalid UTF-8, trailing text, nesting
// deeper than `max_depth` containers, the same key twice in one object, more than kMaxJsonValues values. Never throws
// for bad input. Integers keep their sign and 64-bit width; anything larger becomes a double. Thread-safe.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, std::string_view what, int max_depth = 64);

// The same with the keys of each object in the order of the text, for documents where that order means something.
// Time grows with the square of an object's keys: `max_values` bounds it.
absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(std::string_view text, std::string_view what, int max_depth,
                                                        std::size_t max_values);

}  // namespace cadre

#endif  // CADRE_ENGINE_BASE_JSON_H_
