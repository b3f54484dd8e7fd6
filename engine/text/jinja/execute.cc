// Statements.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/loop.h"
#include "engine/text/jinja/print.h"

namespace cadre::jinja {

namespace {

using Kind = Statement::Kind;

// The `loop` of {% for ... recursive %}: called, it walks through something else in the same way.
class RecursiveLoop final : public Loop {
 public:
  RecursiveLoop(Interpreter* interpreter, const Statement* statement, std::shared_ptr<Scope> scope,
                std::vector<Value> items, int depth)
      : Loop(std::move(items), depth), interpreter_(*interpreter), statement_(*statement), scope_(std::move(scope)) {}
  bool is_callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& /*runtime*/, const Arguments& arguments) override {
    CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("loop", arguments, {"iterable"}, 1));
    return interpreter_.CallLoop(statement_, scope_, *bound[0], depth() + 1);
  }

 private:
  Interpreter& interpreter_;
  const Statement& statement_;
  const std::shared_ptr<Scope> scope_;  // around the statement
};

}  // namespace

absl::StatusOr<Text> Interpreter::Run(const Body& body) {
  Text out;
  out_ = &out;
  CADRE_RETURN_IF_ERROR(Execute(body).status());
  return out;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Body& body) {
  for (const auto& statement : body) {
    CADRE_ASSIGN_OR_RETURN(const Flow flow, ExecuteStatement(*statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteStatement(const Statement& statement) {
  const Level level(&runtime_);
  absl::StatusOr<Flow> flow = level.status().ok() ? Dispatch(statement) : level.status();
  if (!flow.ok() && error_line_ == 0) error_line_ = statement.line;
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Dispatch(const Statement& statement) {
  switch (statement.kind) {
    case Kind::kData:
      CADRE_RETURN_IF_ERROR(Write(Text::FromTemplate(statement.text)));
      return Flow::kNext;
    case Kind::kOutput: {
      CADRE_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression));
      CADRE_RETURN_IF_ERROR(AppendString(runtime_, value, out_));
      return Flow::kNext;
    }
    case Kind::kIf:
      return ExecuteIf(statement);
    case Kind::kFor:
      return ExecuteFor(statement);
    case Kind::kSet:
    case Kind::kSetBlock:
      CADRE_RETURN_IF_ERROR(ExecuteSet(statement));
      return Flow::kNext;
    case Kind::kMacro:
      CADRE_RETURN_IF_ERROR(DefineMacro(statement));
      return Flow::kNext;
    case Kind::kCall:
      CADRE_RETURN_IF_ERROR(ExecuteCall(statement));
      return Flow::kNext;
    case Kind::kFilter: {
      CADRE_ASSIGN_OR_RETURN(const Value captured, Capture(statement.body));
      CADRE_ASSIGN_OR_RETURN(const Value filtered, ApplyFilterChain(*statement.expression, captured));
      CADRE_RETURN_IF_ERROR(AppendString(runtime_, filtered, out_));
      return Flow::kNext;
    }
    case Kind::kWith:
      return ExecuteWith(statement);
    case Kind::kScope: {
      const ScopeGuard guard(this, NewScope());
      return Execute(statement.body);
    }
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Fail("a statement of an unknown kind");
}

absl::Status Interpreter::Write(const Text& text) {
  CADRE_RETURN_IF_ERROR(runtime_.CheckSize(out_->size() + text.size()));
  CADRE_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
  out_->Append(text);
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition != nullptr) {
      CADRE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
      if (!condition.IsTrue()) continue;
    }
    return Execute(branch.body);
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFor(const Statement& statement) {
  CADRE_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.expression));
  return ExecuteLoop(statement, iterable, /*depth=*/0);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteLoop(const Statement& statement, const Value& iterable,
                                                           int depth) {
  CADRE_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(runtime_, iterable));
  if (statement.condition != nullptr) {
    CADRE_ASSIGN_OR_RETURN(items, FilterItems(statement, std::move(items)));
  }
  if (items.empty()) {
    const ScopeGuard guard(this, NewScope());
    return Execute(statement.otherwise);
  }
  CADRE_RETURN_IF_ERROR(ExecuteTurns(statement, std::move(items), depth));
  return Flow::kNext;
}

absl::Status Interpreter::ExecuteTurns(const Statement& statement, std::vector<Value> items, int depth) {
  Loop* const loop = statement.is_recursive
                         ? runtime_.New<RecursiveLoop>(this, &statement, scope_, std::move(items), depth)
                         : runtime_.New<Loop>(std::move(items), depth);
  std::shared_ptr<Scope> turn_scope;
  for (std::size_t turn = 0; turn < loop->items().size(); ++turn) {
    loop->MoveTo(turn);
    // A macro that was defined in the last turn keeps that turn's variables.
    if (turn_scope.use_count() == 1) {
      turn_scope->Clear();
    } else {
      turn_scope = NewScope();
    }
    const ScopeGuard guard(this, turn_scope);
    scope_->Set("loop", Value::Of(loop));
    CADRE_RETURN_IF_ERROR(Assign(statement.target, loop->items()[turn]));
    CADRE_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body));
    if (flow == Flow::kBreak) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallLoop(const Statement& statement, const std::shared_ptr<Scope>& definition_scope,
                                            const Value& iterable, int depth) {
  const Level level(&runtime_);
  CADRE_RETURN_IF_ERROR(level.status());
  // Not a scope inside it: a loop that is kept and called again would put ever more of them into each other.
  const ScopeGuard guard(this, definition_scope);
  Text text;
  Text* const outer = std::exchange(out_, &text);
  const absl::StatusOr<Flow> flow = ExecuteLoop(statement, iterable, depth);
  out_ = outer;
  CADRE_RETURN_IF_ERROR(flow.status());
  return Value::String(std::move(text));
}

absl::StatusOr<std::vector<Value>> Interpreter::FilterItems(const Statement& statement, std::vector<Value> items) {
  std::vector<Value> kept;
  for (Value& item : items) {
    const ScopeGuard guard(this, NewScope());
    CADRE_RETURN_IF_ERROR(Assign(statement.target, item));
    CADRE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.condition));
    if (condition.IsTrue()) kept.push_back(std::move(item));
  }
  return kept;
}

