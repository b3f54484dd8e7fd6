#ifndef CADRE_ENGINE_TEXT_JINJA_OBJECT_H_
#define CADRE_ENGINE_TEXT_JINJA_OBJECT_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

class Runtime;

// What a call passes.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<Text, Value>> named;  // those of **dict have the dict's marks
};

// Something with a life of its own: a namespace, a macro, the `loop` of a for statement. A runtime owns them all, so
// that objects that hold each other are freed with it; values point to them.
class Object {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  virtual std::string_view TypeName() const = 0;
  virtual bool is_callable() const { return false; }

  virtual absl::StatusOr<Value> Call(Runtime& /*runtime*/, const Arguments& /*arguments*/) {
    return absl::FailedPreconditionError(absl::StrCat("a ", ToAbsl(TypeName()), " cannot be called"));
  }
  // Absent when it has no such attribute.
  virtual std::optional<Value> Attribute(std::string_view /*name*/) { return std::nullopt; }
  // Absent when it has no such method.
  virtual absl::StatusOr<std::optional<Value>> CallMethod(Runtime& /*runtime*/, std::string_view /*name*/,
                                                          const Arguments& /*arguments*/) {
    return std::nullopt;
  }
  // False when it has no attributes that can be set.
  virtual bool SetAttribute(std::string_view /*name*/, const Value& /*value*/) { return false; }
  // What a template sees that prints it.
  virtual std::string Print() const { return absl::StrCat("<", ToAbsl(TypeName()), ">"); }
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_OBJECT_H_
