#ifndef CADRE_ENGINE_TEXT_JINJA_OPERATORS_H_
#define CADRE_ENGINE_TEXT_JINJA_OPERATORS_H_

#include "absl/status/statusor.h"
#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// a + b and its kin, as Python computes them, but on integers of 64 bits: a result beyond them is an error.
absl::StatusOr<Value> ApplyBinary(Runtime& runtime, BinaryOperator binary, const Value& a, const Value& b);
absl::StatusOr<Value> Negate(const Value& value);

// a < b, a in b and their kin.
absl::StatusOr<bool> Compare(Runtime& runtime, CompareOperator comparison, const Value& a, const Value& b);
// a < b. An error for values that have no order.
absl::StatusOr<bool> Less(Runtime& runtime, const Value& a, const Value& b);
absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_OPERATORS_H_
