#include "engine/text/jinja/arguments.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/runtime.h"

namespace cadre::jinja {

absl::StatusOr<BoundArguments> BoundArguments::Bind(std::string_view what, const Arguments& arguments,
                                                    std::initializer_list<std::string_view> parameters,
                                                    std::size_t num_required) {
  BoundArguments bound(std::string(what), parameters.size());
  if (arguments.positional.size() > parameters.size()) {
    return Fail(absl::StrCat(ToAbsl(what), " takes at most ", parameters.size(), " arguments, not ",
                             arguments.positional.size()));
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) bound.values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto* const parameter = std::find(parameters.begin(), parameters.end(), name.bytes());
    if (parameter == parameters.end() || name.empty()) {
      return Fail(absl::StrCat(ToAbsl(what), " has no parameter ", Quoted(name.bytes())));
    }
    const auto place = static_cast<std::size_t>(parameter - parameters.begin());
    if (bound.values_[place] != nullptr) {
      return Fail(absl::StrCat(ToAbsl(what), " is given ", Quoted(name.bytes()), " twice"));
    }
    bound.values_[place] = &value;
  }
  for (std::size_t i = 0; i < num_required; ++i) {
    if (bound.values_[i] == nullptr) {
      return Fail(absl::StrCat(ToAbsl(what), " needs ", num_required, num_required == 1 ? " argument" : " arguments"));
    }
  }
  return bound;
}

absl::StatusOr<std::int64_t> BoundArguments::Integer(std::size_t parameter, std::int64_t fallback) const {
  if (!IsGiven(parameter)) return fallback;
  const Value& value = *values_[parameter];
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_integral()) return Fail(absl::StrCat(what_, " takes an int, not a ", value.TypeName()));
  return value.integer();
}

absl::StatusOr<std::string> BoundArguments::String(std::size_t parameter, std::string_view fallback) const {
  if (!IsGiven(parameter)) return std::string(fallback);
  const Value& value = *values_[parameter];
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_string()) return Fail(absl::StrCat(what_, " takes a str, not a ", value.TypeName()));
  return value.bytes();
}

}  // namespace cadre::jinja
