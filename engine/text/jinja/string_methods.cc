// Methods of str.
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/sequence_functions.h"
#include "engine/text/jinja/string_functions.h"
#include "engine/text/jinja/unicode.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

// A method without arguments that maps the text.
template <Text (*kMap)(const Text&)>
absl::StatusOr<Value> MapText(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("the method", arguments, {}).status());
  CADRE_RETURN_IF_ERROR(runtime.ChargeCharacters(self.text().size()));
  return runtime.NewString(kMap(self.text()));
}

// The string, or nothing when the argument is None or was not given.
absl::StatusOr<std::optional<std::string>> OptionalString(const BoundArguments& bound, std::size_t parameter) {
  if (!bound.IsGiven(parameter)) return std::nullopt;
  CADRE_ASSIGN_OR_RETURN(std::string text, bound.String(parameter, ""));
  return std::optional<std::string>(std::move(text));
}

template <Side kSide>
absl::StatusOr<Value> StripMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("strip", arguments, {""}));
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::string> characters, OptionalString(bound, 0));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size() + characters.value_or("").size()));
  return runtime.NewString(Strip(self.text(), characters, kSide));
}

absl::StatusOr<Value> ToList(Runtime& runtime, std::vector<Text> parts) {
  CADRE_RETURN_IF_ERROR(runtime.Charge(parts.size()));
  std::vector<Value> items;
  items.reserve(parts.size());
  for (Text& part : parts) items.push_back(Value::String(std::move(part)));
  return Value::List(std::move(items));
}

template <Side kSide>
absl::StatusOr<Value> SplitMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("split", arguments, {"sep", "maxsplit"}));
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::string> separator, OptionalString(bound, 0));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t max_splits, bound.Integer(1, -1));
  if (separator.has_value() && separator->empty()) return Fail("split: the separator is empty");
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size() + (separator.has_value() ? separator->size() : 0)));
  return ToList(runtime, Split(self.text(), separator, max_splits, kSide));
}

absl::StatusOr<Value> SplitLinesMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("splitlines", arguments, {"keepends"}));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size()));
  return ToList(runtime, SplitLines(self.text(), bound.Boolean(0, false)));
}

template <Side kSide>
absl::StatusOr<Value> PartitionMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("partition", arguments, {""}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::string separator, bound.String(0, ""));
  if (separator.empty()) return Fail("partition: the separator is empty");
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size() + separator.size()));
  const Text& text = self.text();
  const std::size_t found =
      kSide == Side::kRight ? FindLastText(text.bytes(), separator) : FindText(text.bytes(), separator);
  const Value empty = Value::String("");
  if (found == std::string::npos) {
    return kSide == Side::kRight ? Value::Tuple({empty, empty, self}) : Value::Tuple({self, empty, empty});
  }
  return Value::Tuple({Value::String(text.Slice(0, found)), *bound[0],
                       Value::String(text.Slice(found + separator.size(), text.size()))});
}

// The part [start, end) of the text, in bytes, that startswith, find and their kin look at, by arguments 1 and 2.
struct Window {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::int64_t first_character = 0;
  bool is_empty = false;  // it would begin behind its end
};

absl::StatusOr<Window> ReadWindow(Runtime& runtime, const Value& self, const BoundArguments& bound) {
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size()));
  if (!bound.IsGiven(1) && !bound.IsGiven(2)) return Window{.begin = 0, .end = self.text().size()};
  const std::vector<std::size_t> bounds = CharacterBounds(self.bytes());
  const auto length = static_cast<std::int64_t>(bounds.size()) - 1;
  CADRE_ASSIGN_OR_RETURN(std::int64_t start, bound.Integer(1, 0));
  CADRE_ASSIGN_OR_RETURN(std::int64_t stop, bound.Integer(2, length));
  const auto clip = [length](std::int64_t place) {
    return std::max<std::int64_t>(place < 0 ? place + length : place, 0);
  };
  start = clip(std::max(start, -length - 1));
  stop = std::min(clip(std::max(stop, -length - 1)), length);
  if (start > stop) return Window{.is_empty = true};
  return Window{.begin = bounds[static_cast<std::size_t>(start)],
                .end = bounds[static_cast<std::size_t>(stop)],
                .first_character = start};
}

