#ifndef CADRE_ENGINE_TEXT_JINJA_ATTRIBUTE_PATH_H_
#define CADRE_ENGINE_TEXT_JINJA_ATTRIBUTE_PATH_H_

#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// The argument `attribute` of filters: a name, "a.b.0", an integer, or nothing, which leads to the value itself.
class AttributePath {
 public:
  // `attribute` may be null.
  static absl::StatusOr<AttributePath> Parse(Runtime& runtime, const Value* attribute);

  // What the path leads to from `item`; `fallback`, unless null or None, stands in wherever it is undefined.
  absl::StatusOr<Value> Follow(Runtime& runtime, const Value& item, const Value* fallback = nullptr) const;

 private:
  std::vector<Value> keys_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_ATTRIBUTE_PATH_H_
