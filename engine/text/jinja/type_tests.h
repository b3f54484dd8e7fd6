#ifndef CADRE_ENGINE_TEXT_JINJA_TYPE_TESTS_H_
#define CADRE_ENGINE_TEXT_JINJA_TYPE_TESTS_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// What stands behind `is`: {{ value is test(arguments) }}. Each answers what Jinja's test of that name does.
using Test = absl::StatusOr<bool> (*)(Runtime& runtime, const Value& value, const Arguments& arguments);

// Null when there is none of that name.
Test FindTest(std::string_view name);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_TYPE_TESTS_H_
