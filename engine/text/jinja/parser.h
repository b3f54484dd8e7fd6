#ifndef CADRE_ENGINE_TEXT_JINJA_PARSER_H_
#define CADRE_ENGINE_TEXT_JINJA_PARSER_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja/ast.h"

namespace cadre::jinja {

// The statements of a template. Errors begin with "line N: ". INVALID_ARGUMENT: not Jinja, longer than
// kMaxTemplateBytes, or not UTF-8; UNIMPLEMENTED: Jinja, but outside of the subset (README.md), by name;
// RESOURCE_EXHAUSTED: nested deeper than kMaxParseDepth.
absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_PARSER_H_
