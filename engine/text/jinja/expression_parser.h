#ifndef CADRE_ENGINE_TEXT_JINJA_EXPRESSION_PARSER_H_
#define CADRE_ENGINE_TEXT_JINJA_EXPRESSION_PARSER_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/token_stream.h"

namespace cadre::jinja {

// Reads expressions by operator precedence, from low to high:
//
//   a if b else c · or · and · not · == != < > <= >= in, not in · + - · ~ · * / // % · ** · unary - + · . [] () · | is
//
// Filters and tests bind tighter than anything but attributes and calls, and a minus sign takes its operand without
// them: -1|abs is 1. INVALID_ARGUMENT, UNIMPLEMENTED and RESOURCE_EXHAUSTED as in token_stream.h; a filter or test that
// does not exist is UNIMPLEMENTED, unless it stands where it may never be reached: in a branch of an if.
class ExpressionParser {
 public:
  // What the names of an expression say about the macro around it.
  struct NamesSeen {
    bool varargs = false;
    bool kwargs = false;
    bool caller = false;
  };

  explicit ExpressionParser(TokenStream* stream) : stream_(*stream) {}

  absl::StatusOr<ExpressionPointer> ParseExpression(bool with_conditional = true);
  // One expression, or several with commas between them, which make a tuple.
  absl::StatusOr<ExpressionPointer> ParseTuple(bool with_conditional = true);
  // A chain of filters whose first input is not written: "| upper | trim", or "upper | trim" without the first bar.
  absl::StatusOr<ExpressionPointer> ParseFilterChain();

  // Filters and tests that do not exist, so far. Forgive takes back those behind the first `count`: they stand in a
  // branch, and are errors only when they are reached.
  std::size_t num_unknown() const { return unknown_.size(); }
  void ForgiveUnknown(std::size_t count) { unknown_.resize(count); }
  // The error of the first one that was not forgiven.
  absl::Status UnknownError() const { return unknown_.empty() ? absl::OkStatus() : unknown_.front(); }

  // Special names since the last call.
  NamesSeen TakeNamesSeen();
  // As if these had been seen, too.
  void AddNamesSeen(const NamesSeen& names);

 private:
  absl::StatusOr<ExpressionPointer> ParseOr();
  absl::StatusOr<ExpressionPointer> ParseAnd();
  absl::StatusOr<ExpressionPointer> ParseNot();
  absl::StatusOr<ExpressionPointer> ParseCompare();
  // Left-associative operators, `level` from 0 (+ -) to 3 (**).
  absl::StatusOr<ExpressionPointer> ParseBinary(int level);
  absl::StatusOr<ExpressionPointer> ParseUnary(bool with_filters);
  absl::StatusOr<ExpressionPointer> ParsePrimary();
  absl::StatusOr<ExpressionPointer> ParseConstantOrName();
  absl::StatusOr<ExpressionPointer> ParseParentheses();
  absl::StatusOr<ExpressionPointer> ParseList();
  absl::StatusOr<ExpressionPointer> ParseDict();
  absl::StatusOr<ExpressionPointer> ParsePostfix(ExpressionPointer expression);
  absl::StatusOr<ExpressionPointer> ParseFiltersAndTests(ExpressionPointer expression);
  absl::StatusOr<ExpressionPointer> ParseAttribute(ExpressionPointer object);
  absl::StatusOr<ExpressionPointer> ParseSubscript(ExpressionPointer object);
  absl::StatusOr<ExpressionPointer> ParseCall(ExpressionPointer callee);
  absl::StatusOr<ExpressionPointer> ParseFilter(ExpressionPointer input);
  absl::StatusOr<ExpressionPointer> ParseTest(ExpressionPointer input);
  absl::StatusOr<CallArguments> ParseArguments();
  absl::Status ParseArgument(CallArguments* arguments);
  absl::StatusOr<std::string> ParseDottedName(std::string_view what);

  // The finished node, its depth measured and checked.
  absl::StatusOr<ExpressionPointer> Finish(Expression expression) const;
  absl::StatusOr<ExpressionPointer> MakeNode(Expression::Kind kind, int line,
                                             std::vector<ExpressionPointer> operands) const;

  TokenStream& stream_;
  NamesSeen names_seen_;
  std::vector<absl::Status> unknown_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_EXPRESSION_PARSER_H_
