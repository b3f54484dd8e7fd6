// Filters that make text.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/arguments.h"
#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/json.h"
#include "engine/text/jinja/print.h"
#include "engine/text/jinja/string_functions.h"
#include "engine/text/jinja/unicode.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

absl::StatusOr<Value> ToString(Runtime& runtime, const Value& input) {
  if (input.is_string()) return input;
  CADRE_ASSIGN_OR_RETURN(Text text, ToText(runtime, input));
  return Value::String(std::move(text));
}

// A filter without arguments that maps the text.
template <Text (*kMap)(const Text&)>
absl::StatusOr<Value> MapText(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("the filter", arguments, {}).status());
  CADRE_ASSIGN_OR_RETURN(const Value text, ToString(runtime, input));
  CADRE_RETURN_IF_ERROR(runtime.ChargeCharacters(text.text().size()));
  return runtime.NewString(kMap(text.text()));
}

// Words begin behind white space, a hyphen or an opening bracket.
Text TitleWords(const Text& text) {
  Text result;
  bool is_inside = false;
  std::string mapped;
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t begin = position;
    const char32_t c = NextCodePoint(text.bytes(), &position);
    mapped.clear();
    if (is_inside) {
      AppendLower(text.bytes(), begin, &mapped);
    } else {
      AppendUpper(c, &mapped);
    }
    result.AppendDerived(mapped, text, begin);
    is_inside = !(IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<');
  }
  return result;
}

Text EscapeHtml(const Text& text) {
  Text result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text.bytes()[i];
    const std::string_view escaped = c == '&'    ? "&amp;"
                                     : c == '<'  ? "&lt;"
                                     : c == '>'  ? "&gt;"
                                     : c == '"'  ? "&#34;"
                                     : c == '\'' ? "&#39;"
                                                 : std::string_view(&c, 1);
    result.AppendDerived(escaped, text, i);
  }
  return result;
}

absl::StatusOr<Value> StringFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("string", arguments, {}).status());
  return ToString(runtime, input);
}

absl::StatusOr<Value> Trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("trim", arguments, {"chars"}));
  CADRE_ASSIGN_OR_RETURN(const Value text, ToString(runtime, input));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(text.text().size()));
  if (!bound.IsGiven(0)) return runtime.NewString(Strip(text.text(), std::nullopt, Side::kBoth));
  CADRE_ASSIGN_OR_RETURN(const std::string characters, bound.String(0, ""));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(characters.size()));
  return runtime.NewString(Strip(text.text(), characters, Side::kBoth));
}

absl::StatusOr<Value> ReplaceFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("replace", arguments, {"old", "new", "count"}, 2));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t count, bound.Integer(2, -1));
  CADRE_ASSIGN_OR_RETURN(const Text whole, ToText(runtime, input));
  CADRE_ASSIGN_OR_RETURN(const Text from, ToText(runtime, *bound[0]));
  CADRE_ASSIGN_OR_RETURN(const Text to, ToText(runtime, *bound[1]));
  CADRE_ASSIGN_OR_RETURN(Text text, Replace(runtime, whole, from.bytes(), to, count));
  return Value::String(std::move(text));
}

absl::StatusOr<Value> Indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("indent", arguments, {"width", "first", "blank"}));
  if (input.is_undefined()) return UndefinedError(input);
  if (!input.is_string()) return Fail(absl::StrCat("indent takes a str, not a ", input.TypeName()));
  Text indent;
  if (bound.IsGiven(0) && bound[0]->is_string()) {
    indent = bound[0]->text();
  } else {
    CADRE_ASSIGN_OR_RETURN(const std::int64_t width, bound.Integer(0, 4));
    CADRE_RETURN_IF_ERROR(runtime.CheckSize(static_cast<std::size_t>(std::max<std::int64_t>(width, 0))));
    indent = Pad(Text(), width, 0, Text::FromTemplate(" "));
  }
  const bool with_blank = bound.Boolean(2, false);
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(input.text().size()));
  Text terminated = input.text();
  terminated.Append("\n");
  Text result;
  bool is_first = true;
  for (const Text& line : SplitLines(terminated, /*keep_ends=*/false)) {
    if (!is_first) result.Append("\n");
    if (is_first ? bound.Boolean(1, false) : with_blank || !line.empty()) result.Append(indent);
    result.Append(line);
    is_first = false;
    CADRE_RETURN_IF_ERROR(runtime.CheckSize(result.size()));
  }
  return runtime.NewString(std::move(result));
}

absl::StatusOr<Value> Center(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound, BoundArguments::Bind("center", arguments, {"width"}));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t width, bound.Integer(0, 80));
  CADRE_ASSIGN_OR_RETURN(const Value text, ToString(runtime, input));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(text.text().size()));
  const std::int64_t missing = width - static_cast<std::int64_t>(CountCodePoints(text.bytes()));
  if (missing <= 0) return text;
  CADRE_RETURN_IF_ERROR(runtime.CheckSize(static_cast<std::size_t>(missing)));
  const std::int64_t left = missing / 2 + (missing & width & 1);
  return runtime.NewString(Pad(text.text(), left, missing - left, Text::FromTemplate(" ")));
}

