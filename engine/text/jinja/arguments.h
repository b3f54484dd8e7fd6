#ifndef CADRE_ENGINE_TEXT_JINJA_ARGUMENTS_H_
#define CADRE_ENGINE_TEXT_JINJA_ARGUMENTS_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/object.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// The arguments of a call, each at the place of its parameter. Valid as long as the call's Arguments.
class BoundArguments {
 public:
  // `what` names the callee in errors; the first `num_required` parameters must be given. A parameter named "" takes no
  // keyword.
  static absl::StatusOr<BoundArguments> Bind(std::string_view what, const Arguments& arguments,
                                             std::initializer_list<std::string_view> parameters,
                                             std::size_t num_required = 0);

  // Null when it was not given.
  const Value* operator[](std::size_t parameter) const { return values_[parameter]; }
  // The default when it was not given or is None.
  absl::StatusOr<std::int64_t> Integer(std::size_t parameter, std::int64_t fallback) const;
  absl::StatusOr<std::string> String(std::size_t parameter, std::string_view fallback) const;
  // Any value counts as true or false.
  bool Boolean(std::size_t parameter, bool fallback) const {
    return values_[parameter] == nullptr ? fallback : values_[parameter]->IsTrue();
  }
  bool IsGiven(std::size_t parameter) const { return values_[parameter] != nullptr && !values_[parameter]->is_none(); }

 private:
  BoundArguments(std::string what, std::size_t size) : what_(std::move(what)), values_(size) {}

  std::string what_;
  std::vector<const Value*> values_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_ARGUMENTS_H_
