#include "engine/text/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/string_functions.h"

namespace cadre::jinja {
namespace {

std::string_view SignOf(BinaryOperator binary) {
  switch (binary) {
    case BinaryOperator::kAdd:
      return "+";
    case BinaryOperator::kSubtract:
      return "-";
    case BinaryOperator::kMultiply:
      return "*";
    case BinaryOperator::kDivide:
      return "/";
    case BinaryOperator::kFloorDivide:
      return "//";
    case BinaryOperator::kModulo:
      return "%";
    case BinaryOperator::kPower:
      return "**";
  }
  return "";
}

absl::Status Overflow() { return Fail("the result does not fit into 64 bits"); }
absl::Status DivisionByZero() { return Fail("division by zero"); }

absl::StatusOr<Value> PowerOfIntegers(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return DivisionByZero();
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  std::int64_t result = 1;
  while (true) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent == 0) return Value::Integer(result);
    if (__builtin_mul_overflow(base, base, &base)) return Overflow();
  }
}

// Rounds toward minus infinity, as Python's // does; the remainder has the divisor's sign.
absl::StatusOr<Value> DivideIntegers(BinaryOperator binary, std::int64_t a, std::int64_t b) {
  if (b == 0) return DivisionByZero();
  if (b == -1) {
    if (binary == BinaryOperator::kModulo) return Value::Integer(0);
    std::int64_t negated = 0;
    if (__builtin_sub_overflow(std::int64_t{0}, a, &negated)) return Overflow();
    return Value::Integer(negated);
  }
  const std::int64_t remainder = a % b;
  const bool is_adjusted = remainder != 0 && (remainder < 0) != (b < 0);
  if (binary == BinaryOperator::kModulo) return Value::Integer(is_adjusted ? remainder + b : remainder);
  return Value::Integer(a / b - (is_adjusted ? 1 : 0));
}

absl::StatusOr<Value> ApplyToIntegers(BinaryOperator binary, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (binary) {
    case BinaryOperator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return Value::Integer(result);
    case BinaryOperator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow();
      return Value::Integer(result);
    case BinaryOperator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return Value::Integer(result);
    case BinaryOperator::kDivide:
      if (b == 0) return DivisionByZero();
      return Value::Float(static_cast<double>(a) / static_cast<double>(b));
    case BinaryOperator::kFloorDivide:
    case BinaryOperator::kModulo:
      return DivideIntegers(binary, a, b);
    case BinaryOperator::kPower:
      return PowerOfIntegers(a, b);
  }
  return Overflow();
}

double FloorModulo(double a, double b) {
  const double remainder = std::fmod(a, b);
  if (remainder == 0) return std::copysign(0.0, b);
  return (remainder < 0) != (b < 0) ? remainder + b : remainder;
}

absl::StatusOr<Value> PowerOfFloats(double a, double b) {
  if (a == 0 && b < 0) return DivisionByZero();
  const double power = std::pow(a, b);
  if (std::isnan(power) && !std::isnan(a) && !std::isnan(b)) return Fail("the power is a complex number");
  if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) return Fail("the power is too large for a float");
  return Value::Float(power);
}

absl::StatusOr<Value> ApplyToFloats(BinaryOperator binary, double a, double b) {
  switch (binary) {
    case BinaryOperator::kAdd:
      return Value::Float(a + b);
    case BinaryOperator::kSubtract:
      return Value::Float(a - b);
    case BinaryOperator::kMultiply:
      return Value::Float(a * b);
    case BinaryOperator::kDivide:
      if (b == 0) return DivisionByZero();
      return Value::Float(a / b);
    case BinaryOperator::kFloorDivide:
      if (b == 0) return DivisionByZero();
      return Value::Float(std::floor((a - FloorModulo(a, b)) / b + 0.5));
    case BinaryOperator::kModulo:
      if (b == 0) return DivisionByZero();
      return Value::Float(FloorModulo(a, b));
    case BinaryOperator::kPower:
      return PowerOfFloats(a, b);
  }
  return Overflow();
}

absl::StatusOr<Value> Concatenate(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string()) {
    CADRE_RETURN_IF_ERROR(runtime.CheckSize(a.text().size() + b.text().size()));
    Text text = a.text();
    text.Append(b.text());
    return runtime.NewString(std::move(text));
  }
  std::vector<Value> items = a.sequence().items();
  const std::vector<Value>& more = b.sequence().items();
  CADRE_RETURN_IF_ERROR(runtime.Charge(items.size() + more.size()));
  items.insert(items.end(), more.begin(), more.end());
  return a.sequence().type() == SequenceType::kTuple ? Value::Tuple(std::move(items)) : Value::List(std::move(items));
}

