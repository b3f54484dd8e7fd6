#ifndef CADRE_ENGINE_TEXT_JINJA_INTERPRETER_H_
#define CADRE_ENGINE_TEXT_JINJA_INTERPRETER_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/scope.h"
#include "engine/text/jinja/value.h"

namespace cadre::jinja {

// Walks through a template once and writes its text. Errors are those of runtime.h.
class Interpreter {
 public:
  // `variables` are what the caller gives the template; both must outlive the interpreter.
  Interpreter(Runtime* runtime, const Dict* variables)
      : runtime_(*runtime), variables_(*variables), scope_(std::make_shared<Scope>(nullptr)) {}

  absl::StatusOr<Text> Run(const Body& body);

  // Line of the innermost part that failed; 0 when nothing did.
  int error_line() const { return error_line_; }

  // The text of a macro that is called with `arguments`, seen from the scope where it was defined.
  absl::StatusOr<Value> CallMacro(const MacroDefinition& macro, const std::shared_ptr<const Scope>& definition_scope,
                                  const Arguments& arguments);

  // The text of a recursive loop that is called with what to walk through, inside `depth` others, seen from the scope
  // where its statement stands.
  absl::StatusOr<Value> CallLoop(const Statement& statement, const std::shared_ptr<Scope>& definition_scope,
                                 const Value& iterable, int depth);

 private:
  // How the statements of a body ended.
  enum class Flow { kNext, kBreak, kContinue };

  // Statements, in execute.cc.
  absl::StatusOr<Flow> Execute(const Body& body);
  absl::StatusOr<Flow> ExecuteStatement(const Statement& statement);
  absl::StatusOr<Flow> Dispatch(const Statement& statement);
  absl::StatusOr<Flow> ExecuteIf(const Statement& statement);
  absl::StatusOr<Flow> ExecuteFor(const Statement& statement);
  // The loop over `iterable`, inside `depth` others of the same statement.
  absl::StatusOr<Flow> ExecuteLoop(const Statement& statement, const Value& iterable, int depth);
  absl::Status ExecuteTurns(const Statement& statement, std::vector<Value> items, int depth);
  absl::StatusOr<std::vector<Value>> FilterItems(const Statement& statement, std::vector<Value> items);
  absl::Status ExecuteSet(const Statement& statement);
  absl::Status ExecuteCall(const Statement& statement);
  absl::StatusOr<Flow> ExecuteWith(const Statement& statement);
  absl::Status DefineMacro(const Statement& statement);
  absl::Status Write(const Text& text);
  absl::Status Assign(const Target& target, const Value& value);
  // The text of a body in a scope of its own.
  absl::StatusOr<Value> Capture(const Body& body);
  absl::StatusOr<Value> ApplyFilterChain(const Expression& filter, const Value& input);

  // Expressions, in evaluate.cc.
  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> Compute(const Expression& expression);
  absl::StatusOr<Value> ComputeName(const Expression& expression);
  absl::StatusOr<Value> ComputeDict(const Expression& expression);
  absl::StatusOr<Value> ComputeConditional(const Expression& expression);
  absl::StatusOr<Value> ComputeCompare(const Expression& expression);
  absl::StatusOr<Value> ComputeConcat(const Expression& expression);
  absl::StatusOr<Value> ComputeSlice(const Expression& expression);
  absl::StatusOr<Value> ComputeCall(const Expression& expression, const Value* caller);
  absl::StatusOr<Value> CallMethodOf(const Value& object, const Expression& callee, const Arguments& arguments);
  absl::StatusOr<Value> ComputeFilter(const Expression& expression, const Value& input);
  absl::StatusOr<Value> ComputeTest(const Expression& expression);
  absl::StatusOr<std::vector<Value>> EvaluateAll(const std::vector<ExpressionPointer>& expressions);
  absl::StatusOr<Arguments> EvaluateArguments(const CallArguments& call);

  // Macro calls, in macro.cc.
  absl::Status BindParameters(const MacroDefinition& macro, const Arguments& arguments);

  // Enters `scope` for as long as it lives.
  class ScopeGuard {
   public:
    ScopeGuard(Interpreter* interpreter, std::shared_ptr<Scope> scope)
        : interpreter_(*interpreter), outer_(std::exchange(interpreter->scope_, std::move(scope))) {}
    ~ScopeGuard() { interpreter_.scope_ = std::move(outer_); }
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    Interpreter& interpreter_;
    std::shared_ptr<Scope> outer_;
  };
  std::shared_ptr<Scope> NewScope() const { return std::make_shared<Scope>(scope_); }

  Runtime& runtime_;
  const Dict& variables_;
  std::shared_ptr<Scope> scope_;
  Text* out_ = nullptr;  // where text goes now
  int error_line_ = 0;
};

// A macro, or the body of a call block, as a value.
class Macro final : public Object {
 public:
  Macro(Interpreter* interpreter, const MacroDefinition* definition, std::shared_ptr<const Scope> scope)
      : interpreter_(*interpreter), definition_(*definition), scope_(std::move(scope)) {}
  std::string_view TypeName() const override { return "Macro"; }
  bool is_callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& /*runtime*/, const Arguments& arguments) override {
    return interpreter_.CallMacro(definition_, scope_, arguments);
  }
  std::optional<Value> Attribute(std::string_view name) override;

 private:
  Interpreter& interpreter_;
  const MacroDefinition& definition_;
  const std::shared_ptr<const Scope> scope_;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_INTERPRETER_H_
