#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/access.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/format_spec.h"
#include "engine/text/jinja/print.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

bool IsDigits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
}

// [[fill]align][sign][#][0][width][,][.precision][type]
absl::StatusOr<FormatSpec> ParseSpec(std::string_view text) {
  FormatSpec spec;
  constexpr std::string_view kAligns = "<>^=";
  const auto is_align = [&](std::size_t at) { return at < text.size() && kAligns.find(text[at]) != kAligns.npos; };
  std::size_t position = 0;
  std::size_t fill_end = 0;
  if (!text.empty()) NextCodePoint(text, &fill_end);
  if (fill_end > 0 && is_align(fill_end)) {
    spec.fill = text.substr(0, fill_end);
    spec.align = text[fill_end];
    position = fill_end + 1;
  } else if (is_align(0)) {
    spec.align = text[position++];
  }
  const auto current = [&] { return position < text.size() ? text[position] : '\0'; };
  const auto take = [&](char c) { return current() == c && ++position > 0; };
  const auto read_number = [&] {
    std::int64_t number = 0;
    for (; absl::ascii_isdigit(static_cast<unsigned char>(current())); ++position) {
      number = std::min(number * 10 + (current() - '0'), kMaxFormatWidth + 1);
    }
    return number;
  };
  if (current() == '+' || current() == '-' || current() == ' ') spec.sign = text[position++];
  spec.is_alternate = take('#');
  if (current() == '0' && spec.align == '\0') {
    spec.fill.assign(1, '0');
    spec.align = '=';
  }
  spec.width = read_number();
  spec.has_comma = take(',');
  if (take('.')) spec.precision = read_number();
  if (position < text.size()) spec.type = text[position++];
  if (position < text.size()) return Fail(absl::StrCat("the format ", Quoted(text), " is not supported"));
  return spec;
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Text& format, const Arguments& arguments)
      : runtime_(runtime), format_(format), bytes_(format.bytes()), arguments_(arguments) {}

  absl::StatusOr<Value> Run() {
    while (position_ < bytes_.size()) {
      const std::size_t brace = std::min(bytes_.find_first_of("{}", position_), bytes_.size());
      out_.AppendSlice(format_, position_, brace);
      position_ = brace;
      if (brace == bytes_.size()) break;
      if (brace + 1 < bytes_.size() && bytes_[brace + 1] == bytes_[brace]) {
        out_.AppendSlice(format_, brace, brace + 1);
        position_ += 2;
      } else if (bytes_[brace] == '}') {
        return Fail("format: a single '}'");
      } else {
        CADRE_RETURN_IF_ERROR(FormatField());
      }
      CADRE_RETURN_IF_ERROR(runtime_.CheckSize(out_.size()));
    }
    return runtime_.NewString(std::move(out_));
  }

 private:
  absl::Status FormatField() {
    const std::size_t begin = position_;
    const std::size_t end = bytes_.find('}', position_);
    if (end == std::string_view::npos) return Fail("format: a '{' is not closed");
    std::string_view field = bytes_.substr(position_ + 1, end - position_ - 1);
    position_ = end + 1;
    if (field.find('{') != std::string_view::npos) return Fail("format: braces inside braces are not supported");
    std::string_view spec_text;
    if (const std::size_t colon = field.find(':'); colon != std::string_view::npos) {
      spec_text = field.substr(colon + 1);
      field = field.substr(0, colon);
    }
    char conversion = '\0';
    if (field.size() >= 2 && field[field.size() - 2] == '!') {
      conversion = field.back();
      field.remove_suffix(2);
    }
    CADRE_ASSIGN_OR_RETURN(Value value, FindValue(field));
    if (conversion == 's' || conversion == 'r') {
      Text text;
      CADRE_RETURN_IF_ERROR(conversion == 's' ? AppendString(runtime_, value, &text)
                                              : AppendRepr(runtime_, value, &text));
      value = Value::String(std::move(text));
    } else if (conversion != '\0') {
      return Fail("format: a conversion is !s or !r");
    }
    CADRE_ASSIGN_OR_RETURN(const FormatSpec spec, ParseSpec(spec_text));
    CADRE_ASSIGN_OR_RETURN(const Text text, PrintFormatted(runtime_, value, spec));
    // What fills up the width comes from the format.
    out_.Append(format_.Slice(begin, position_).client_spans().empty() ? text : Text::FromClient(text.bytes()));
    return absl::OkStatus();
  }

  // The argument that a field begins with: {}, {0} or {name}.
  absl::StatusOr<Value> FindArgument(std::string_view name) {
    if (name.empty() || IsDigits(name)) {
      std::uint32_t place = 0;
      const bool is_place = name.empty() || absl::SimpleAtoi(ToAbsl(name), &place);
      if (name.empty()) place = next_++;
      if (!is_place || place >= arguments_.positional.size()) return Fail("format: not enough values");
      return arguments_.positional[place];
    }
    CADRE_RETURN_IF_ERROR(runtime_.Charge(arguments_.named.size()));
    CADRE_RETURN_IF_ERROR(runtime_.ChargeBytes(arguments_.named.size() * name.size()));
    for (const auto& [key, value] : arguments_.named) {
      if (key.bytes() == name) return value;
    }
    return Fail(absl::StrCat("format: no value called ", Quoted(name)));
  }

  // The value of "name.attribute[key]...".
  absl::StatusOr<Value> FindValue(std::string_view field) {
    std::size_t end = std::min(field.find_first_of(".["), field.size());
    CADRE_ASSIGN_OR_RETURN(Value value, FindArgument(field.substr(0, end)));
    while (end < field.size()) {
      const bool is_key = field[end] == '[';
      const std::size_t begin = end + 1;
      end = std::min(field.find_first_of(is_key ? "]" : ".[", begin), field.size());
      const std::string_view name = field.substr(begin, end - begin);
      std::int64_t place = 0;
      if (is_key && IsDigits(name) && absl::SimpleAtoi(ToAbsl(name), &place)) {
        CADRE_ASSIGN_OR_RETURN(value, GetItem(runtime_, value, Value::Integer(place)));
      } else if (is_key) {
        CADRE_ASSIGN_OR_RETURN(value, GetItem(runtime_, value, Value::String(name)));
      } else {
        CADRE_ASSIGN_OR_RETURN(value, GetAttribute(runtime_, value, name));
      }
      if (is_key) ++end;
    }
    return value;
  }

  Runtime& runtime_;
  const Text& format_;
  const std::string_view bytes_;
  const Arguments& arguments_;
  std::size_t position_ = 0;
  std::uint32_t next_ = 0;
  Text out_;
};

}  // namespace

absl::StatusOr<Value> FormatBraces(Runtime& runtime, const Text& format, const Arguments& arguments) {
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(format.size()));
  return BraceFormatter(runtime, format, arguments).Run();
}

}  // namespace cadre::jinja
