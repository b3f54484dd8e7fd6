// Expressions.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/globals.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/print.h"
#include "engine/text/jinja/type_tests.h"

namespace cadre::jinja {

using Kind = Expression::Kind;

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression) {
  const Level level(&runtime_);
  absl::StatusOr<Value> value = level.status().ok() ? Compute(expression) : level.status();
  if (value.ok() && value->depth() > kMaxValueDepth) {
    value = absl::ResourceExhaustedError(
        absl::StrCat("a value of more than ", kMaxValueDepth, " lists and dicts inside each other, the limit"));
  }
  if (!value.ok() && error_line_ == 0) error_line_ = expression.line;
  return value;
}

absl::StatusOr<Value> Interpreter::Compute(const Expression& expression) {
  const auto& operands = expression.operands;
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return ComputeName(expression);
    case Kind::kList: {
      CADRE_ASSIGN_OR_RETURN(std::vector<Value> items, EvaluateAll(operands));
      return Value::List(std::move(items));
    }
    case Kind::kTuple: {
      CADRE_ASSIGN_OR_RETURN(std::vector<Value> items, EvaluateAll(operands));
      return Value::Tuple(std::move(items));
    }
    case Kind::kDict:
      return ComputeDict(expression);
    case Kind::kConditional:
      return ComputeConditional(expression);
    case Kind::kOr:
    case Kind::kAnd: {
      CADRE_ASSIGN_OR_RETURN(Value left, Evaluate(*operands[0]));
      if (left.IsTrue() == (expression.kind == Kind::kOr)) return left;
      return Evaluate(*operands[1]);
    }
    case Kind::kNot: {
      CADRE_ASSIGN_OR_RETURN(const Value operand, Evaluate(*operands[0]));
      return Value::Boolean(!operand.IsTrue());
    }
    case Kind::kNegate: {
      CADRE_ASSIGN_OR_RETURN(const Value operand, Evaluate(*operands[0]));
      return Negate(operand);
    }
    case Kind::kPlus: {
      CADRE_ASSIGN_OR_RETURN(const Value operand, Evaluate(*operands[0]));
      if (operand.is_undefined()) return UndefinedError(operand);
      if (!operand.is_number()) return Fail(absl::StrCat("'+' before a ", operand.TypeName()));
      return operand.is_boolean() ? Value::Integer(operand.integer()) : operand;
    }
    case Kind::kCompare:
      return ComputeCompare(expression);
    case Kind::kBinary: {
      CADRE_ASSIGN_OR_RETURN(const Value left, Evaluate(*operands[0]));
      CADRE_ASSIGN_OR_RETURN(const Value right, Evaluate(*operands[1]));
      return ApplyBinary(runtime_, expression.binary, left, right);
    }
    case Kind::kConcat:
      return ComputeConcat(expression);
    case Kind::kAttribute: {
      CADRE_ASSIGN_OR_RETURN(const Value object, Evaluate(*operands[0]));
      return GetAttribute(runtime_, object, expression.name);
    }
    case Kind::kItem: {
      CADRE_ASSIGN_OR_RETURN(const Value object, Evaluate(*operands[0]));
      CADRE_ASSIGN_OR_RETURN(const Value key, Evaluate(*operands[1]));
      return GetItem(runtime_, object, key);
    }
    case Kind::kSlice:
      return ComputeSlice(expression);
    case Kind::kCall:
      return ComputeCall(expression, /*caller=*/nullptr);
    case Kind::kFilter: {
      CADRE_ASSIGN_OR_RETURN(const Value input, Evaluate(*operands[0]));
      return ComputeFilter(expression, input);
    }
    case Kind::kTest:
      return ComputeTest(expression);
  }
  return Fail("an expression of an unknown kind");
}

absl::StatusOr<Value> Interpreter::ComputeName(const Expression& expression) {
  if (const Value* const variable = scope_->Find(expression.name); variable != nullptr) return *variable;
  if (const Value* const variable = variables_.Find(expression.name); variable != nullptr) return *variable;
  if (const std::optional<Value> global = FindGlobal(runtime_, expression.name); global.has_value()) return *global;
  return Value::Undefined(absl::StrCat("'", expression.name, "' is undefined"));
}

absl::StatusOr<std::vector<Value>> Interpreter::EvaluateAll(const std::vector<ExpressionPointer>& expressions) {
  std::vector<Value> values;
  values.reserve(expressions.size());
  for (const ExpressionPointer& expression : expressions) {
    CADRE_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  return values;
}

absl::StatusOr<Value> Interpreter::ComputeDict(const Expression& expression) {
  Dict dict;
  for (std::size_t i = 0; i + 1 < expression.operands.size(); i += 2) {
    CADRE_ASSIGN_OR_RETURN(Value key, Evaluate(*expression.operands[i]));
    CADRE_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i + 1]));
    CADRE_RETURN_IF_ERROR(runtime_.ChargeWalk(key));
    CADRE_RETURN_IF_ERROR(dict.Set(std::move(key), std::move(value)));
  }
  return Value::Mapping(std::move(dict));
}

absl::StatusOr<Value> Interpreter::ComputeConditional(const Expression& expression) {
  CADRE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expression.operands[0]));
  if (condition.IsTrue()) return Evaluate(*expression.operands[1]);
  if (expression.operands[2] != nullptr) return Evaluate(*expression.operands[2]);
  return Value::Undefined("the value of an 'if' without 'else' whose condition is false");
}