enum class End { kStart, kEnd };

template <End kEnd>
absl::StatusOr<Value> AffixMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("startswith", arguments, {"", "", ""}, 1));
  CADRE_ASSIGN_OR_RETURN(const Window window, ReadWindow(runtime, self, bound));
  CADRE_RETURN_IF_ERROR(runtime.ChargeWalk(*bound[0]));
  std::vector<Value> affixes = {*bound[0]};
  if (bound[0]->is_sequence() && bound[0]->sequence().type() == SequenceType::kTuple) {
    affixes = bound[0]->sequence().items();
  }
  const std::string_view text = std::string_view(self.bytes()).substr(window.begin, window.end - window.begin);
  for (const Value& affix : affixes) {
    if (affix.is_undefined()) return UndefinedError(affix);
    if (!affix.is_string()) return Fail(absl::StrCat("startswith takes a str, not a ", affix.TypeName()));
    if (window.is_empty) continue;
    if (kEnd == End::kStart ? text.starts_with(affix.bytes()) : text.ends_with(affix.bytes())) {
      return Value::Boolean(true);
    }
  }
  return Value::Boolean(false);
}

template <End kEnd>
absl::StatusOr<Value> RemoveAffixMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("removeprefix", arguments, {""}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::string affix, bound.String(0, ""));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(affix.size()));
  const Text& text = self.text();
  if (kEnd == End::kStart) {
    return text.bytes().starts_with(affix) ? runtime.NewString(text.Slice(affix.size(), text.size())) : self;
  }
  return text.bytes().ends_with(affix) ? runtime.NewString(text.Slice(0, text.size() - affix.size())) : self;
}

template <Side kSide, bool kMustExist>
absl::StatusOr<Value> FindMethodOf(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("find", arguments, {"", "", ""}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::string what, bound.String(0, ""));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(what.size()));
  CADRE_ASSIGN_OR_RETURN(const Window window, ReadWindow(runtime, self, bound));
  const std::string_view text = std::string_view(self.bytes()).substr(window.begin, window.end - window.begin);
  const std::size_t found = kSide == Side::kRight ? FindLastText(text, what) : FindText(text, what);
  if (window.is_empty || found == std::string_view::npos) {
    if (kMustExist) return Fail("index: the text is not there");
    return Value::Integer(-1);
  }
  return Value::Integer(window.first_character + static_cast<std::int64_t>(CountCodePoints(text.substr(0, found))));
}

absl::StatusOr<Value> CountMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("count", arguments, {"", "", ""}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::string what, bound.String(0, ""));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(what.size()));
  CADRE_ASSIGN_OR_RETURN(const Window window, ReadWindow(runtime, self, bound));
  if (window.is_empty) return Value::Integer(0);
  const std::string_view text = std::string_view(self.bytes()).substr(window.begin, window.end - window.begin);
  if (what.empty()) return Value::Integer(static_cast<std::int64_t>(CountCodePoints(text)) + 1);
  std::int64_t count = 0;
  for (std::size_t at = FindText(text, what); at != std::string_view::npos;
       at = FindText(text, what, at + what.size())) {
    ++count;
  }
  return Value::Integer(count);
}

absl::StatusOr<Value> ReplaceMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("replace", arguments, {"", "", "count"}, 2));
  CADRE_ASSIGN_OR_RETURN(const std::string from, bound.String(0, ""));
  CADRE_RETURN_IF_ERROR(bound.String(1, "").status());
  if (!bound[1]->is_string()) return Fail("replace takes a str, not a NoneType");
  CADRE_ASSIGN_OR_RETURN(const std::int64_t count, bound.Integer(2, -1));
  CADRE_ASSIGN_OR_RETURN(Text text, Replace(runtime, self.text(), from, bound[1]->text(), count));
  return Value::String(std::move(text));
}