absl::Status Interpreter::ExecuteSet(const Statement& statement) {
  if (statement.kind == Kind::kSet) {
    CADRE_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression));
    return Assign(statement.target, value);
  }
  CADRE_ASSIGN_OR_RETURN(Value value, Capture(statement.body));
  if (statement.expression != nullptr) {
    CADRE_ASSIGN_OR_RETURN(value, ApplyFilterChain(*statement.expression, value));
  }
  return Assign(statement.target, value);
}

absl::Status Interpreter::Assign(const Target& target, const Value& value) {
  if (!target.several.empty()) {
    CADRE_ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(runtime_, value));
    if (parts.size() != target.several.size()) {
      return Fail(absl::StrCat("cannot give ", parts.size(), " values to ", target.several.size(), " names"));
    }
    for (std::size_t i = 0; i < parts.size(); ++i) CADRE_RETURN_IF_ERROR(Assign(target.several[i], parts[i]));
    return absl::OkStatus();
  }
  if (target.attribute.empty()) {
    scope_->Set(target.name, value);
    return absl::OkStatus();
  }
  const Value* object = scope_->Find(target.name);
  if (object == nullptr) object = variables_.Find(target.name);
  if (object == nullptr) return Fail(absl::StrCat("'", target.name, "' is undefined"));
  if (!object->is_object() || !object->object().SetAttribute(target.attribute, value)) {
    return Fail(absl::StrCat("cannot assign to an attribute of '", target.name, "', which is not a namespace"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::Capture(const Body& body) {
  const ScopeGuard guard(this, NewScope());
  Text text;
  Text* const outer = std::exchange(out_, &text);
  const absl::StatusOr<Flow> flow = Execute(body);
  out_ = outer;
  CADRE_RETURN_IF_ERROR(flow.status());
  return Value::String(std::move(text));
}

absl::StatusOr<Value> Interpreter::ApplyFilterChain(const Expression& filter, const Value& input) {
  const Level level(&runtime_);
  CADRE_RETURN_IF_ERROR(level.status());
  if (filter.operands[0] == nullptr) return ComputeFilter(filter, input);
  CADRE_ASSIGN_OR_RETURN(const Value inner, ApplyFilterChain(*filter.operands[0], input));
  return ComputeFilter(filter, inner);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteWith(const Statement& statement) {
  // Every value is computed outside: one assignment does not see another.
  std::vector<Value> values;
  for (const auto& [target, expression] : statement.assignments) {
    CADRE_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  const ScopeGuard guard(this, NewScope());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CADRE_RETURN_IF_ERROR(Assign(statement.assignments[i].first, values[i]));
  }
  return Execute(statement.body);
}

absl::Status Interpreter::DefineMacro(const Statement& statement) {
  scope_->Set(statement.macro.name, Value::Of(runtime_.New<Macro>(this, &statement.macro, scope_)));
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteCall(const Statement& statement) {
  const Value caller = Value::Of(runtime_.New<Macro>(this, &statement.macro, scope_));
  CADRE_ASSIGN_OR_RETURN(const Value result, ComputeCall(*statement.expression, &caller));
  return AppendString(runtime_, result, out_);
}

}  // namespace cadre::jinja
