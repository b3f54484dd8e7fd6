#ifndef CADRE_ENGINE_TEXT_JINJA_GLOBALS_H_
#define CADRE_ENGINE_TEXT_JINJA_GLOBALS_H_

#include <optional>
#include <string_view>

#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// What every template knows without being told: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
// Absent for any other name.
std::optional<Value> FindGlobal(Runtime& runtime, std::string_view name);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_GLOBALS_H_