absl::StatusOr<Value> JoinMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("join", arguments, {""}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, *bound[0]));
  for (const Value& item : items) {
    if (!item.is_string()) return Fail(absl::StrCat("join takes strings, not a ", item.TypeName()));
  }
  return JoinTexts(runtime, items, self.text());
}

enum class Justify { kLeft, kRight, kCenter };

template <Justify kJustify>
absl::StatusOr<Value> JustifyMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("ljust", arguments, {"", ""}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t width, bound.Integer(0, 0));
  CADRE_RETURN_IF_ERROR(bound.String(1, "").status());
  const Text fill = bound.IsGiven(1) ? bound[1]->text() : Text::FromTemplate(" ");
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size() + fill.size()));
  if (CountCodePoints(fill.bytes()) != 1) return Fail("the fill character must be one character");
  const std::int64_t missing = width - static_cast<std::int64_t>(CountCodePoints(self.bytes()));
  if (missing <= 0) return self;
  CADRE_RETURN_IF_ERROR(runtime.CheckSize(static_cast<std::size_t>(missing)));
  // Python puts the odd space to the left when both the number of spaces and the width are odd.
  const std::int64_t center = missing / 2 + (missing & width & 1);
  const std::int64_t left = kJustify == Justify::kLeft ? 0 : kJustify == Justify::kRight ? missing : center;
  return runtime.NewString(Pad(self.text(), left, missing - left, fill));
}

absl::StatusOr<Value> ZfillMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("zfill", arguments, {""}, 1));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t width, bound.Integer(0, 0));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size()));
  const std::int64_t missing = width - static_cast<std::int64_t>(CountCodePoints(self.bytes()));
  if (missing <= 0) return self;
  CADRE_RETURN_IF_ERROR(runtime.CheckSize(static_cast<std::size_t>(missing)));
  const Text& text = self.text();
  const std::size_t sign = text.bytes().starts_with('-') || text.bytes().starts_with('+') ? 1 : 0;
  Text filled = text.Slice(0, sign);
  filled.Append(Pad(text.Slice(sign, text.size()), missing, 0, Text::FromTemplate("0")));
  return runtime.NewString(std::move(filled));
}

// Whether the text is not empty and all of its characters are of a class.
template <bool (*kIsOfClass)(char32_t)>
absl::StatusOr<Value> IsAllMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("the method", arguments, {}).status());
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size()));
  const std::string& bytes = self.bytes();
  for (std::size_t position = 0; position < bytes.size();) {
    if (!kIsOfClass(NextCodePoint(bytes, &position))) return Value::Boolean(false);
  }
  return Value::Boolean(!bytes.empty());
}

bool IsAlphanumeric(char32_t c) { return IsAlpha(c) || IsNumeric(c); }
bool IsAscii(char32_t c) { return c < 0x80; }

absl::StatusOr<Value> IsPrintableMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (self.text().empty()) return Value::Boolean(true);
  return IsAllMethod<IsPrintable>(runtime, self, arguments);
}

// Whether every run of letters begins with a capital one and goes on with small ones.
absl::StatusOr<Value> IsTitleMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("istitle", arguments, {}).status());
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size()));
  bool has_cased = false;
  bool is_inside = false;
  for (std::size_t position = 0; position < self.bytes().size();) {
    const char32_t c = NextCodePoint(self.bytes(), &position);
    const bool is_cased = IsCased(c);
    if (is_cased && IsLower(c) != is_inside) return Value::Boolean(false);
    has_cased |= is_cased;
    is_inside = is_cased;
  }
  return Value::Boolean(has_cased);
}