absl::StatusOr<Value> Repeat(Runtime& runtime, const Value& value, std::int64_t times) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  const std::size_t size = value.is_string() ? value.text().size() : value.sequence().items().size();
  const std::size_t limit = runtime.limits().output_bytes;
  if (size > 0 && count > limit / size) return runtime.CheckSize(limit + 1);
  CADRE_RETURN_IF_ERROR(value.is_string() ? runtime.ChargeBytes(size * count) : runtime.Charge(size * count));
  if (value.is_string()) {
    Text text;
    for (std::size_t i = 0; size > 0 && i < count; ++i) text.Append(value.text());
    return Value::String(std::move(text));
  }
  std::vector<Value> items;
  const std::vector<Value>& part = value.sequence().items();
  for (std::size_t i = 0; size > 0 && i < count; ++i) items.insert(items.end(), part.begin(), part.end());
  return value.sequence().type() == SequenceType::kTuple ? Value::Tuple(std::move(items))
                                                         : Value::List(std::move(items));
}

bool IsRepeatable(const Value& value) {
  return value.is_string() || (value.is_sequence() && value.sequence().has_places());
}

bool CanConcatenate(const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) return true;
  return a.is_sequence() && b.is_sequence() && a.sequence().has_places() && a.sequence().type() == b.sequence().type();
}

absl::StatusOr<bool> IsLess(const Value& a, const Value& b);

absl::StatusOr<bool> IsLess(const std::vector<Value>& a, const std::vector<Value>& b) {
  const auto [left, right] = std::mismatch(a.begin(), a.end(), b.begin(), b.end(), Equal);
  if (left == a.end() || right == b.end()) return right != b.end();
  return IsLess(*left, *right);
}

absl::StatusOr<bool> IsLess(const Value& a, const Value& b) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  // UTF-8 sorts like the characters it spells.
  if (a.is_string() && b.is_string()) return a.bytes() < b.bytes();
  if (CanConcatenate(a, b)) return IsLess(a.sequence().items(), b.sequence().items());
  return Fail(absl::StrCat("a ", a.TypeName(), " and a ", b.TypeName(), " have no order"));
}

}  // namespace

absl::StatusOr<Value> ApplyBinary(Runtime& runtime, BinaryOperator binary, const Value& a, const Value& b) {
  if (a.is_undefined()) return UndefinedError(a);
  if (binary == BinaryOperator::kModulo && a.is_string()) return FormatPercent(runtime, a.text(), b);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return ApplyToIntegers(binary, a.integer(), b.integer());
    return ApplyToFloats(binary, a.number(), b.number());
  }
  if (binary == BinaryOperator::kAdd && CanConcatenate(a, b)) return Concatenate(runtime, a, b);
  if (binary == BinaryOperator::kMultiply) {
    if (IsRepeatable(a) && b.is_integral()) return Repeat(runtime, a, b.integer());
    if (IsRepeatable(b) && a.is_integral()) return Repeat(runtime, b, a.integer());
  }
  return Fail(
      absl::StrCat("'", ToAbsl(SignOf(binary)), "' is not possible between ", a.TypeName(), " and ", b.TypeName()));
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_float()) return Value::Float(-value.number());
  if (!value.is_integral()) return Fail(absl::StrCat("a ", value.TypeName(), " has no negative"));
  return ApplyToIntegers(BinaryOperator::kSubtract, 0, value.integer());
}

absl::StatusOr<bool> Less(Runtime& runtime, const Value& a, const Value& b) {
  CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(a, b));
  return IsLess(a, b);
}

absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (item.is_undefined()) return UndefinedError(item);
    if (!item.is_string()) {
      return Fail(absl::StrCat("'in' a str takes a str, not a ", item.TypeName()));
    }
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(container.text().size()));
    return FindText(container.bytes(), item.bytes()) != std::string::npos;
  }
  if (container.is_dict()) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeWalk(item));
    CADRE_ASSIGN_OR_RETURN(const Value* found, container.dict().Find(item));
    return found != nullptr;
  }
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, container));
  for (const Value& other : items) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(item, other));
    if (Equal(item, other)) return true;
  }
  return false;
}

absl::StatusOr<bool> Compare(Runtime& runtime, CompareOperator comparison, const Value& a, const Value& b) {
  switch (comparison) {
    case CompareOperator::kEqual:
    case CompareOperator::kNotEqual:
      CADRE_RETURN_IF_ERROR(runtime.ChargeComparison(a, b));
      return Equal(a, b) == (comparison == CompareOperator::kEqual);
    case CompareOperator::kLess:
      return Less(runtime, a, b);
    case CompareOperator::kGreater:
      return Less(runtime, b, a);
    case CompareOperator::kLessEqual:
    case CompareOperator::kGreaterEqual: {
      const bool is_less_equal = comparison == CompareOperator::kLessEqual;
      CADRE_ASSIGN_OR_RETURN(const bool is_less, is_less_equal ? Less(runtime, a, b) : Less(runtime, b, a));
      return is_less || Equal(a, b);
    }
    case CompareOperator::kIn:
      return Contains(runtime, b, a);
    case CompareOperator::kNotIn: {
      CADRE_ASSIGN_OR_RETURN(const bool is_in, Contains(runtime, b, a));
      return !is_in;
    }
  }
  return false;
}

}  // namespace cadre::jinja
