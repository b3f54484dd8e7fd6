#include "engine/text/jinja/expression_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre::jinja {
namespace {

using Kind = Expression::Kind;
using Type = Token::Type;

template <typename... Pointers>
std::vector<ExpressionPointer> Operands(Pointers... pointers) {
  std::vector<ExpressionPointer> operands;
  (operands.push_back(std::move(pointers)), ...);
  return operands;
}

std::optional<CompareOperator> ToCompareOperator(const Token& token) {
  if (token.type != Type::kOperator) return std::nullopt;
  if (token.text == "==") return CompareOperator::kEqual;
  if (token.text == "!=") return CompareOperator::kNotEqual;
  if (token.text == "<") return CompareOperator::kLess;
  if (token.text == "<=") return CompareOperator::kLessEqual;
  if (token.text == ">") return CompareOperator::kGreater;
  if (token.text == ">=") return CompareOperator::kGreaterEqual;
  return std::nullopt;
}

// The level of ~, between + - and * / // %, has no operator of its own here: its operands make one node.
constexpr int kAdditive = 0;
constexpr int kConcat = 1;
constexpr int kMultiplicative = 2;
constexpr int kPower = 3;

std::optional<BinaryOperator> ToBinaryOperator(const Token& token, int level) {
  if (token.type != Type::kOperator) return std::nullopt;
  if (level == kAdditive && token.text == "+") return BinaryOperator::kAdd;
  if (level == kAdditive && token.text == "-") return BinaryOperator::kSubtract;
  if (level == kMultiplicative && token.text == "*") return BinaryOperator::kMultiply;
  if (level == kMultiplicative && token.text == "/") return BinaryOperator::kDivide;
  if (level == kMultiplicative && token.text == "//") return BinaryOperator::kFloorDivide;
  if (level == kMultiplicative && token.text == "%") return BinaryOperator::kModulo;
  if (level == kPower && token.text == "**") return BinaryOperator::kPower;
  return std::nullopt;
}

}  // namespace

absl::StatusOr<ExpressionPointer> ExpressionParser::Finish(Expression expression) const {
  int depth = 0;
  const auto measure = [&depth](const ExpressionPointer& child) {
    if (child != nullptr) depth = std::max(depth, child->depth);
  };
  for (const ExpressionPointer& operand : expression.operands) measure(operand);
  for (const ExpressionPointer& argument : expression.arguments.positional) measure(argument);
  for (const auto& [name, argument] : expression.arguments.named) measure(argument);
  measure(expression.arguments.star);
  measure(expression.arguments.star_star);
  expression.depth = depth + 1;
  if (expression.depth > kMaxParseDepth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("line ", expression.line, ": an expression of more than ", kMaxParseDepth, " levels, the limit"));
  }
  return std::make_unique<const Expression>(std::move(expression));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::MakeNode(Kind kind, int line,
                                                             std::vector<ExpressionPointer> operands) const {
  Expression expression;
  expression.kind = kind;
  expression.line = line;
  expression.operands = std::move(operands);
  return Finish(std::move(expression));
}

ExpressionParser::NamesSeen ExpressionParser::TakeNamesSeen() { return std::exchange(names_seen_, {}); }

