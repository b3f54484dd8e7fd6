// What stands behind an operand: attributes, subscripts, calls, filters and tests.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/expression_parser.h"
#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/type_tests.h"

namespace cadre::jinja {
namespace {

using Kind = Expression::Kind;
using Type = Token::Type;

// Whether a test takes what follows as its argument without parentheses: "is divisibleby 3".
bool StartsArgument(const Token& token) {
  switch (token.type) {
    case Type::kName:
      return token.text != "else" && token.text != "or" && token.text != "and";
    case Type::kString:
    case Type::kInteger:
    case Type::kFloat:
      return true;
    case Type::kOperator:
      return token.text == "(" || token.text == "[" || token.text == "{";
    default:
      return false;
  }
}

}  // namespace

absl::StatusOr<ExpressionPointer> ExpressionParser::ParsePostfix(ExpressionPointer expression) {
  while (true) {
    if (stream_.current().IsOperator(".")) {
      CADRE_ASSIGN_OR_RETURN(expression, ParseAttribute(std::move(expression)));
    } else if (stream_.current().IsOperator("[")) {
      CADRE_ASSIGN_OR_RETURN(expression, ParseSubscript(std::move(expression)));
    } else if (stream_.current().IsOperator("(")) {
      CADRE_ASSIGN_OR_RETURN(expression, ParseCall(std::move(expression)));
    } else {
      return expression;
    }
  }
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseFiltersAndTests(ExpressionPointer expression) {
  while (true) {
    if (stream_.SkipOperator("|")) {
      CADRE_ASSIGN_OR_RETURN(expression, ParseFilter(std::move(expression)));
    } else if (stream_.SkipName("is")) {
      CADRE_ASSIGN_OR_RETURN(expression, ParseTest(std::move(expression)));
    } else if (stream_.current().IsOperator("(")) {
      CADRE_ASSIGN_OR_RETURN(expression, ParseCall(std::move(expression)));
    } else {
      return expression;
    }
  }
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseFilterChain() {
  if (!stream_.current().IsOperator("|")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer filter, ParseFilter(nullptr));
    while (stream_.SkipOperator("|")) {
      CADRE_ASSIGN_OR_RETURN(filter, ParseFilter(std::move(filter)));
    }
    return filter;
  }
  ExpressionPointer filter;
  while (stream_.SkipOperator("|")) {
    CADRE_ASSIGN_OR_RETURN(filter, ParseFilter(std::move(filter)));
  }
  return filter;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseAttribute(ExpressionPointer object) {
  Expression expression;
  expression.line = stream_.Take().line;
  const Token& token = stream_.Take();
  expression.operands.push_back(std::move(object));
  if (token.type == Type::kName) {
    expression.kind = Kind::kAttribute;
    expression.name = token.text;
    return Finish(std::move(expression));
  }
  if (token.type != Type::kInteger) return stream_.Error("expected a name or a number behind '.'", token.line);
  Expression key;
  key.line = token.line;
  key.constant = Value::Integer(token.integer);
  expression.kind = Kind::kItem;
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer key_pointer, Finish(std::move(key)));
  expression.operands.push_back(std::move(key_pointer));
  return Finish(std::move(expression));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseSubscript(ExpressionPointer object) {
  const int line = stream_.Take().line;
  std::vector<ExpressionPointer> operands;
  operands.push_back(std::move(object));
  if (!stream_.current().IsOperator(":")) {
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer key, ParseTuple());
    operands.push_back(std::move(key));
    if (stream_.SkipOperator("]")) return MakeNode(Kind::kItem, line, std::move(operands));
  } else {
    operands.emplace_back();
  }
  constexpr std::size_t kSliceOperands = 4;  // the object, start, stop, step
  while (operands.size() < kSliceOperands && stream_.SkipOperator(":")) {
    if (stream_.current().IsOperator(":") || stream_.current().IsOperator("]")) {
      operands.emplace_back();
      continue;
    }
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer bound, ParseExpression());
    operands.push_back(std::move(bound));
  }
  CADRE_RETURN_IF_ERROR(stream_.ExpectOperator("]"));
  operands.resize(kSliceOperands);
  return MakeNode(Kind::kSlice, line, std::move(operands));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseCall(ExpressionPointer callee) {
  Expression expression;
  expression.kind = Kind::kCall;
  expression.line = stream_.line();
  expression.operands.push_back(std::move(callee));
  CADRE_ASSIGN_OR_RETURN(expression.arguments, ParseArguments());
  return Finish(std::move(expression));
}

absl::StatusOr<CallArguments> ExpressionParser::ParseArguments() {
  CADRE_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  CallArguments arguments;
  while (!stream_.current().IsOperator(")")) {
    CADRE_RETURN_IF_ERROR(ParseArgument(&arguments));
    if (!stream_.SkipOperator(",")) break;
  }
  CADRE_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
  return arguments;
}

absl::Status ExpressionParser::ParseArgument(CallArguments* arguments) {
  absl::Status misplaced = stream_.Error("an argument is not possible at this place of a call");
  const bool is_list = stream_.SkipOperator("*");
  const bool is_dict = !is_list && stream_.SkipOperator("**");
  if (arguments->star_star != nullptr || (is_list && arguments->star != nullptr)) return misplaced;
  std::string name;
  if (!is_list && !is_dict && stream_.current().type == Type::kName && stream_.next().IsOperator("=")) {
    name = stream_.Take().text;
    stream_.Take();
  }
  const bool is_positional = !is_list && !is_dict && name.empty();
  if (is_positional && (arguments->star != nullptr || !arguments->named.empty())) return misplaced;
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer value, ParseExpression());
  if (is_list) {
    arguments->star = std::move(value);
  } else if (is_dict) {
    arguments->star_star = std::move(value);
  } else if (is_positional) {
    arguments->positional.push_back(std::move(value));
  } else {
    arguments->named.emplace_back(std::move(name), std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExpressionParser::ParseDottedName(std::string_view what) {
  std::string name;
  do {
    if (stream_.current().type != Type::kName) {
      return stream_.Error(
          absl::StrCat("expected the name of a ", ToAbsl(what), ", found ", TokenStream::Describe(stream_.current())));
    }
    absl::StrAppend(&name, name.empty() ? "" : ".", stream_.Take().text);
  } while (stream_.SkipOperator("."));
  return name;
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseFilter(ExpressionPointer input) {
  Expression expression;
  expression.kind = Kind::kFilter;
  expression.line = stream_.line();
  CADRE_ASSIGN_OR_RETURN(expression.name, ParseDottedName("filter"));
  if (FindFilter(expression.name) == nullptr) {
    unknown_.push_back(stream_.Unsupported(absl::StrCat("the filter ", Quoted(expression.name)), expression.line));
  }
  if (stream_.current().IsOperator("(")) {
    CADRE_ASSIGN_OR_RETURN(expression.arguments, ParseArguments());
  }
  expression.operands.push_back(std::move(input));
  return Finish(std::move(expression));
}

absl::StatusOr<ExpressionPointer> ExpressionParser::ParseTest(ExpressionPointer input) {
  Expression expression;
  expression.kind = Kind::kTest;
  expression.line = stream_.line();
  const bool is_negated = stream_.SkipName("not");
  CADRE_ASSIGN_OR_RETURN(expression.name, ParseDottedName("test"));
  if (FindTest(expression.name) == nullptr) {
    unknown_.push_back(stream_.Unsupported(absl::StrCat("the test ", Quoted(expression.name)), expression.line));
  }
  if (stream_.current().IsOperator("(")) {
    CADRE_ASSIGN_OR_RETURN(expression.arguments, ParseArguments());
  } else if (StartsArgument(stream_.current())) {
    if (stream_.current().IsName("is")) return stream_.Error("tests cannot be chained with 'is'");
    CADRE_ASSIGN_OR_RETURN(ExpressionPointer argument, ParsePrimary());
    CADRE_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    expression.arguments.positional.push_back(std::move(argument));
  }
  const int line = expression.line;
  expression.operands.push_back(std::move(input));
  CADRE_ASSIGN_OR_RETURN(ExpressionPointer test, Finish(std::move(expression)));
  if (!is_negated) return test;
  std::vector<ExpressionPointer> operands;
  operands.push_back(std::move(test));
  return MakeNode(Kind::kNot, line, std::move(operands));
}

}  // namespace cadre::jinja
