#ifndef CADRE_ENGINE_TEXT_JINJA_LEXER_H_
#define CADRE_ENGINE_TEXT_JINJA_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre::jinja {

struct Token {
  enum class Type {
    kData,           // text outside of tags, white space control already applied
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kName,
    kString,    // `text` is the value, escapes resolved
    kInteger,   // `integer`
    kFloat,     // `number`
    kOperator,  // `text` is one of + - / // * % ** ~ [ ] ( ) { } == != > >= < <= = . : | , ;
    kEnd,
  };
  Type type = Type::kEnd;
  std::string text = {};
  std::int64_t integer = 0;
  double number = 0;
  int line = 1;

  bool IsName(std::string_view name) const { return type == Type::kName && text == name; }
  bool IsOperator(std::string_view sign) const { return type == Type::kOperator && text == sign; }
};

// Cuts a template into tokens as Jinja does with trim_blocks and lstrip_blocks: the first newline behind a block tag or
// comment goes, as does white space before one that is alone on its line so far; `-` strips all white space on its
// side, `+` keeps it. Comments vanish, raw blocks become data, line ends become "\n", one at the very end goes.
// Ends with a kEnd. INVALID_ARGUMENT names the line: "line 3: ...".
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_LEXER_H_
