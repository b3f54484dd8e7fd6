// Calls of macros.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/interpreter.h"

namespace cadre::jinja {
namespace {

std::string Describe(const MacroDefinition& macro) { return absl::StrCat("the macro '", macro.name, "'"); }

}  // namespace

absl::StatusOr<Value> Interpreter::CallMacro(const MacroDefinition& macro,
                                             const std::shared_ptr<const Scope>& definition_scope,
                                             const Arguments& arguments) {
  const Level level(&runtime_);
  CADRE_RETURN_IF_ERROR(level.status());
  const ScopeGuard guard(this, std::make_shared<Scope>(definition_scope));
  CADRE_RETURN_IF_ERROR(BindParameters(macro, arguments));
  Text text;
  Text* const outer = std::exchange(out_, &text);
  const absl::StatusOr<Flow> flow = Execute(*macro.body);
  out_ = outer;
  CADRE_RETURN_IF_ERROR(flow.status());
  return Value::String(std::move(text));
}

absl::Status Interpreter::BindParameters(const MacroDefinition& macro, const Arguments& arguments) {
  // Each parameter looks through the named arguments.
  CADRE_RETURN_IF_ERROR(runtime_.Charge(macro.parameters.size() * (arguments.named.size() + 1)));
  const std::size_t num_places = std::min(arguments.positional.size(), macro.parameters.size());
  std::vector<std::pair<Text, Value>> named = arguments.named;
  const auto take_named = [&named](std::string_view name) -> std::optional<Value> {
    const auto found =
        std::find_if(named.begin(), named.end(), [name](const auto& n) { return n.first.bytes() == name; });
    if (found == named.end()) return std::nullopt;
    Value value = std::move(found->second);
    named.erase(found);
    return value;
  };
  bool has_caller_parameter = false;
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    has_caller_parameter |= parameter.name == "caller";
    if (i < num_places) {
      scope_->Set(parameter.name, arguments.positional[i]);
    } else if (std::optional<Value> value = take_named(parameter.name); value.has_value()) {
      scope_->Set(parameter.name, *std::move(value));
    } else if (parameter.default_value != nullptr) {
      CADRE_ASSIGN_OR_RETURN(Value fallback, Evaluate(*parameter.default_value));
      scope_->Set(parameter.name, std::move(fallback));
    } else {
      scope_->Set(parameter.name, Value::Undefined(absl::StrCat("parameter '", parameter.name, "' was not provided")));
    }
  }
  if (macro.uses_caller && !has_caller_parameter) {
    std::optional<Value> caller = take_named("caller");
    scope_->Set("caller", caller.has_value() ? *std::move(caller) : Value::Undefined("there is no caller"));
  }
  if (macro.uses_kwargs) {
    Dict kwargs;
    for (auto& [name, value] : named) {
      CADRE_RETURN_IF_ERROR(kwargs.Set(Value::String(std::move(name)), std::move(value)));
    }
    scope_->Set("kwargs", Value::Mapping(std::move(kwargs)));
  } else if (!named.empty()) {
    return Fail(absl::StrCat(Describe(macro), " has no parameter ", Quoted(named.front().first.bytes()),
                             ", or it is given twice"));
  }
  if (macro.uses_varargs) {
    scope_->Set("varargs", Value::Tuple({arguments.positional.begin() + static_cast<std::ptrdiff_t>(num_places),
                                         arguments.positional.end()}));
  } else if (arguments.positional.size() > macro.parameters.size()) {
    return Fail(absl::StrCat(Describe(macro), " takes at most ", macro.parameters.size(), " arguments, not ",
                             arguments.positional.size()));
  }
  return absl::OkStatus();
}

std::optional<Value> Macro::Attribute(std::string_view name) {
  if (name == "name") return Value::String(definition_.name);
  if (name == "arguments") {
    std::vector<Value> names;
    for (const Parameter& parameter : definition_.parameters) names.push_back(Value::String(parameter.name));
    return Value::Tuple(std::move(names));
  }
  if (name == "caller") return Value::Boolean(definition_.uses_caller);
  if (name == "catch_kwargs") return Value::Boolean(definition_.uses_kwargs);
  if (name == "catch_varargs") return Value::Boolean(definition_.uses_varargs);
  return std::nullopt;
}

}  // namespace cadre::jinja
