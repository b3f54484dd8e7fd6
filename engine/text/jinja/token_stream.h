#ifndef CADRE_ENGINE_TEXT_JINJA_TOKEN_STREAM_H_
#define CADRE_ENGINE_TEXT_JINJA_TOKEN_STREAM_H_

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/lexer.h"
#include "engine/text/jinja/limits.h"

namespace cadre::jinja {

// The tokens of a template, one after the other, and how deep the parser is inside them.
class TokenStream {
 public:
  // REQUIRES: the last one is a kEnd.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }

  // The current token, which is left behind. The end is never passed.
  const Token& Take() {
    const Token& token = tokens_[position_];
    position_ = std::min(position_ + 1, tokens_.size() - 1);
    return token;
  }
  bool SkipName(std::string_view name) {
    if (!current().IsName(name)) return false;
    Take();
    return true;
  }
  bool SkipOperator(std::string_view sign) {
    if (!current().IsOperator(sign)) return false;
    Take();
    return true;
  }

  // INVALID_ARGUMENT "line N: ...", of the current token unless said otherwise.
  absl::Status Error(std::string_view message, int line = 0) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line > 0 ? line : this->line(), ": ", ToAbsl(message)));
  }
  // UNIMPLEMENTED: valid Jinja that is outside of the subset.
  absl::Status Unsupported(std::string_view what, int at_line) const {
    return absl::UnimplementedError(absl::StrCat("line ", at_line, ": ", ToAbsl(what), " is not supported"));
  }
  absl::Status ExpectOperator(std::string_view sign) {
    return SkipOperator(sign) ? absl::OkStatus()
                              : Error(absl::StrCat("expected '", ToAbsl(sign), "', found ", Describe(current())));
  }

  // What an error calls a token.
  static std::string Describe(const Token& token) {
    switch (token.type) {
      case Token::Type::kEnd:
        return "the end of the template";
      case Token::Type::kBlockEnd:
      case Token::Type::kVariableEnd:
        return "the end of the tag";
      case Token::Type::kString:
        return absl::StrCat("the string ", Quoted(token.text));
      case Token::Type::kInteger:
      case Token::Type::kFloat:
        return "a number";
      default:
        return Quoted(token.text);
    }
  }

  // One level deeper; RESOURCE_EXHAUSTED beyond kMaxParseDepth. Leave when done, also after an error.
  absl::Status Enter() {
    if (++depth_ <= kMaxParseDepth) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("line ", line(), ": nested deeper than ", kMaxParseDepth, " levels, the limit"));
  }
  void Leave() { --depth_; }

 private:
  const std::vector<Token> tokens_;
  std::size_t position_ = 0;
  int depth_ = 0;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_TOKEN_STREAM_H_
