#ifndef CADRE_ENGINE_TEXT_JINJA_PRINT_H_
#define CADRE_ENGINE_TEXT_JINJA_PRINT_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/text.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// Appends what Python's str() makes of the value, with the marks of the strings in it. Undefined prints nothing.
// RESOURCE_EXHAUSTED, before anything is made, when there is more to print than the runtime allows.
absl::Status AppendString(Runtime& runtime, const Value& value, Text* out);
// What repr() makes of it: strings in quotes.
absl::Status AppendRepr(Runtime& runtime, const Value& value, Text* out);
// str() as a text of its own.
absl::StatusOr<Text> ToText(Runtime& runtime, const Value& value);

// repr() of a float: the shortest digits that read back as the same number.
std::string PrintFloat(double value);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_PRINT_H_
