#ifndef CADRE_ENGINE_TEXT_JINJA_ACCESS_H_
#define CADRE_ENGINE_TEXT_JINJA_ACCESS_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// object.name: a method or attribute, else the item of that name, else undefined. An error on an undefined object.
absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name);
// object[key]: the item, else the method or attribute of that name, else undefined.
absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& key);

// object[start:stop:step]; each bound is an integer, None or undefined.
struct SliceBounds {
  Value start = Value::None();
  Value stop = Value::None();
  Value step = Value::None();
};
absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& object, const SliceBounds& bounds);

// What a for loop walks through: items, keys of a dict, characters of a string, nothing of an undefined value.
absl::StatusOr<std::vector<Value>> Iterate(Runtime& runtime, const Value& value);

// len(value).
absl::StatusOr<std::int64_t> Length(Runtime& runtime, const Value& value);

// Where the characters of `text` begin, and where the last one ends.
std::vector<std::size_t> CharacterBounds(std::string_view text);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_ACCESS_H_