absl::StatusOr<Value> ExpandTabsMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("expandtabs", arguments, {"tabsize"}));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t tab_size, bound.Integer(0, 8));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size()));
  const Text& text = self.text();
  Text expanded;
  std::int64_t column = 0;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t begin = position;
    const char32_t c = NextCodePoint(text.bytes(), &position);
    if (c != '\t') {
      expanded.AppendSlice(text, begin, position);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
      continue;
    }
    const std::int64_t width = tab_size > 0 ? tab_size - column % tab_size : 0;
    CADRE_RETURN_IF_ERROR(runtime.CheckSize(expanded.size() + static_cast<std::size_t>(width)));
    expanded.AppendDerived(std::string(static_cast<std::size_t>(width), ' '), text, begin);
    column += width;
  }
  return runtime.NewString(std::move(expanded));
}

absl::StatusOr<Value> IsAsciiMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (self.text().empty()) return Value::Boolean(true);
  return IsAllMethod<IsAscii>(runtime, self, arguments);
}

template <bool (*kCasing)(char32_t), bool (*kOther)(char32_t)>
absl::StatusOr<Value> IsCaseMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("the method", arguments, {}).status());
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(self.text().size()));
  bool has_cased = false;
  for (std::size_t position = 0; position < self.bytes().size();) {
    const char32_t c = NextCodePoint(self.bytes(), &position);
    if (kOther(c)) return Value::Boolean(false);
    has_cased |= kCasing(c);
  }
  return Value::Boolean(has_cased);
}

absl::StatusOr<Value> FormatMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return FormatBraces(runtime, self.text(), arguments);
}

struct NamedMethod {
  std::string_view name;
  Method method;
};

constexpr NamedMethod kMethods[] = {
    {"capitalize", MapText<Capitalize>},
    {"casefold", MapText<CaseFold>},
    {"center", JustifyMethod<Justify::kCenter>},
    {"count", CountMethod},
    {"endswith", AffixMethod<End::kEnd>},
    {"expandtabs", ExpandTabsMethod},
    {"find", FindMethodOf<Side::kLeft, false>},
    {"format", FormatMethod},
    {"index", FindMethodOf<Side::kLeft, true>},
    {"isalnum", IsAllMethod<IsAlphanumeric>},
    {"isalpha", IsAllMethod<IsAlpha>},
    {"isascii", IsAsciiMethod},
    {"isdecimal", IsAllMethod<IsDecimal>},
    {"isdigit", IsAllMethod<IsDigit>},
    {"islower", IsCaseMethod<IsLower, IsUpper>},
    {"isnumeric", IsAllMethod<IsNumeric>},
    {"isprintable", IsPrintableMethod},
    {"isspace", IsAllMethod<IsSpace>},
    {"istitle", IsTitleMethod},
    {"isupper", IsCaseMethod<IsUpper, IsLower>},
    {"join", JoinMethod},
    {"ljust", JustifyMethod<Justify::kLeft>},
    {"lower", MapText<Lower>},
    {"lstrip", StripMethod<Side::kLeft>},
    {"partition", PartitionMethod<Side::kLeft>},
    {"removeprefix", RemoveAffixMethod<End::kStart>},
    {"removesuffix", RemoveAffixMethod<End::kEnd>},
    {"replace", ReplaceMethod},
    {"rfind", FindMethodOf<Side::kRight, false>},
    {"rindex", FindMethodOf<Side::kRight, true>},
    {"rjust", JustifyMethod<Justify::kRight>},
    {"rpartition", PartitionMethod<Side::kRight>},
    {"rsplit", SplitMethod<Side::kRight>},
    {"rstrip", StripMethod<Side::kRight>},
    {"split", SplitMethod<Side::kLeft>},
    {"splitlines", SplitLinesMethod},
    {"startswith", AffixMethod<End::kStart>},
    {"strip", StripMethod<Side::kBoth>},
    {"swapcase", MapText<SwapCase>},
    {"title", MapText<Title>},
    {"upper", MapText<Upper>},
    {"zfill", ZfillMethod},
};

}  // namespace

Method FindStringMethod(std::string_view name) {
  const auto* const found =
      std::lower_bound(std::begin(kMethods), std::end(kMethods), name,
                       [](const NamedMethod& method, std::string_view n) { return method.name < n; });
  return found != std::end(kMethods) && found->name == name ? found->method : nullptr;
}

}  // namespace cadre::jinja
