#include "engine/text/jinja/type_tests.h"

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/print.h"

namespace cadre::jinja {
namespace {

// A test of nothing but the value.
template <bool (*kIs)(const Value&)>
absl::StatusOr<bool> Is(Runtime& runtime, const Value& value, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("the test", arguments, {}).status());
  return kIs(value);
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsBoolean(const Value& value) { return value.is_boolean(); }
bool IsTrueItself(const Value& value) { return value.is_boolean() && value.boolean(); }
bool IsFalseItself(const Value& value) { return value.is_boolean() && !value.boolean(); }
bool IsInteger(const Value& value) { return value.is_integer(); }
bool IsFloat(const Value& value) { return value.is_float(); }
bool IsNumber(const Value& value) { return value.is_number(); }
bool IsString(const Value& value) { return value.is_string(); }
bool IsMapping(const Value& value) { return value.is_dict(); }
// An undefined value has the method, which then fails.
bool IsCallable(const Value& value) {
  return value.is_undefined() || (value.is_object() && value.object().is_callable());
}
bool IsIterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_sequence() || value.is_dict();
}
// Python asks for a length and for items by key, which a dict has, too.
bool IsSequence(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_dict() ||
         (value.is_sequence() && value.sequence().has_places());
}
// No string is marked as safe: nothing is escaped here.
bool IsEscaped(const Value& /*value*/) { return false; }

// str(value).islower() and str(value).isupper().
template <bool kIsUpper>
absl::StatusOr<bool> IsCase(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Method method = FindStringMethod(kIsUpper ? "isupper" : "islower");
  CADRE_ASSIGN_OR_RETURN(Text text, ToText(runtime, value));
  CADRE_ASSIGN_OR_RETURN(const Value answer, method(runtime, Value::String(std::move(text)), arguments));
  return answer.boolean();
}

template <CompareOperator kComparison>
absl::StatusOr<bool> IsCompared(Runtime& runtime, const Value& value, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("the test", arguments, {""}, 1));
  return Compare(runtime, kComparison, value, *bound[0]);
}

absl::StatusOr<bool> HasRemainder(Runtime& runtime, const Value& value, std::int64_t divisor, std::int64_t remainder) {
  CADRE_ASSIGN_OR_RETURN(const Value rest,
                         ApplyBinary(runtime, BinaryOperator::kModulo, value, Value::Integer(divisor)));
  return Equal(rest, Value::Integer(remainder));
}

absl::StatusOr<bool> IsOdd(Runtime& runtime, const Value& value, const Arguments& /*arguments*/) {
  return HasRemainder(runtime, value, 2, 1);
}

absl::StatusOr<bool> IsEven(Runtime& runtime, const Value& value, const Arguments& /*arguments*/) {
  return HasRemainder(runtime, value, 2, 0);
}

absl::StatusOr<bool> IsDivisibleBy(Runtime& runtime, const Value& value, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("divisibleby", arguments, {"num"}, 1));
  CADRE_ASSIGN_OR_RETURN(const Value rest, ApplyBinary(runtime, BinaryOperator::kModulo, value, *bound[0]));
  return Equal(rest, Value::Integer(0));
}

// Python's `is`: the same object, which for plain values means the same kind and value.
absl::StatusOr<bool> IsSameAs(Runtime& runtime, const Value& value, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("sameas", arguments, {"other"}, 1));
  const Value& other = *bound[0];
  if (value.kind() != other.kind()) return false;
  if (value.is_sequence()) return &value.sequence() == &other.sequence();
  if (value.is_dict()) return &value.dict() == &other.dict();
  CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(value, other));
  return Equal(value, other);
}

template <bool kIsFilter>
absl::StatusOr<bool> IsName(Runtime& runtime, const Value& value, const Arguments& /*arguments*/) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(1));
  if (!value.is_string()) return false;
  return kIsFilter ? FindFilter(value.bytes()) != nullptr : FindTest(value.bytes()) != nullptr;
}

using TestTable = absl::flat_hash_map<std::string_view, Test>;

const TestTable& Table() {
  static const auto* const kTable = new TestTable({
      {"!=", IsCompared<CompareOperator::kNotEqual>},
      {"<", IsCompared<CompareOperator::kLess>},
      {"<=", IsCompared<CompareOperator::kLessEqual>},
      {"==", IsCompared<CompareOperator::kEqual>},
      {">", IsCompared<CompareOperator::kGreater>},
      {">=", IsCompared<CompareOperator::kGreaterEqual>},
      {"boolean", Is<IsBoolean>},
      {"callable", Is<IsCallable>},
      {"defined", Is<IsDefined>},
      {"divisibleby", IsDivisibleBy},
      {"eq", IsCompared<CompareOperator::kEqual>},
      {"equalto", IsCompared<CompareOperator::kEqual>},
      {"escaped", Is<IsEscaped>},
      {"even", IsEven},
      {"false", Is<IsFalseItself>},
      {"filter", IsName<true>},
      {"float", Is<IsFloat>},
      {"ge", IsCompared<CompareOperator::kGreaterEqual>},
      {"greaterthan", IsCompared<CompareOperator::kGreater>},
      {"gt", IsCompared<CompareOperator::kGreater>},
      {"in", IsCompared<CompareOperator::kIn>},
      {"integer", Is<IsInteger>},
      {"iterable", Is<IsIterable>},
      {"le", IsCompared<CompareOperator::kLessEqual>},
      {"lessthan", IsCompared<CompareOperator::kLess>},
      {"lower", IsCase<false>},
      {"lt", IsCompared<CompareOperator::kLess>},
      {"mapping", Is<IsMapping>},
      {"ne", IsCompared<CompareOperator::kNotEqual>},
      {"none", Is<IsNone>},
      {"number", Is<IsNumber>},
      {"odd", IsOdd},
      {"sameas", IsSameAs},
      {"sequence", Is<IsSequence>},
      {"string", Is<IsString>},
      {"test", IsName<false>},
      {"true", Is<IsTrueItself>},
      {"undefined", Is<IsUndefined>},
      {"upper", IsCase<true>},
  });
  return *kTable;
}

}  // namespace

Test FindTest(std::string_view name) {
  const auto found = Table().find(name);
  return found == Table().end() ? nullptr : found->second;
}

}  // namespace cadre::jinja
