#ifndef CADRE_ENGINE_TEXT_JINJA_SEQUENCE_FUNCTIONS_H_
#define CADRE_ENGINE_TEXT_JINJA_SEQUENCE_FUNCTIONS_H_

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/text.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// The items as strings with `separator` between them.
absl::StatusOr<Value> JoinTexts(Runtime& runtime, const std::vector<Value>& items, const Text& separator);

// A key and what is ordered by it.
using KeyedItem = std::pair<Value, Value>;
// Orders `items` by key; equal ones keep their order, also when reversed. After an error their order is any.
absl::Status SortByKeyInPlace(Runtime& runtime, bool is_reversed, std::vector<KeyedItem>* items);
// The same, and leaves the keys away.
absl::StatusOr<std::vector<Value>> SortByKey(Runtime& runtime, std::vector<KeyedItem> items, bool is_reversed);

// A string in lower case, anything else as it is: what sort and its kin compare unless told to mind the case.
absl::StatusOr<Value> IgnoreCase(Runtime& runtime, const Value& value);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_SEQUENCE_FUNCTIONS_H_
