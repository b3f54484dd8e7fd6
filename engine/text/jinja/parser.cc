#include "engine/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/expression_parser.h"
#include "engine/text/jinja/lexer.h"
#include "engine/text/jinja/token_stream.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

using Kind = Statement::Kind;
using Type = Token::Type;
using StatementPointer = std::unique_ptr<const Statement>;

// Tags of Jinja and its usual extensions that are left out: each reaches for other templates or for what chat templates
// are not rendered with.
constexpr std::string_view kUnsupportedTags[] = {"autoescape", "block",  "debug",   "do",   "extends",
                                                 "from",       "import", "include", "trans"};
// Names that no assignment may change.
constexpr std::string_view kReservedNames[] = {"true", "false", "none", "True", "False", "None"};

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : stream_(std::move(tokens)), expressions_(&stream_) {}

  absl::StatusOr<Body> Run() {
    CADRE_ASSIGN_OR_RETURN(Body body, ParseBody({}));
    CADRE_RETURN_IF_ERROR(expressions_.UnknownError());
    return body;
  }

 private:
  // Statements up to a tag named in `ends`, whose name is then the current token; up to the end when there are none.
  absl::StatusOr<Body> ParseBody(std::initializer_list<std::string_view> ends) {
    CADRE_RETURN_IF_ERROR(stream_.Enter());
    const int first_line = stream_.line();
    Body body;
    while (stream_.current().type != Type::kEnd) {
      if (stream_.current().type == Type::kBlockBegin && stream_.next().type == Type::kName &&
          IsOneOf(stream_.next().text, ends)) {
        stream_.Take();
        stream_.Leave();
        return body;
      }
      CADRE_ASSIGN_OR_RETURN(StatementPointer statement, ParseStatement());
      body.push_back(std::move(statement));
    }
    stream_.Leave();
    if (ends.size() == 0) return body;
    return stream_.Error(absl::StrCat("a tag is not closed: expected ", absl::StrJoin(ToStrings(ends), " or ")),
                         first_line);
  }

  static std::vector<std::string> ToStrings(std::initializer_list<std::string_view> names) {
    return {names.begin(), names.end()};
  }

  // The rest of an opening tag, the body, and the closing tag.
  absl::StatusOr<Body> ParseBlock(std::string_view end) {
    CADRE_RETURN_IF_ERROR(EndTag());
    CADRE_ASSIGN_OR_RETURN(Body body, ParseBody({end}));
    stream_.Take();
    CADRE_RETURN_IF_ERROR(EndTag());
    return body;
  }

  // The end of a tag, with the colon before it that Jinja allows.
  absl::Status EndTag() {
    stream_.SkipOperator(":");
    if (stream_.current().type != Type::kBlockEnd) {
      return stream_.Error(absl::StrCat("expected the end of the tag, found ", Describe()));
    }
    stream_.Take();
    return absl::OkStatus();
  }

  std::string Describe() const { return TokenStream::Describe(stream_.current()); }

  static StatementPointer Make(Statement statement) { return std::make_unique<const Statement>(std::move(statement)); }

  absl::StatusOr<StatementPointer> ParseStatement() {
    Statement statement;
    const Token& token = stream_.Take();
    statement.line = token.line;
    if (token.type == Type::kData) {
      statement.text = token.text;
    } else if (token.type == Type::kVariableBegin) {
      statement.kind = Kind::kOutput;
      CADRE_ASSIGN_OR_RETURN(statement.expression, expressions_.ParseTuple());
      if (stream_.current().type != Type::kVariableEnd) {
        return stream_.Error(absl::StrCat("expected '}}', found ", Describe()));
      }
      stream_.Take();
    } else {
      if (stream_.current().type != Type::kName) {
        return stream_.Error(absl::StrCat("expected the name of a tag, found ", Describe()));
      }
      CADRE_RETURN_IF_ERROR(ParseTag(stream_.Take(), &statement));
    }
    return Make(std::move(statement));
  }

  absl::Status ParseTag(const Token& tag, Statement* statement) {
    if (tag.text == "if") return ParseIf(statement);
    if (tag.text == "for") return ParseFor(statement);
    if (tag.text == "set") return ParseSet(statement);
    if (tag.text == "macro") return ParseMacro(statement);
    if (tag.text == "call") return ParseCallBlock(statement);
    if (tag.text == "filter") return ParseFilterBlock(statement);
    if (tag.text == "with") return ParseWith(statement);
    if (tag.text == "generation") return ParseGeneration(statement);
    if (tag.text == "print") return ParsePrint(statement);
    if (tag.text == "break" || tag.text == "continue") return ParseLoopControl(tag, statement);
    const auto* unsupported = std::find(std::begin(kUnsupportedTags), std::end(kUnsupportedTags), tag.text);
    if (unsupported != std::end(kUnsupportedTags)) {
      return stream_.Unsupported(absl::StrCat("the tag '", tag.text, "'"), tag.line);
    }
    return stream_.Error(absl::StrCat("unknown tag ", Quoted(tag.text)), tag.line);
  }

  absl::Status ParseIf(Statement* statement) {
    const std::size_t num_unknown = expressions_.num_unknown();
    CADRE_RETURN_IF_ERROR(ParseBranches(statement));
    expressions_.ForgiveUnknown(num_unknown);
    return absl::OkStatus();
  }

  absl::Status ParseBranches(Statement* statement) {
    statement->kind = Kind::kIf;
    while (true) {
      Branch branch;
      CADRE_ASSIGN_OR_RETURN(branch.condition, expressions_.ParseTuple(/*with_conditional=*/false));
      CADRE_RETURN_IF_ERROR(EndTag());
      CADRE_ASSIGN_OR_RETURN(branch.body, ParseBody({"elif", "else", "endif"}));
      statement->branches.push_back(std::move(branch));
      const std::string next = stream_.Take().text;
      if (next == "elif") continue;
      if (next == "else") {
        Branch otherwise;
        CADRE_ASSIGN_OR_RETURN(otherwise.body, ParseBlock("endif"));
        statement->branches.push_back(std::move(otherwise));
        return absl::OkStatus();
      }
      return EndTag();
    }
  }

  absl::Status ParseFor(Statement* statement) {
    statement->kind = Kind::kFor;
    CADRE_ASSIGN_OR_RETURN(statement->target, ParseTarget(/*with_attribute=*/false));
    if (!stream_.SkipName("in")) return stream_.Error(absl::StrCat("expected 'in', found ", Describe()));
    CADRE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple(/*with_conditional=*/false));
    if (stream_.SkipName("if")) {
      CADRE_ASSIGN_OR_RETURN(statement->condition, expressions_.ParseExpression());
    }
    statement->is_recursive = stream_.SkipName("recursive");
    CADRE_RETURN_IF_ERROR(EndTag());
    ++loop_depth_;
    CADRE_ASSIGN_OR_RETURN(statement->body, ParseBody({"else", "endfor"}));
    --loop_depth_;
    if (stream_.Take().text == "endfor") return EndTag();
    CADRE_ASSIGN_OR_RETURN(statement->otherwise, ParseBlock("endfor"));
    return absl::OkStatus();
  }

  absl::Status ParseLoopControl(const Token& tag, Statement* statement) {
    if (loop_depth_ == 0) return stream_.Error(absl::StrCat("'", tag.text, "' outside of a for loop"), tag.line);
    statement->kind = tag.text == "break" ? Kind::kBreak : Kind::kContinue;
    return EndTag();
  }

  absl::Status ParseSet(Statement* statement) {
    CADRE_ASSIGN_OR_RETURN(statement->target, ParseTarget(/*with_attribute=*/true));
    if (stream_.SkipOperator("=")) {
      statement->kind = Kind::kSet;
      CADRE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple());
      return EndTag();
    }
    statement->kind = Kind::kSetBlock;
    if (stream_.current().IsOperator("|")) {
      CADRE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseFilterChain());
    }
    CADRE_ASSIGN_OR_RETURN(statement->body, ParseScopedBlock("endset"));
    return absl::OkStatus();
  }

  // A block whose body is a function of its own in Jinja: break and continue do not reach out of it.
  absl::StatusOr<Body> ParseScopedBlock(std::string_view end) {
    const int loop_depth = std::exchange(loop_depth_, 0);
    CADRE_ASSIGN_OR_RETURN(Body body, ParseBlock(end));
    loop_depth_ = loop_depth;
    return body;
  }

  absl::Status ParseSignature(MacroDefinition* macro) {
    CADRE_RETURN_IF_ERROR(stream_.ExpectOperator("("));
    while (!stream_.current().IsOperator(")")) {
      Parameter parameter;
      CADRE_ASSIGN_OR_RETURN(parameter.name, ParseTargetName());
      if (stream_.SkipOperator("=")) {
        CADRE_ASSIGN_OR_RETURN(parameter.default_value, expressions_.ParseExpression());
      } else if (!macro->parameters.empty() && macro->parameters.back().default_value != nullptr) {
        return stream_.Error("a parameter without a default behind one with a default");
      }
      macro->parameters.push_back(std::move(parameter));
      if (!stream_.SkipOperator(",")) break;
    }
    return stream_.ExpectOperator(")");
  }

  // The body of a macro or call block, and which special names it uses.
  absl::Status ParseMacroBody(std::string_view end, MacroDefinition* macro) {
    ExpressionParser::NamesSeen outer = expressions_.TakeNamesSeen();
    CADRE_ASSIGN_OR_RETURN(Body body, ParseScopedBlock(end));
    const ExpressionParser::NamesSeen seen = expressions_.TakeNamesSeen();
    macro->body = std::make_shared<const Body>(std::move(body));
    macro->uses_varargs = seen.varargs;
    macro->uses_kwargs = seen.kwargs;
    macro->uses_caller = seen.caller;
    expressions_.AddNamesSeen(outer);
    return absl::OkStatus();
  }

  absl::Status ParseMacro(Statement* statement) {
    statement->kind = Kind::kMacro;
    CADRE_ASSIGN_OR_RETURN(statement->macro.name, ParseTargetName());
    CADRE_RETURN_IF_ERROR(ParseSignature(&statement->macro));
    return ParseMacroBody("endmacro", &statement->macro);
  }

  absl::Status ParseCallBlock(Statement* statement) {
    statement->kind = Kind::kCall;
    statement->macro.name = "caller";
    if (stream_.current().IsOperator("(")) CADRE_RETURN_IF_ERROR(ParseSignature(&statement->macro));
    CADRE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseExpression());
    if (statement->expression->kind != Expression::Kind::kCall) {
      return stream_.Error("expected the call of a macro in a call block");
    }
    return ParseMacroBody("endcall", &statement->macro);
  }

  absl::Status ParseFilterBlock(Statement* statement) {
    statement->kind = Kind::kFilter;
    CADRE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseFilterChain());
    CADRE_ASSIGN_OR_RETURN(statement->body, ParseScopedBlock("endfilter"));
    return absl::OkStatus();
  }

  absl::Status ParseWith(Statement* statement) {
    statement->kind = Kind::kWith;
    while (stream_.current().type != Type::kBlockEnd && !stream_.current().IsOperator(":")) {
      CADRE_ASSIGN_OR_RETURN(Target target, ParseTargetItem(/*with_attribute=*/false));
      CADRE_RETURN_IF_ERROR(stream_.ExpectOperator("="));
      CADRE_ASSIGN_OR_RETURN(ExpressionPointer value, expressions_.ParseExpression());
      statement->assignments.emplace_back(std::move(target), std::move(value));
      if (!stream_.SkipOperator(",")) break;
    }
    CADRE_ASSIGN_OR_RETURN(statement->body, ParseBlock("endwith"));
    return absl::OkStatus();
  }

  absl::Status ParseGeneration(Statement* statement) {
    statement->kind = Kind::kScope;
    CADRE_ASSIGN_OR_RETURN(statement->body, ParseScopedBlock("endgeneration"));
    return absl::OkStatus();
  }

  absl::Status ParsePrint(Statement* statement) {
    statement->kind = Kind::kOutput;
    CADRE_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseExpression());
    if (stream_.current().IsOperator(",")) {
      return stream_.Unsupported("a print tag with several values", stream_.line());
    }
    return EndTag();
  }

  absl::StatusOr<std::string> ParseTargetName() {
    const Token& token = stream_.current();
    if (token.type != Type::kName) return stream_.Error(absl::StrCat("expected a name, found ", Describe()));
    if (std::find(std::begin(kReservedNames), std::end(kReservedNames), token.text) != std::end(kReservedNames)) {
      return stream_.Error(absl::StrCat("cannot assign to ", token.text));
    }
    return stream_.Take().text;
  }

  absl::StatusOr<Target> ParseTargetItem(bool with_attribute) {
    Target target;
    if (stream_.SkipOperator("(")) {
      CADRE_RETURN_IF_ERROR(stream_.Enter());
      CADRE_ASSIGN_OR_RETURN(target, ParseTarget(with_attribute));
      stream_.Leave();
      CADRE_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
      return target;
    }
    CADRE_ASSIGN_OR_RETURN(target.name, ParseTargetName());
    if (with_attribute && stream_.SkipOperator(".")) {
      if (stream_.current().type != Type::kName) return stream_.Error("expected an attribute behind '.'");
      target.attribute = stream_.Take().text;
    }
    return target;
  }

  // One target, or several with commas between them.
  absl::StatusOr<Target> ParseTarget(bool with_attribute) {
    CADRE_ASSIGN_OR_RETURN(Target first, ParseTargetItem(with_attribute));
    if (!stream_.current().IsOperator(",")) return first;
    Target tuple;
    tuple.several.push_back(std::move(first));
    while (stream_.SkipOperator(",")) {
      const Token& token = stream_.current();
      if (token.IsName("in") || token.IsOperator("=") || token.IsOperator(")")) break;
      CADRE_ASSIGN_OR_RETURN(Target item, ParseTargetItem(with_attribute));
      tuple.several.push_back(std::move(item));
    }
    return tuple;
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  int loop_depth_ = 0;  // for loops around, up to the next function body
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the template has ", source.size(), " bytes, the limit is ", kMaxTemplateBytes));
  }
  if (!IsValidUtf8(source)) return absl::InvalidArgumentError("the template is not valid UTF-8");
  CADRE_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace cadre::jinja
