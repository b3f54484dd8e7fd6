#include "engine/text/regex_syntax.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/unicode_classes.h"

namespace cadre {
namespace {

bool IsHexDigit(char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

absl::Status Unsupported(std::string_view construct) {
  return absl::UnimplementedError(absl::StrCat("the regex construct ", Quoted(construct), " is not supported"));
}

// What an escape stands for: one character, or a class given by what stands between its brackets.
struct Escape {
  bool is_class = false;
  bool is_negated = false;  // of a class: it is the complement of `text`
  std::string text;
};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (position_ < pattern_.size()) CADRE_RETURN_IF_ERROR(TranslateItem());
    return std::move(out_);
  }

 private:
  std::string_view Rest() const { return pattern_.substr(position_); }
  bool Sees(std::string_view text) const { return Rest().substr(0, text.size()) == text; }
  void Copy(std::size_t size) {
    out_ += Rest().substr(0, size);
    position_ += size;
  }

  absl::Status TranslateItem() {
    switch (pattern_[position_]) {
      case '\\': {
        CADRE_ASSIGN_OR_RETURN(const Escape escape, ReadEscape());
        absl::StrAppend(&out_, escape.is_class ? (escape.is_negated ? "[^" : "[") : "", escape.text,
                        escape.is_class ? "]" : "");
        return absl::OkStatus();
      }
      case '[':
        return TranslateClass();
      case '(':
        return TranslateGroupOpener();
      case '{':
        return TranslateInterval();
      default:
        Copy(1);
        return absl::OkStatus();
    }
  }

  absl::Status TranslateGroupOpener() {
    if (Sees("(*")) return Unsupported("(*");
    if (!Sees("(?")) {
      Copy(1);
      return absl::OkStatus();
    }
    // An option in the middle of a pattern ends elsewhere in the two syntaxes; at its very start it cannot.
    if (position_ == 0 && Sees("(?i)")) {
      Copy(4);
      return absl::OkStatus();
    }
    for (const std::string_view opener : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"}) {
      if (!Sees(opener)) continue;
      Copy(opener.size());
      return absl::OkStatus();
    }
    return Unsupported("(?");
  }

  // "{n}", "{n,}" and "{n,m}" mean the same to both, unless followed by what only one of them takes for a modifier.
  absl::Status TranslateInterval() {
    std::size_t end = position_ + 1;
    while (end < pattern_.size() && (IsDigit(pattern_[end]) || pattern_[end] == ',')) ++end;
    if (end == pattern_.size() || pattern_[end] != '}' || end == position_ + 1) {
      Copy(1);  // a literal brace
      return absl::OkStatus();
    }
    const std::string_view interval = pattern_.substr(position_, end + 1 - position_);
    const std::string_view next = pattern_.substr(end + 1, 1);
    const bool is_exact = interval.find(',') == std::string_view::npos;
    if (interval[1] == ',') return Unsupported("{,n}");
    if (next == "+") return Unsupported("{n,m}+");
    if (is_exact && next == "?") return Unsupported("{n}?");
    Copy(interval.size());
    return absl::OkStatus();
  }

  absl::Status TranslateClass() {
    Copy(1);
    if (Sees("^")) Copy(1);
    if (Sees("]")) return Unsupported("[]");
    bool after_class = false;  // the previous item was a class such as \s
    bool in_range = false;     // the previous item was the hyphen of a range
    bool is_first = true;
    while (position_ < pattern_.size() && pattern_[position_] != ']') {
      if (Sees("[")) return Unsupported("[ inside [...]");
      if (Sees("&&")) return Unsupported("&&");
      if (Sees("-") && !is_first && !Sees("-]")) {
        if (after_class) return Unsupported("- after a class in [...]");
        in_range = true;
        Copy(1);
        continue;
      }
      after_class = false;
      if (Sees("\\")) {
        const bool is_word = Sees("\\w");
        CADRE_ASSIGN_OR_RETURN(Escape escape, ReadEscape());
        if (is_word) escape.text = BracketWordClass();
        after_class = escape.is_class;
        if (escape.is_class && in_range) return Unsupported("a class as the end of a range");
        if (escape.is_negated) return Unsupported("a negated class inside [...]");
        out_ += escape.text;
      } else {
        Copy(1);
      }
      in_range = false;
      is_first = false;
    }
    if (position_ == pattern_.size()) return absl::InvalidArgumentError("a [ without its ]");
    Copy(1);
    return absl::OkStatus();
  }

