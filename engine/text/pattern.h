#ifndef CADRE_ENGINE_TEXT_PATTERN_H_
#define CADRE_ENGINE_TEXT_PATTERN_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/json_fields.h"
#include "engine/text/regex.h"

namespace cadre {

// Compiles the "pattern" of a Split or Replace: {"String": text} or {"Regex": pattern}.
absl::StatusOr<Regex> ParsePattern(const JsonFields& fields);

// `text` with each of `matches` (in order, without overlap) replaced by `content`.
std::string ReplaceMatches(std::string_view text, const std::vector<TextSpan>& matches, std::string_view content);

}  // namespace cadre

#endif  // CADRE_ENGINE_TEXT_PATTERN_H_
