#include "engine/text/jinja/lexer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/limits.h"
#include "engine/text/jinja/literal.h"
#include "engine/text/jinja/unicode.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

using Type = Token::Type;

constexpr std::string_view kTwoSigns[] = {"//", "**", "==", "!=", ">=", "<="};
constexpr std::string_view kSigns = "+-/*%~[](){}><=.:|,;";

// Line ends as "\n", without the one at the very end.
std::string NormalizeLineEnds(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

std::size_t SkipSpace(std::string_view text, std::size_t position) {
  while (position < text.size()) {
    std::size_t next = position;
    if (!IsSpace(NextCodePoint(text, &next))) break;
    position = next;
  }
  return position;
}

std::string_view StripRight(std::string_view text) {
  while (!text.empty()) {
    const std::size_t begin = PreviousBoundary(text, text.size());
    std::size_t position = begin;
    if (!IsSpace(NextCodePoint(text, &position))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      const std::size_t tag = FindTag();
      if (tag == std::string::npos) {
        AddData(std::string_view(source_).substr(position_));
        position_ = source_.size();
        break;
      }
      CADRE_RETURN_IF_ERROR(ReadTag(tag));
      is_line_start_ = position_ > 0 && source_[position_ - 1] == '\n';
    }
    Add(Type::kEnd);
    return std::move(tokens_);
  }

 private:
  absl::Status Error(std::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", ToAbsl(message)));
  }

  char At(std::size_t position) const { return position < source_.size() ? source_[position] : '\0'; }
  bool StartsWith(std::size_t position, std::string_view what) const {
    return std::string_view(source_).substr(std::min(position, source_.size())).starts_with(what);
  }

  // Moves on, counting lines.
  void MoveTo(std::size_t position) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(position), '\n'));
    position_ = position;
  }

  void Add(Type type, std::string text = "") {
    tokens_.push_back({.type = type, .text = std::move(text), .line = line_});
  }

  void AddData(std::string_view data) {
    if (!data.empty()) Add(Type::kData, std::string(data));
  }

  std::size_t FindTag() const {
    for (std::size_t i = position_; (i = source_.find('{', i)) != std::string::npos; ++i) {
      const char kind = At(i + 1);
      if (kind == '%' || kind == '{' || kind == '#') return i;
    }
    return std::string::npos;
  }

  // The text before a tag, as the tag's sign leaves it.
  std::string_view TextBefore(std::size_t tag, char sign, bool is_variable) const {
    const std::string_view text = std::string_view(source_).substr(position_, tag - position_);
    if (sign == '-') return StripRight(text);
    if (sign == '+' || is_variable) return text;
    const std::size_t newline = text.rfind('\n');
    const std::size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_begin == 0 && !is_line_start_) return text;
    return SkipSpace(text, line_begin) == text.size() ? text.substr(0, line_begin) : text;
  }

  static bool IsSign(char c) { return c == '-' || c == '+'; }

  absl::Status ReadTag(std::size_t tag) {
    const char kind = source_[tag + 1];
    const char sign = IsSign(At(tag + 2)) ? source_[tag + 2] : '\0';
    AddData(TextBefore(tag, sign, /*is_variable=*/kind == '{'));
    MoveTo(tag);
    const std::size_t inside = tag + (sign == '\0' ? 2 : 3);
    if (kind == '#') return SkipComment(inside);
    if (kind == '%') {
      const std::size_t raw_end = TagEnd(inside, "raw", /*trims_newline=*/false);
      if (raw_end != std::string::npos) return ReadRaw(raw_end);
    }
    Add(kind == '%' ? Type::kBlockBegin : Type::kVariableBegin);
    MoveTo(inside);
    return ReadCode(kind == '%' ? '%' : '}');
  }

  // Where the tag ends whose `%}` begins at `position`, possibly with a sign; npos when none does.
  std::size_t BlockEnd(std::size_t position, bool trims_newline) const {
    if (StartsWith(position, "-%}")) return SkipSpace(source_, position + 3);
    if (trims_newline && StartsWith(position, "+%}")) return position + 3;
    if (!StartsWith(position, "%}")) return std::string::npos;
    return position + (trims_newline && At(position + 2) == '\n' ? 3 : 2);
  }

  // Where a block tag ends that holds nothing but `name`; npos when it is another tag.
  std::size_t TagEnd(std::size_t inside, std::string_view name, bool trims_newline) const {
    const std::size_t begin = SkipSpace(source_, inside);
    if (!StartsWith(begin, name)) return std::string::npos;
    return BlockEnd(SkipSpace(source_, begin + name.size()), trims_newline);
  }

  absl::Status SkipComment(std::size_t inside) {
    const std::size_t end = source_.find("#}", inside);
    if (end == std::string::npos) return Error("a comment is not closed");
    const char sign = end > inside ? source_[end - 1] : '\0';
    std::size_t behind = end + 2;
    if (sign == '-') {
      behind = SkipSpace(source_, behind);
    } else if (sign != '+' && At(behind) == '\n') {
      ++behind;
    }
    MoveTo(behind);
    return absl::OkStatus();
  }

  absl::Status ReadRaw(std::size_t begin) {
    const int first_line = line_;
    MoveTo(begin);
    for (std::size_t tag = begin; (tag = source_.find("{%", tag)) != std::string::npos; ++tag) {
      const char sign = IsSign(At(tag + 2)) ? source_[tag + 2] : '\0';
      const std::size_t end = TagEnd(tag + (sign == '\0' ? 2 : 3), "endraw", /*trims_newline=*/true);
      if (end == std::string::npos) continue;
      is_line_start_ = begin > 0 && source_[begin - 1] == '\n';
      AddData(TextBefore(tag, sign, /*is_variable=*/false));
      MoveTo(end);
      return absl::OkStatus();
    }
    line_ = first_line;
    return Error("a raw block is not closed");
  }

  // Tokens up to the end of the tag: "%}" or "}}".
  absl::Status ReadCode(char closing) {
    const int first_line = line_;
    std::string open;  // the brackets that wait to be closed
    while (true) {
      MoveTo(SkipSpace(source_, position_));
      if (position_ == source_.size()) {
        line_ = first_line;
        return Error(closing == '%' ? "a tag {% is not closed" : "a tag {{ is not closed");
      }
      if (open.empty()) {
        const std::size_t end = closing == '%' ? BlockEnd(position_, /*trims_newline=*/true) : VariableEnd(position_);
        if (end != std::string::npos) {
          Add(closing == '%' ? Type::kBlockEnd : Type::kVariableEnd);
          MoveTo(end);
          return absl::OkStatus();
        }
      }
      CADRE_RETURN_IF_ERROR(ReadToken(&open));
    }
  }

  std::size_t VariableEnd(std::size_t position) const {
    if (StartsWith(position, "-}}")) return SkipSpace(source_, position + 3);
    return StartsWith(position, "}}") ? position + 2 : std::string::npos;
  }

  absl::Status ReadToken(std::string* open) {
    const char c = source_[position_];
    if (c == '\'' || c == '"') return ReadString(c);
    if (absl::ascii_isdigit(static_cast<unsigned char>(c))) return ReadNumberToken();
    std::size_t end = position_;
    while (end < source_.size()) {
      std::size_t next = end;
      if (!IsWordCharacter(NextCodePoint(source_, &next))) break;
      end = next;
    }
    if (end - position_ > kMaxNameBytes) {
      return Error(absl::StrCat("a name of ", end - position_, " bytes, the limit is ", kMaxNameBytes));
    }
    if (end > position_) {
      Add(Type::kName, source_.substr(position_, end - position_));
      MoveTo(end);
      return absl::OkStatus();
    }
    return ReadOperator(open);
  }

  absl::Status ReadNumberToken() {
    Token token{.line = line_};
    // Behind a dot there is an index, not the beginning of a float: "list.0.1".
    const bool is_index = position_ > 0 && source_[position_ - 1] == '.';
    const absl::StatusOr<std::size_t> size = ReadNumber(std::string_view(source_).substr(position_), is_index, &token);
    if (!size.ok()) return Error(ToStd(size.status().message()));
    tokens_.push_back(std::move(token));
    MoveTo(position_ + *size);
    return absl::OkStatus();
  }

  absl::Status ReadString(char quote) {
    std::size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Error("a string is not closed");
    absl::StatusOr<std::string> value =
        UnescapeString(std::string_view(source_).substr(position_ + 1, end - position_ - 1));
    if (!value.ok()) return Error(ToStd(value.status().message()));
    Add(Type::kString, *std::move(value));
    MoveTo(end + 1);
    return absl::OkStatus();
  }

  absl::Status ReadOperator(std::string* open) {
    std::string sign(1, source_[position_]);
    for (const std::string_view two : kTwoSigns) {
      if (StartsWith(position_, two)) sign = two;
    }
    if (sign.size() == 1 && kSigns.find(sign[0]) == std::string_view::npos) {
      std::size_t end = position_;
      NextCodePoint(source_, &end);
      return Error(absl::StrCat("unexpected character ", Quoted(source_.substr(position_, end - position_))));
    }
    if (sign == "(" || sign == "[" || sign == "{") *open += sign[0] == '(' ? ')' : sign[0] == '[' ? ']' : '}';
    if (sign == ")" || sign == "]" || sign == "}") {
      if (open->empty() || open->back() != sign[0]) return Error(absl::StrCat("unexpected '", sign, "'"));
      open->pop_back();
    }
    Add(Type::kOperator, sign);
    MoveTo(position_ + sign.size());
    return absl::OkStatus();
  }

  const std::string source_;
  std::size_t position_ = 0;
  int line_ = 1;
  bool is_line_start_ = true;  // what was read last ended with a newline, or nothing was read
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(NormalizeLineEnds(source)).Run(); }

}  // namespace cadre::jinja