void ExpressionParser::AddNamesSeen(const NamesSeen& names) {
  names_seen_.varargs |= names.varargs;
  names_seen_.kwargs |= names.kwargs;
  names_seen_.caller |= names.caller;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseExpression(bool with_conditional) {
  CADRE_RETURN_IF_ERROR(stream_.Enter());
  int line = stream_.line();
  const std::size_t num_unknown = unknown_.size();
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer expression, ParseOr());
  while (with_conditional && stream_.SkipName("if")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer condition, ParseOr());
    ExpressionPointer otherwise;
    if (stream_.SkipName("else")) {
      CADRE_ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    CADRE_ASSIGN_OR_RETURN(expression,
                           MakeNode(Kind::kConditional, line,
                                    Operands(std::move(condition), std::move(expression), std::move(otherwise))));
    ForgiveUnknown(num_unknown);
    line = stream_.line();
  }
  stream_.Leave();
  return expression;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseTuple(bool with_conditional) {
  const int line = stream_.line();
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer first, ParseExpression(with_conditional));
  if (!stream_.current().IsOperator(",")) return first;
  std::vector<ExpressionPointer> items = Operands(std::move(first));
  while (stream_.SkipOperator(",")) {
    const Token& token = stream_.current();
    if (token.type == Type::kBlockEnd || token.type == Type::kVariableEnd || token.IsOperator(")")) break;
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer item, ParseExpression(with_conditional));
    items.push_back(std::move(item));
  }
  return MakeNode(Kind::kTuple, line, std::move(items));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseOr() {
  const int line = stream_.line();
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer left, ParseAnd());
  while (stream_.SkipName("or")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer right, ParseAnd());
    CADRE_ASSIGN_OR_RETURN(left, MakeNode(Kind::kOr, line, Operands(std::move(left), std::move(right))));
  }
  return left;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseAnd() {
  const int line = stream_.line();
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer left, ParseNot());
  while (stream_.SkipName("and")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer right, ParseNot());
    CADRE_ASSIGN_OR_RETURN(left, MakeNode(Kind::kAnd, line, Operands(std::move(left), std::move(right))));
  }
  return left;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseNot() {
  const int line = stream_.line();
  if (!stream_.SkipName("not")) return ParseCompare();
  CADRE_RETURN_IF_ERROR(stream_.Enter());
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer operand, ParseNot());
  stream_.Leave();
  return MakeNode(Kind::kNot, line, Operands(std::move(operand)));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseCompare() {
  Expression compare;
  compare.kind = Kind::kCompare;
  compare.line = stream_.line();
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer operand, ParseBinary(kAdditive));
  while (true) {
    if (const auto comparison = ToCompareOperator(stream_.current()); comparison.has_value()) {
      stream_.Take();
      compare.comparisons.push_back(*comparison);
    } else if (stream_.SkipName("in")) {
      compare.comparisons.push_back(CompareOperator::kIn);
    } else if (stream_.current().IsName("not") && stream_.next().IsName("in")) {
      stream_.Take();
      stream_.Take();
      compare.comparisons.push_back(CompareOperator::kNotIn);
    } else {
      break;
    }
    compare.operands.push_back(std::move(operand));
    CADRE_ASSIGN_OR_RETURN(operand, ParseBinary(kAdditive));
  }
  if (compare.comparisons.empty()) return operand;
  compare.operands.push_back(std::move(operand));
  return Finish(std::move(compare));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseBinary(int level) {
  if (level > kPower) return ParseUnary(/*with_filters=*/true);
  const int line = stream_.line();
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer left, ParseBinary(level + 1));
  if (level == kConcat && stream_.current().IsOperator("~")) {
    std::vector<ExpressionPointer> parts = Operands(std::move(left));
    while (stream_.SkipOperator("~")) {
      CADRE_ASSIGN_OR_RETURN(ExpressionPointer part, ParseBinary(level + 1));
      parts.push_back(std::move(part));
    }
    return MakeNode(Kind::kConcat, line, std::move(parts));
  }
  for (auto binary = ToBinaryOperator(stream_.current(), level); binary.has_value();
       binary = ToBinaryOperator(stream_.current(), level)) {
    stream_.Take();
    Expression expression;
    expression.kind = Kind::kBinary;
    expression.line = line;
    expression.binary = *binary;
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer right, ParseBinary(level + 1));
    expression.operands = Operands(std::move(left), std::move(right));
    CADRE_ASSIGN_OR_RETURN(left, Finish(std::move(expression)));
  }
  return left;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseUnary(bool with_filters) {
  CADRE_RETURN_IF_ERROR(stream_.Enter());
  const int line = stream_.line();
  ExpressionPointer expression;
  if (stream_.SkipOperator("-")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer operand, ParseUnary(/*with_filters=*/false));
    CADRE_ASSIGN_OR_RETURN(expression, MakeNode(Kind::kNegate, line, Operands(std::move(operand))));
  } else if (stream_.SkipOperator("+")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer operand, ParseUnary(/*with_filters=*/false));
    CADRE_ASSIGN_OR_RETURN(expression, MakeNode(Kind::kPlus, line, Operands(std::move(operand))));
  } else {
    CADRE_ASSIGN_OR_RETURN(expression, ParsePrimary());
  }
  CADRE_ASSIGN_OR_RETURN(expression, ParsePostfix(std::move(expression)));
  if (with_filters) {
    CADRE_ASSIGN_OR_RETURN(expression, ParseFiltersAndTests(std::move(expression)));
  }
  stream_.Leave();
  return expression;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParsePrimary() {
  const Token& token = stream_.current();
  if (token.IsOperator("(")) return ParseParentheses();
  if (token.IsOperator("[")) return ParseList();
  if (token.IsOperator("{")) return ParseDict();
  return ParseConstantOrName();
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseConstantOrName() {
  Expression expression;
  expression.line = stream_.line();
  const Token& token = stream_.current();
  switch (token.type) {
    case Type::kInteger:
      expression.constant = Value::Integer(token.integer);
      break;
    case Type::kFloat:
      expression.constant = Value::Float(token.number);
      break;
    case Type::kString: {
      std::string text = token.text;
      while (stream_.next().type == Type::kString) {
        stream_.Take();
        text += stream_.current().text;
      }
      expression.constant = Value::String(text);
      break;
    }
    case Type::kName:
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        expression.constant = Value::Boolean(token.text == "true" || token.text == "True");
      } else if (token.text == "none" || token.text == "None") {
        expression.constant = Value::None();
      } else {
        expression.kind = Kind::kName;
        expression.name = token.text;
        names_seen_.varargs |= token.text == "varargs";
        names_seen_.kwargs |= token.text == "kwargs";
        names_seen_.caller |= token.text == "caller";
      }
      break;
    default:
      return stream_.Error(absl::StrCat("expected an expression, found ", TokenStream::Describe(token)));
  }
  stream_.Take();
  return Finish(std::move(expression));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseParentheses() {
  const int line = stream_.line();
  stream_.Take();
  if (stream_.SkipOperator(")")) return MakeNode(Kind::kTuple, line, {});
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer inside, ParseTuple());
  CADRE_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  return inside;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseList() {
  const int line = stream_.line();
  stream_.Take();
  std::vector<ExpressionPointer> items;
  while (!stream_.current().IsOperator("]")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer item, ParseExpression());
    items.push_back(std::move(item));
    if (!stream_.SkipOperator(",")) break;
  }
  CADRE_RETURN_IF_ERROR(stream_.ExpectOperator("]"));
  return MakeNode(Kind::kList, line, std::move(items));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseDict() {
  const int line = stream_.line();
  stream_.Take();
  std::vector<ExpressionPointer> items;
  while (!stream_.current().IsOperator("}")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer key, ParseExpression());
    CADRE_RETURN_IF_ERROR(stream_.ExpectOperator(":"));
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer value, ParseExpression());
    items.push_back(std::move(key));
    items.push_back(std::move(value));
    if (!stream_.SkipOperator(",")) break;
  }
  CADRE_RETURN_IF_ERROR(stream_.ExpectOperator("}"));
  return MakeNode(Kind::kDict, line, std::move(items));
}

}  // namespace cadre::jinja