absl::StatusOr<Value> Interpreter::ComputeCompare(const Expression& expression) {
  CADRE_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0]));
  for (std::size_t i = 0; i < expression.comparisons.size(); ++i) {
    CADRE_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1]));
    CADRE_ASSIGN_OR_RETURN(const bool holds, Compare(runtime_, expression.comparisons[i], left, right));
    if (!holds) return Value::Boolean(false);
    left = std::move(right);
  }
  return Value::Boolean(true);
}

absl::StatusOr<Value> Interpreter::ComputeConcat(const Expression& expression) {
  Text text;
  for (const ExpressionPointer& operand : expression.operands) {
    CADRE_ASSIGN_OR_RETURN(const Value part, Evaluate(*operand));
    CADRE_RETURN_IF_ERROR(AppendString(runtime_, part, &text));
  }
  return runtime_.NewString(std::move(text));
}

absl::StatusOr<Value> Interpreter::ComputeSlice(const Expression& expression) {
  CADRE_ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.operands[0]));
  SliceBounds bounds;
  Value* const places[] = {&bounds.start, &bounds.stop, &bounds.step};
  for (std::size_t i = 0; i < 3; ++i) {
    if (expression.operands[i + 1] == nullptr) continue;
    CADRE_ASSIGN_OR_RETURN(*places[i], Evaluate(*expression.operands[i + 1]));
  }
  return GetSlice(runtime_, object, bounds);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const CallArguments& call) {
  Arguments arguments;
  CADRE_ASSIGN_OR_RETURN(arguments.positional, EvaluateAll(call.positional));
  for (const auto& [name, expression] : call.named) {
    CADRE_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    arguments.named.emplace_back(Text::FromTemplate(name), std::move(value));
  }
  if (call.star != nullptr) {
    CADRE_ASSIGN_OR_RETURN(const Value list, Evaluate(*call.star));
    CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime_, list));
    arguments.positional.insert(arguments.positional.end(), items.begin(), items.end());
  }
  if (call.star_star != nullptr) {
    CADRE_ASSIGN_OR_RETURN(const Value dict, Evaluate(*call.star_star));
    if (!dict.is_dict()) return Fail(absl::StrCat("'**' takes a dict, not a ", dict.TypeName()));
    for (const auto& [key, value] : dict.dict().entries()) {
      if (!key.is_string()) return Fail("'**' takes a dict whose keys are strings");
      CADRE_RETURN_IF_ERROR(runtime_.ChargeBytes(key.text().size()));
      arguments.named.emplace_back(key.text(), value);
    }
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::ComputeCall(const Expression& expression, const Value* caller) {
  const Expression& callee = *expression.operands[0];
  if (callee.kind == Kind::kAttribute) {
    CADRE_ASSIGN_OR_RETURN(const Value object, Evaluate(*callee.operands[0]));
    if (object.is_undefined()) return UndefinedError(object);
    CADRE_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression.arguments));
    if (caller != nullptr) arguments.named.emplace_back(Text::FromTemplate("caller"), *caller);
    return CallMethodOf(object, callee, arguments);
  }
  CADRE_ASSIGN_OR_RETURN(const Value function, Evaluate(callee));
  CADRE_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression.arguments));
  if (caller != nullptr) arguments.named.emplace_back(Text::FromTemplate("caller"), *caller);
  if (function.is_undefined()) return UndefinedError(function);
  if (!function.is_object()) return Fail(absl::StrCat("a ", function.TypeName(), " cannot be called"));
  return function.object().Call(runtime_, arguments);
}

absl::StatusOr<Value> Interpreter::CallMethodOf(const Value& object, const Expression& callee,
                                                const Arguments& arguments) {
  if (const Method method = FindMethod(object, callee.name); method != nullptr) {
    return method(runtime_, object, arguments);
  }
  if (object.is_object()) {
    CADRE_ASSIGN_OR_RETURN(std::optional<Value> result, object.object().CallMethod(runtime_, callee.name, arguments));
    if (result.has_value()) return *std::move(result);
  }
  CADRE_ASSIGN_OR_RETURN(const Value function, GetAttribute(runtime_, object, callee.name));
  if (function.is_undefined()) return UndefinedError(function);
  if (!function.is_object()) return Fail(absl::StrCat("a ", function.TypeName(), " cannot be called"));
  return function.object().Call(runtime_, arguments);
}

absl::StatusOr<Value> Interpreter::ComputeFilter(const Expression& expression, const Value& input) {
  CADRE_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression.arguments));
  const Filter filter = FindFilter(expression.name);
  if (filter == nullptr) return Fail(absl::StrCat("the filter ", Quoted(expression.name), " is not supported"));
  return filter(runtime_, input, arguments);
}

absl::StatusOr<Value> Interpreter::ComputeTest(const Expression& expression) {
  CADRE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
  CADRE_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression.arguments));
  const Test test = FindTest(expression.name);
  if (test == nullptr) return Fail(absl::StrCat("the test ", Quoted(expression.name), " is not supported"));
  CADRE_ASSIGN_OR_RETURN(const bool holds, test(runtime_, value, arguments));
  return Value::Boolean(holds);
}

}  // namespace cadre::jinja
