#ifndef CADRE_ENGINE_TEXT_JINJA_AST_H_
#define CADRE_ENGINE_TEXT_JINJA_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja/value.h"

namespace cadre::jinja {

struct Expression;
using ExpressionPointer = std::unique_ptr<const Expression>;

// What stands between the parentheses of a call, a filter or a test.
struct CallArguments {
  std::vector<ExpressionPointer> positional;
  std::vector<std::pair<std::string, ExpressionPointer>> named;
  ExpressionPointer star;       // *list
  ExpressionPointer star_star;  // **dict
};

enum class BinaryOperator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOperator { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

// A part of a template that has a value. `operands` by kind:
struct Expression {
  enum class Kind {
    kConstant,     // none; `constant`
    kName,         // none; `name`
    kList,         // the items
    kTuple,        // the items
    kDict,         // key, value, key, value, ...
    kConditional,  // condition, value, value otherwise (may be null)
    kOr,           // left, right
    kAnd,          // left, right
    kNot,          // operand
    kNegate,       // operand
    kPlus,         // operand
    kCompare,      // first, second, ...; `comparisons` stand between them
    kBinary,       // left, right; `binary`
    kConcat,       // the parts
    kAttribute,    // object; `name`
    kItem,         // object, key
    kSlice,        // object, start, stop, step (each may be null)
    kCall,         // what is called; `arguments`
    kFilter,       // input (null inside a filter block); `name`, `arguments`
    kTest,         // input; `name`, `arguments`
  };
  Kind kind = Kind::kConstant;
  int line = 1;
  int depth = 1;  // of the tree below
  std::string name = {};
  Value constant = {};
  BinaryOperator binary = BinaryOperator::kAdd;
  std::vector<CompareOperator> comparisons = {};
  std::vector<ExpressionPointer> operands = {};
  CallArguments arguments = {};
};

// Where an assignment goes: a name, an attribute of a namespace, or several targets.
struct Target {
  std::string name;
  std::string attribute;        // empty: the name itself
  std::vector<Target> several;  // when not empty, the rest is unused
};

struct Statement;
using Body = std::vector<std::unique_ptr<const Statement>>;

struct Parameter {
  std::string name;
  ExpressionPointer default_value;  // may be null
};

// A macro, or the body of a call block.
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  std::shared_ptr<const Body> body;
  bool uses_varargs = false;
  bool uses_kwargs = false;
  bool uses_caller = false;
};

struct Branch {
  ExpressionPointer condition;  // null: else
  Body body;
};

// A part of a template that does something. What is used, by kind:
struct Statement {
  enum class Kind {
    kData,      // `text`
    kOutput,    // `expression`
    kIf,        // `branches`
    kFor,       // `target`, `expression`, `condition` (may be null), `body`, `otherwise`, `is_recursive`
    kSet,       // `target`, `expression`
    kSetBlock,  // `target`, `expression` (a filter, may be null), `body`
    kMacro,     // `macro`
    kCall,      // `expression` (a call), `macro`
    kFilter,    // `expression` (a filter), `body`
    kWith,      // `assignments`, `body`
    kScope,     // `body`
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kData;
  int line = 1;
  std::string text = {};
  ExpressionPointer expression = {};
  ExpressionPointer condition = {};
  Target target = {};
  std::vector<Branch> branches = {};
  std::vector<std::pair<Target, ExpressionPointer>> assignments = {};
  Body body = {};
  Body otherwise = {};
  bool is_recursive = false;
  MacroDefinition macro = {};
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_AST_H_
