#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/structured/regex_anchors.h"
#include "engine/structured/regex_tree.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

using Kind = RegexNode::Kind;
using NodePtr = std::unique_ptr<RegexNode>;

NodePtr NewNode(Kind kind) {
  auto node = std::make_unique<RegexNode>();
  node->kind = kind;
  return node;
}

CodePointSet Single(uint32_t code_point) { return CodePointSet({{code_point, code_point}}); }
CodePointSet Digits() { return CodePointSet({{'0', '9'}}); }
CodePointSet WordCharacters() { return CodePointSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}); }
CodePointSet AsciiSpaces() { return CodePointSet({{'\t', '\r'}, {' ', ' '}}); }
// What any of the dialects takes for a space.
CodePointSet AllSpaces() {
  return CodePointSet({{'\t', '\r'},
                       {0x1C, 0x20},
                       {0x85, 0x85},
                       {0xA0, 0xA0},
                       {0x1680, 0x1680},
                       {0x2000, 0x200A},
                       {0x2028, 0x2029},
                       {0x202F, 0x202F},
                       {0x205F, 0x205F},
                       {0x3000, 0x3000},
                       {0xFEFF, 0xFEFF}});
}
CodePointSet LineEnds() { return CodePointSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}); }

bool IsAsciiLetterOrDigit(uint32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// The set that `\d` and its kin stand for.
std::optional<CodePointSet> EscapedClass(uint32_t letter) {
  switch (letter) {
    case 'd':
      return Digits();
    case 'D':
      return Digits().Complement();
    case 'w':
      return WordCharacters();
    case 'W':
      return WordCharacters().Complement();
    case 's':
      return AsciiSpaces();
    case 'S':
      return AllSpaces().Complement();
    default:
      return std::nullopt;
  }
}

std::optional<uint32_t> EscapedControl(uint32_t letter) {
  switch (letter) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '0':
      return 0;
    default:
      return std::nullopt;
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<RegexTree> ParseAll(RegexExtent extent) {
    RegexTree regex;
    CADRE_ASSIGN_OR_RETURN(const bool is_anchored, ParseLookAheads(extent, &regex.look_aheads));
    CADRE_ASSIGN_OR_RETURN(regex.tree, ParseAlternatives(0));
    if (!AtEnd()) return Error("unmatched )");
    if (!regex.look_aheads.empty() && regex.tree->kind == Kind::kAlternate) {
      return Unsupported("look-around in one of several alternatives is not supported");
    }
    if (is_anchored) regex.tree->children.insert(regex.tree->children.begin(), NewNode(Kind::kStartAnchor));
    return regex;
  }

 private:
  // Those at the start of the text, if any; whether a ^ was taken with them.
  absl::StatusOr<bool> ParseLookAheads(RegexExtent extent, std::vector<LookAhead>* look_aheads) {
    const bool is_anchored = Take("^");
    const bool is_start = is_anchored || extent == RegexExtent::kWholeText;
    while (is_start && (Sees("(?=") || Sees("(?!"))) {
      LookAhead look_ahead{.tree = nullptr, .is_negative = Sees("(?!")};
      position_ += 3;
      CADRE_ASSIGN_OR_RETURN(look_ahead.tree, ParseAlternatives(1));
      if (!Take(")")) return Error("a group does not end");
      if (Sees("*") || Sees("+") || Sees("?") || SeesCounts()) return Error("a look-around cannot be repeated");
      look_aheads->push_back(std::move(look_ahead));
    }
    if (is_anchored && look_aheads->empty()) {
      position_ = 0;
      return false;
    }
    return is_anchored;
  }

  bool AtEnd() const { return position_ == text_.size(); }
  bool Sees(std::string_view expected) const { return text_.substr(position_).starts_with(expected); }
  bool Take(std::string_view expected) {
    if (!Sees(expected)) return false;
    position_ += expected.size();
    return true;
  }
  uint32_t TakeCodePoint() { return NextCodePoint(text_, &position_); }

  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(what), " at byte ", position_, " of the expression"));
  }

  // For what some dialect knows.
  absl::Status Unsupported(std::string_view what) const { return absl::UnimplementedError(Error(what).message()); }

  absl::StatusOr<NodePtr> ParseAlternatives(int depth) {
    if (depth > kMaxRegexDepth) return Error(absl::StrCat("groups nested deeper than ", kMaxRegexDepth));
    NodePtr alternatives = NewNode(Kind::kAlternate);
    do {
      CADRE_ASSIGN_OR_RETURN(NodePtr sequence, ParseSequence(depth));
      alternatives->children.push_back(std::move(sequence));
    } while (Take("|"));
    if (alternatives->children.size() == 1) return std::move(alternatives->children.front());
    return alternatives;
  }

  absl::StatusOr<NodePtr> ParseSequence(int depth) {
    NodePtr sequence = NewNode(Kind::kConcat);
    while (!AtEnd() && !Sees("|") && !Sees(")")) {
      CADRE_ASSIGN_OR_RETURN(NodePtr atom, ParseAtom(depth));
      CADRE_ASSIGN_OR_RETURN(NodePtr item, ParseQuantifiers(std::move(atom)));
      sequence->children.push_back(std::move(item));
    }
    return sequence;
  }

  absl::StatusOr<NodePtr> ParseAtom(int depth) {
    if (Take("^")) return NewNode(Kind::kStartAnchor);
    if (Take("$")) return NewNode(Kind::kEndAnchor);
    if (Sees("(")) return ParseGroup(depth);
    if (Sees("*") || Sees("+") || Sees("?")) return Error("a quantifier without anything to repeat");
    NodePtr node = NewNode(Kind::kSet);
    if (Take(".")) {
      node->set = LineEnds().Complement();
    } else if (Take("[")) {
      CADRE_ASSIGN_OR_RETURN(node->set, ParseClass());
    } else if (Take("\\")) {
      CADRE_ASSIGN_OR_RETURN(node->set, ParseEscape(/*in_class=*/false));
    } else {
      node->set = Single(TakeCodePoint());
    }
    return node;
  }

  absl::StatusOr<NodePtr> ParseGroup(int depth) {
    for (const std::string_view look : {"(?=", "(?!", "(?<=", "(?<!"}) {
      if (Sees(look)) return Unsupported(absl::StrCat("look-around ", ToAbsl(look), "...) is not supported"));
    }
    if (Sees("(?>")) return Unsupported("the atomic group (?>...) is not supported");
    if (Sees("(?P=")) return Unsupported("the back-reference (?P=...) is not supported");
    const bool is_named = Take("(?P<") || Take("(?<");
    if (is_named) {
      while (!AtEnd() && !Sees(">")) TakeCodePoint();
      if (!Take(">")) return Error("the name of a group does not end");
    } else if (!Take("(?:")) {
      if (Sees("(?")) return Unsupported("flags and other groups that begin with (? are not supported");
      Take("(");
    }
    CADRE_ASSIGN_OR_RETURN(NodePtr node, ParseAlternatives(depth + 1));
    if (!Take(")")) return Error("a group does not end");
    return node;
  }

  absl::StatusOr<NodePtr> ParseQuantifiers(NodePtr atom) {
    const bool is_anchor = atom->kind == Kind::kStartAnchor || atom->kind == Kind::kEndAnchor;
    NodePtr repeat = NewNode(Kind::kRepeat);
    if (Take("*")) {
      repeat->min = 0;
    } else if (Take("+")) {
      repeat->min = 1;
    } else if (Take("?")) {
      repeat->min = 0;
      repeat->max = 1;
    } else {
      CADRE_ASSIGN_OR_RETURN(const bool is_counted, ParseCounts(&repeat->min, &repeat->max));
      if (!is_counted) return atom;
    }
    if (is_anchor) return Error("an anchor cannot be repeated");
    Take("?");  // lazy: the same language
    if (Sees("+")) return Unsupported("the possessive quantifier is not supported");
    const bool is_repeated = Sees("*") || Sees("?") || SeesCounts();
    if (is_repeated) return Error("two quantifiers in a row");
    repeat->children.push_back(std::move(atom));
    return repeat;
  }

  // `{m}`, `{m,}` or `{m,n}`. False, with nothing taken, for a brace that is none of them and stands for itself.
  absl::StatusOr<bool> ParseCounts(int* min, int* max) {
    const size_t start = position_;
    if (!Take("{")) return false;
    if (Sees(",")) return Error("{,n} means different things in different dialects: write {0,n}");
    const std::optional<int> low = TakeNumber();
    std::optional<int> high = low;
    if (low.has_value() && Take(",")) high = Sees("}") ? RegexNode::kNoMax : TakeNumber();
    if (!low.has_value() || !high.has_value() || !Take("}")) {
      position_ = start;
      return false;
    }
    if (*low > kMaxRegexRepeat || *high > kMaxRegexRepeat) {
      return Error(absl::StrCat("a repetition above the limit of ", kMaxRegexRepeat));
    }
    if (*high != RegexNode::kNoMax && *high < *low) return Error("{m,n} with n less than m");
    *min = *low;
    *max = *high;
    return true;
  }

  bool SeesCounts() const {
    Parser rest(text_.substr(position_));
    int min = 0;
    int max = 0;
    const absl::StatusOr<bool> is_counted = rest.ParseCounts(&min, &max);
    return !is_counted.ok() || *is_counted;
  }

  // Numbers above the limit come back as one above it.
  std::optional<int> TakeNumber() {
    std::optional<int> number;
    while (!AtEnd() && text_[position_] >= '0' && text_[position_] <= '9') {
      number = std::min(number.value_or(0) * 10 + (text_[position_++] - '0'), kMaxRegexRepeat + 1);
    }
    return number;
  }

  absl::StatusOr<CodePointSet> ParseClass() {
    const bool is_negated = Take("^");
    std::vector<CodePointRange> ranges;
    if (Sees("]")) return Error("an empty class, or a ] at its start: write \\]");
    while (!Take("]")) {
      if (AtEnd()) return Error("a class does not end");
      if (Sees("[:") || Sees("[.") || Sees("[=")) return Unsupported("POSIX classes are not supported");
      if (Sees("&&") || Sees("--") || Sees("~~")) return Unsupported("set operations in a class are not supported");
      CADRE_ASSIGN_OR_RETURN(const CodePointSet first, ParseClassItem());
      const bool is_range = Sees("-") && !Sees("-]");
      if (!is_range) {
        ranges.insert(ranges.end(), first.ranges().begin(), first.ranges().end());
        continue;
      }
      Take("-");
      if (AtEnd()) return Error("a class does not end");
      CADRE_ASSIGN_OR_RETURN(const CodePointSet last, ParseClassItem());
      if (!IsSingle(first) || !IsSingle(last)) return Error("a class as the end of a range");
      if (last.ranges()[0].first < first.ranges()[0].first) return Error("a range whose end is before its start");
      ranges.push_back({first.ranges()[0].first, last.ranges()[0].first});
    }
    const CodePointSet set(ranges);
    return is_negated ? set.Complement() : set;
  }

  static bool IsSingle(const CodePointSet& set) {
    return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last;
  }

  absl::StatusOr<CodePointSet> ParseClassItem() {
    if (Take("\\")) return ParseEscape(/*in_class=*/true);
    return Single(TakeCodePoint());
  }

  // What stands behind a backslash.
  absl::StatusOr<CodePointSet> ParseEscape(bool in_class) {
    if (AtEnd()) return Error("a backslash at the end");
    const uint32_t c = TakeCodePoint();
    if (std::optional<CodePointSet> set = EscapedClass(c); set.has_value()) return *std::move(set);
    const bool digit_follows = !AtEnd() && text_[position_] >= '0' && text_[position_] <= '9';
    if (c == '0' && digit_follows) return Unsupported("octal escapes are not supported");
    if (c == 'b' && in_class) return Single('\b');
    if (const std::optional<uint32_t> control = EscapedControl(c); control.has_value()) return Single(*control);
    if (c == 'x') return ParseHex(2);
    if (c == 'u') return Take("{") ? ParseBracedHex() : ParseHex(4);
    if (c == 'b' || c == 'B') return Unsupported("the word boundary \\b is not supported");
    if (c == 'A' || c == 'z' || c == 'Z')
      return Unsupported("the anchor \\A, \\z or \\Z is not supported: write ^ or $");
    if (c == 'p' || c == 'P') return Unsupported("the Unicode property \\p is not supported");
    if (c == 'k' || (c >= '1' && c <= '9')) return Unsupported("back-references are not supported");
    if (IsAsciiLetterOrDigit(c)) return Error(absl::StrCat("unknown escape \\", std::string(1, static_cast<char>(c))));
    return Single(c);
  }

  absl::StatusOr<CodePointSet> ParseHex(size_t num_digits) {
    const std::string_view digits = text_.substr(position_, num_digits);
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || digits.size() != num_digits || end != digits.data() + num_digits) {
      return Error(absl::StrCat(num_digits, " hexadecimal digits are missing"));
    }
    position_ += num_digits;
    return CheckedCharacter(value);
  }

  absl::StatusOr<CodePointSet> ParseBracedHex() {
    const size_t size = text_.substr(position_).find('}');
    if (size == std::string_view::npos || size == 0 || size > 6) return Error("\\u{...} takes 1 to 6 digits");
    CADRE_ASSIGN_OR_RETURN(CodePointSet set, ParseHex(size));
    Take("}");
    return set;
  }

  absl::StatusOr<CodePointSet> CheckedCharacter(uint32_t value) const {
    if (value > kMaxCodePoint || (value >= 0xD800 && value <= 0xDFFF)) return Error("an escape that is no character");
    return Single(value);
  }

  const std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

absl::StatusOr<RegexTree> ParseRegex(std::string_view pattern, RegexExtent extent) {
  if (pattern.size() > kMaxRegexBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the expression has ", pattern.size(), " bytes, the limit is ", kMaxRegexBytes));
  }
  if (!IsValidUtf8(pattern)) return absl::InvalidArgumentError("the expression is not valid UTF-8");
  CADRE_ASSIGN_OR_RETURN(RegexTree regex, Parser(pattern).ParseAll(extent));
  CADRE_RETURN_IF_ERROR(ResolveAnchors(extent, regex.tree.get()));
  for (const LookAhead& look_ahead : regex.look_aheads) {
    CADRE_RETURN_IF_ERROR(ResolveAnchors(RegexExtent::kBeginning, look_ahead.tree.get()));
  }
  return regex;
}

}  // namespace cadre
