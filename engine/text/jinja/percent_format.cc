#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/format_spec.h"
#include "engine/text/jinja/print.h"
#include "engine/text/utf8.h"

namespace cadre::jinja {
namespace {

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Text& format, const Value& values)
      : runtime_(runtime), format_(format), bytes_(format.bytes()), values_(values) {
    if (values.is_sequence() && values.sequence().type() == SequenceType::kTuple) {
      items_ = values.sequence().items();
    } else {
      items_ = {values};
    }
  }

  absl::StatusOr<Value> Run() {
    while (position_ < bytes_.size()) {
      const std::size_t percent = std::min(bytes_.find('%', position_), bytes_.size());
      out_.AppendSlice(format_, position_, percent);
      position_ = percent + 1;
      if (percent < bytes_.size()) CADRE_RETURN_IF_ERROR(FormatOne());
      CADRE_RETURN_IF_ERROR(runtime_.CheckSize(out_.size()));
    }
    if (next_ < items_.size() && !MayHaveUnused()) {
      return Fail("not all values were used by the format");
    }
    return runtime_.NewString(std::move(out_));
  }

 private:
  // Python minds unused values unless it is one value with items by key.
  bool MayHaveUnused() const {
    const bool is_list = values_.is_sequence() && values_.sequence().type() == SequenceType::kList;
    return values_.is_dict() || is_list || values_.is_undefined();
  }

  char Current() const { return position_ < bytes_.size() ? bytes_[position_] : '\0'; }

  absl::StatusOr<Value> NextValue() {
    if (next_ >= items_.size()) return Fail("not enough values for the format");
    return items_[next_++];
  }

  // %(name)
  absl::StatusOr<Value> NamedValue() {
    const std::size_t close = bytes_.find(')', position_);
    if (close == std::string_view::npos || !values_.is_dict()) return Fail("a name in a format needs a dict");
    const std::string_view name = bytes_.substr(position_ + 1, close - position_ - 1);
    position_ = close + 1;
    const Value* const found = values_.dict().Find(name);
    if (found == nullptr) return Fail(absl::StrCat("the format needs a value called ", Quoted(name)));
    return *found;
  }

  // A number, or a star, which takes the next value.
  absl::StatusOr<std::int64_t> ReadWidth() {
    if (Current() == '*') {
      ++position_;
      CADRE_ASSIGN_OR_RETURN(const Value width, NextValue());
      if (!width.is_integral()) return Fail("'*' in a format takes an int");
      return std::min(width.integer(), kMaxFormatWidth + 1);
    }
    std::int64_t width = 0;
    for (; absl::ascii_isdigit(static_cast<unsigned char>(Current())); ++position_) {
      width = std::min(width * 10 + (Current() - '0'), kMaxFormatWidth + 1);
    }
    return width;
  }

  absl::Status FormatOne() {
    bool has_name = false;
    Value named;
    if (Current() == '(') {
      CADRE_ASSIGN_OR_RETURN(named, NamedValue());
      has_name = true;
    }
    FormatSpec spec;
    bool is_left = false;
    bool has_zeros = false;
    for (; std::string_view("-+ #0").find(Current()) != std::string_view::npos && Current() != '\0'; ++position_) {
      is_left |= Current() == '-';
      has_zeros |= Current() == '0';
      spec.is_alternate |= Current() == '#';
      if (Current() == '+' || (Current() == ' ' && spec.sign != '+')) spec.sign = Current();
    }
    CADRE_ASSIGN_OR_RETURN(spec.width, ReadWidth());
    if (spec.width < 0) {
      is_left = true;
      spec.width = -std::max(spec.width, -kMaxFormatWidth - 1);
    }
    if (Current() == '.') {
      ++position_;
      CADRE_ASSIGN_OR_RETURN(spec.precision, ReadWidth());
      spec.precision = std::max<std::int64_t>(*spec.precision, 0);
    }
    spec.type = Current();
    ++position_;
    if (spec.type == '%') {
      out_.AppendSlice(format_, position_ - 1, position_);
      return absl::OkStatus();
    }
    if (!has_name) {
      CADRE_ASSIGN_OR_RETURN(named, NextValue());
    }
    spec.align = is_left ? '<' : '>';
    if (has_zeros && !is_left) {
      spec.align = '=';
      spec.fill.assign(1, '0');
    }
    return Print(named, spec);
  }

  absl::Status Print(const Value& value, FormatSpec spec) {
    Value printed = value;
    switch (spec.type) {
      case 's':
      case 'r': {
        Text text;
        CADRE_RETURN_IF_ERROR(spec.type == 's' ? AppendString(runtime_, value, &text)
                                               : AppendRepr(runtime_, value, &text));
        printed = Value::String(std::move(text));
        break;
      }
      case 'c': {
        const bool is_character = value.is_string() && CountCodePoints(value.bytes()) == 1;
        if (!is_character) return Fail("the format %c takes one character");
        break;
      }
      case 'd':
      case 'i':
      case 'u': {
        if (value.is_undefined()) return UndefinedError(value);
        if (!value.is_number()) return Fail(absl::StrCat("the format %d takes a number, not a ", value.TypeName()));
        constexpr double kLimit = 9.2e18;
        if (value.is_float() && !(value.number() > -kLimit && value.number() < kLimit)) {
          return Fail("the number does not fit into 64 bits");
        }
        printed = Value::Integer(value.is_float() ? static_cast<std::int64_t>(value.number()) : value.integer());
        break;
      }
      default:
        if (value.is_undefined()) return UndefinedError(value);
        if (std::string_view("xXoeEfFgG").find(spec.type) == std::string_view::npos || spec.type == '\0') {
          return Fail(absl::StrCat("unknown format ", Quoted(absl::StrCat("%", std::string(1, spec.type)))));
        }
        if (!value.is_number()) return Fail(absl::StrCat("this format takes a number, not a ", value.TypeName()));
    }
    if (printed.is_string()) {
      spec.type = 's';
      spec.sign = '-';
      spec.fill.assign(1, ' ');
      if (spec.align == '=') spec.align = '>';
    }
    CADRE_ASSIGN_OR_RETURN(const Text text, PrintFormatted(runtime_, printed, spec));
    out_.Append(text);
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const Text& format_;
  const std::string_view bytes_;
  const Value& values_;
  std::vector<Value> items_;
  std::size_t next_ = 0;
  std::size_t position_ = 0;
  Text out_;
};

}  // namespace

absl::StatusOr<Value> FormatPercent(Runtime& runtime, const Text& format, const Value& values) {
  CADRE_RETURN_IF_ERROR(runtime.ChargeBytes(format.size()));
  return PercentFormatter(runtime, format, values).Run();
}

}  // namespace cadre::jinja
