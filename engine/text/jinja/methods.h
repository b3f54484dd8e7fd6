#ifndef CADRE_ENGINE_TEXT_JINJA_METHODS_H_
#define CADRE_ENGINE_TEXT_JINJA_METHODS_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/text/jinja/object.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// A method of a type: what Python's method of that name does.
using Method = absl::StatusOr<Value> (*)(Runtime& runtime, const Value& self, const Arguments& arguments);

// Null when the type has none of that name.
Method FindStringMethod(std::string_view name);
Method FindSequenceMethod(std::string_view name);
Method FindDictMethod(std::string_view name);

// The method of whatever type `self` has; null when there is none.
Method FindMethod(const Value& self, std::string_view name);
inline bool HasMethod(const Value& self, std::string_view name) { return FindMethod(self, name) != nullptr; }

// A method that was taken off its value without being called: {% set strip = text.strip %}.
class BoundMethod final : public Object {
 public:
  BoundMethod(Value self, std::string name) : self_(std::move(self)), name_(std::move(name)) {}
  std::string_view TypeName() const override { return "method"; }
  bool is_callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override {
    return FindMethod(self_, name_)(runtime, self_, arguments);
  }

 private:
  const Value self_;
  const std::string name_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_METHODS_H_