absl::StatusOr<Value> Truncate(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(const BoundArguments bound,
                         BoundArguments::Bind("truncate", arguments, {"length", "killwords", "end", "leeway"}));
  constexpr std::int64_t kDefaultLength = 255;
  constexpr std::int64_t kDefaultLeeway = 5;
  CADRE_ASSIGN_OR_RETURN(const std::int64_t length, bound.Integer(0, kDefaultLength));
  CADRE_RETURN_IF_ERROR(bound.String(2, "").status());
  const Text end = bound.IsGiven(2) ? bound[2]->text() : Text::FromTemplate("...");
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(end.size()));
  CADRE_ASSIGN_OR_RETURN(const std::int64_t leeway, bound.Integer(3, kDefaultLeeway));
  const std::int64_t kept = length - static_cast<std::int64_t>(CountCodePoints(end.bytes()));
  if (kept < 0 || leeway < 0) return Fail("truncate: the length is less than that of the end, or the leeway negative");
  CADRE_ASSIGN_OR_RETURN(const std::int64_t size, Length(runtime, input));
  if (size <= length || size - length <= leeway) return input;
  if (!input.is_string()) return Fail(absl::StrCat("truncate takes a str, not a ", input.TypeName()));
  const std::vector<std::size_t> bounds = CharacterBounds(input.bytes());
  Text result = input.text().Slice(0, bounds[static_cast<std::size_t>(kept)]);
  if (!bound.Boolean(1, false)) result = Split(result, " ", 1, Side::kRight).front();
  result.Append(end);
  return runtime.NewString(std::move(result));
}

absl::StatusOr<Value> FormatFilter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    return Fail("format takes values by place or by name, not both");
  }
  CADRE_ASSIGN_OR_RETURN(const Value text, ToString(runtime, input));
  if (arguments.named.empty()) return FormatPercent(runtime, text.text(), Value::Tuple(arguments.positional));
  Dict values;
  for (const auto& [name, value] : arguments.named) {
    CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(name.size()));
    CADRE_RETURN_IF_ERROR(values.Set(Value::String(name), value));
  }
  return FormatPercent(runtime, text.text(), Value::Mapping(std::move(values)));
}

absl::StatusOr<Value> WordCount(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(BoundArguments::Bind("wordcount", arguments, {}).status());
  CADRE_ASSIGN_OR_RETURN(const Value text, ToString(runtime, input));
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(text.text().size()));
  std::int64_t count = 0;
  bool is_inside = false;
  for (std::size_t position = 0; position < text.bytes().size();) {
    const bool is_word = IsWordCharacter(NextCodePoint(text.bytes(), &position));
    count += is_word && !is_inside ? 1 : 0;
    is_inside = is_word;
  }
  return Value::Integer(count);
}

absl::Status ReadSeparators(const Value& separators, JsonStyle* style) {
  const bool is_pair = separators.is_sequence() && separators.sequence().has_places() &&
                       separators.sequence().size() == 2 && separators.sequence().items()[0].is_string() &&
                       separators.sequence().items()[1].is_string();
  if (!is_pair) return Fail("tojson: separators are two strings");
  style->item_separator = separators.sequence().items()[0].text();
  style->key_separator = separators.sequence().items()[1].text();
  return absl::OkStatus();
}

absl::StatusOr<Value> ToJson(Runtime& runtime, const Value& input, const Arguments& arguments) {
  CADRE_ASSIGN_OR_RETURN(
      const BoundArguments bound,
      BoundArguments::Bind("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = bound.Boolean(0, false);
  style.sort_keys = bound.Boolean(3, false);
  if (bound.IsGiven(1)) {
    style.item_separator = Text::FromTemplate(",");
    if (bound[1]->is_string()) {
      style.indent = bound[1]->text();
    } else {
      constexpr std::int64_t kMaxIndent = 1000;
      CADRE_ASSIGN_OR_RETURN(const std::int64_t width, bound.Integer(1, 0));
      style.indent = Pad(Text(), std::min(width, kMaxIndent), 0, Text::FromTemplate(" "));
    }
  }
  if (bound.IsGiven(2)) CADRE_RETURN_IF_ERROR(ReadSeparators(*bound[2], &style));
  CADRE_ASSIGN_OR_RETURN(Text json, WriteJson(runtime, input, style));
  return runtime.NewString(std::move(json));
}

constexpr NamedFilter kFilters[] = {
    {"capitalize", MapText<Capitalize>},
    {"center", Center},
    {"e", MapText<EscapeHtml>},
    {"escape", MapText<EscapeHtml>},
    {"format", FormatFilter},
    {"indent", Indent},
    {"lower", MapText<Lower>},
    {"replace", ReplaceFilter},
    {"safe", StringFilter},
    {"string", StringFilter},
    {"title", MapText<TitleWords>},
    {"tojson", ToJson},
    {"trim", Trim},
    {"truncate", Truncate},
    {"upper", MapText<Upper>},
    {"wordcount", WordCount},
};

}  // namespace

std::span<const NamedFilter> TextFilters() { return kFilters; }

}  // namespace cadre::jinja