  // Reads the escape at the position and moves behind it.
  absl::StatusOr<Escape> ReadEscape() {
    if (position_ + 1 >= pattern_.size()) return absl::InvalidArgumentError("a backslash at the end");
    const char c = pattern_[position_ + 1];
    const std::string_view sequence = pattern_.substr(position_, 2);
    if (c == 'p' || c == 'P') return ReadProperty(c == 'P');
    if (c == 'x' || c == 'u') return ReadCodePoint(c == 'u');
    position_ += 2;
    switch (c) {
      case 's':
        return Escape{true, false, WhiteSpaceClass()};
      case 'S':
        return Escape{true, false, NonWhiteSpaceClass()};
      case 'd':
      case 'D':
        return Escape{true, c == 'D', DecimalDigitClass()};
      case 'w':
      case 'W':
        return Escape{true, c == 'W', WordClass()};
      case 'h':  // a hexadecimal digit to one engine, horizontal space to the other
      case 'H':
        return Escape{true, c == 'H', "0-9a-fA-F"};
      case 'v':  // likewise: the vertical tab, or a class of line ends
        return Escape{false, false, "\\x{B}"};
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'a':
      case 'e':
      case 'A':
      case 'z':
        return Escape{false, false, std::string(sequence)};
      default:
        if (std::isalnum(static_cast<unsigned char>(c)) != 0) return Unsupported(sequence);
        return Escape{false, false, std::string(sequence)};
    }
  }

  absl::StatusOr<Escape> ReadProperty(bool is_negated) {
    const std::size_t end = pattern_.find('}', position_);
    if (!(pattern_.substr(position_ + 2, 1) == "{") || end == std::string_view::npos) return Unsupported("\\p");
    const std::string_view name = pattern_.substr(position_ + 3, end - position_ - 3);
    const std::optional<std::string> members = PropertyClass(name);
    if (!members.has_value()) return Unsupported(absl::StrCat("\\p{", std::string(name.substr(0, 40)), "}"));
    position_ = end + 1;
    return Escape{true, is_negated, *members};
  }

  // \xHH, \x{H...} and \uHHHH. Above 7F, \xHH is a byte to Oniguruma and not a character.
  absl::StatusOr<Escape> ReadCodePoint(bool is_u) {
    std::string_view digits = pattern_.substr(position_ + 2);
    std::size_t size = 2;
    if (!is_u && digits.substr(0, 1) == "{") {
      digits = digits.substr(1, std::min(digits.find('}'), digits.size()) - 1);
      size += digits.size() + 2;
      if (position_ + size > pattern_.size()) return Unsupported("\\x");
    } else {
      digits = digits.substr(0, is_u ? 4 : 2);
      size += digits.size();
      if (digits.size() != (is_u ? 4 : 2) || (!is_u && digits[0] > '7')) return Unsupported(is_u ? "\\u" : "\\x");
    }
    if (digits.empty() || !std::all_of(digits.begin(), digits.end(), IsHexDigit)) return Unsupported("\\x");
    position_ += size;
    return Escape{false, false, absl::StrCat("\\x{", ToAbsl(digits), "}")};
  }

  const std::string_view pattern_;
  std::size_t position_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOnigurumaPattern(std::string_view pattern) {
  // Tried at every space of a long run, this pattern walks the rest of the run each time. A match that starts inside a
  // run would also have started before: unless the search itself starts there, the first space is enough.
  if (pattern == "\\s+$") {
    const std::string space = absl::StrCat("[", WhiteSpaceClass(), "]");
    return absl::StrCat("(?:\\G|(?<!", space, "))", space, "+$");
  }
  return Translator(pattern).Run();
}

}  // namespace cadre
