#include "engine/structured/number_pattern.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

constexpr size_t kMaxWholeDigits = 18;
constexpr char kFraction[] = "(?:\\.[0-9]+)?";
constexpr char kWhole[] = "(?:0|[1-9][0-9]*)";
constexpr char kInteger[] = "-?(?:0|[1-9][0-9]{0,17})";
constexpr char kNumber[] = "-?(?:0|[1-9][0-9]{0,17})(?:\\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?";
constexpr char kExactNumber[] = "-?(?:(?:0|[1-9][0-9]{0,5})(?:\\.[0-9]{1,9})?|[1-9][0-9]{6,14})";

std::string Digits(size_t count) { return count == 0 ? "" : absl::StrCat("[0-9]{", count, "}"); }

// A class of digits; nullopt when there is none.
std::optional<std::string> DigitRange(char first, char last) {
  if (first > last) return std::nullopt;
  return absl::StrCat("[", std::string(1, first), "-", std::string(1, last), "]");
}

std::string OneOf(const std::vector<std::string>& ways) {
  if (ways.empty()) return "[^\\u0000-\\u{10FFFF}]";
  return absl::StrCat("(?:", absl::StrJoin(ways, "|"), ")");
}

// Expressions for numbers without sign, with any number of digits. `bound` is taken without its sign.
std::string AtLeast(const Decimal& bound, bool is_excluded) {
  const std::string& whole = bound.whole;
  const std::string& fraction = bound.fraction;
  std::vector<std::string> ways = {absl::StrCat("[1-9]", Digits(whole.size()), "[0-9]*", kFraction)};
  for (size_t i = 0; i < whole.size(); ++i) {
    const auto larger = DigitRange(static_cast<char>(whole[i] + 1), '9');
    if (!larger.has_value()) continue;
    ways.push_back(absl::StrCat(whole.substr(0, i), *larger, Digits(whole.size() - i - 1), kFraction));
  }
  for (size_t i = 0; i < fraction.size(); ++i) {
    const auto larger = DigitRange(static_cast<char>(fraction[i] + 1), '9');
    if (larger.has_value()) ways.push_back(absl::StrCat(whole, "\\.", fraction.substr(0, i), *larger, "[0-9]*"));
  }
  if (is_excluded) {
    ways.push_back(absl::StrCat(whole, "\\.", fraction, "[0-9]*[1-9][0-9]*"));
  } else {
    ways.push_back(fraction.empty() ? absl::StrCat(whole, kFraction) : absl::StrCat(whole, "\\.", fraction, "[0-9]*"));
  }
  return OneOf(ways);
}

std::string AtMost(const Decimal& bound, bool is_excluded) {
  const std::string& whole = bound.whole;
  const std::string& fraction = bound.fraction;
  std::vector<std::string> ways;
  if (whole.size() > 1) ways.push_back(absl::StrCat("(?:0|[1-9][0-9]{0,", whole.size() - 2, "})", kFraction));
  for (size_t i = 0; i < whole.size(); ++i) {
    const char least = i == 0 && whole.size() > 1 ? '1' : '0';
    const auto smaller = DigitRange(least, static_cast<char>(whole[i] - 1));
    if (!smaller.has_value()) continue;
    ways.push_back(absl::StrCat(whole.substr(0, i), *smaller, Digits(whole.size() - i - 1), kFraction));
  }
  if (!fraction.empty()) ways.push_back(whole);
  for (size_t i = 0; i < fraction.size(); ++i) {
    const std::string begin = absl::StrCat(whole, "\\.", fraction.substr(0, i));
    const auto smaller = DigitRange('0', static_cast<char>(fraction[i] - 1));
    if (smaller.has_value()) ways.push_back(absl::StrCat(begin, *smaller, "[0-9]*"));
    if (i > 0) ways.push_back(begin);
  }
  if (!is_excluded) ways.push_back(absl::StrCat(whole, fraction.empty() ? "(?:\\.0+)?" : "\\." + fraction + "0*"));
  return OneOf(ways);
}

bool IsZero(const Decimal& number) { return number.whole == "0" && number.fraction.empty(); }

std::string MinimumPattern(const Decimal& minimum, bool is_excluded) {
  if (!minimum.is_negative) return AtLeast(minimum, is_excluded);
  return absl::StrCat("(?:", kWhole, kFraction, "|-", AtMost(minimum, is_excluded), ")");
}

std::string MaximumPattern(const Decimal& maximum, bool is_excluded) {
  if (maximum.is_negative) return absl::StrCat("-", AtLeast(maximum, is_excluded));
  // -0 is not below zero.
  const std::string any = IsZero(maximum) && is_excluded ? AtLeast(maximum, true) : absl::StrCat(kWhole, kFraction);
  return absl::StrCat("(?:-", any, "|", AtMost(maximum, is_excluded), ")");
}

absl::StatusOr<ByteDfa> Compile(std::string_view pattern) {
  return CompileRegex(pattern, RegexExtent::kWholeText, CharacterCode::kUtf8);
}

// Whether a bound is beyond every number that is written here.
bool IsBeyond(const std::optional<Decimal>& bound) {
  return bound.has_value() && bound->whole.size() > kMaxWholeDigits;
}

// Numbers, without exponent, that are multiples of a divisor. A state is how far the number has been read, and what is
// left of its digits, as a whole number, over the divisor's digits.
class MultiplesDfa {
 public:
  // REQUIRES: `divisor` is at most kMaxMultipleStates.
  MultiplesDfa(int64_t divisor, int64_t num_decimals) : divisor_(divisor), num_decimals_(num_decimals) {}

  ByteDfa Build() {
    // In front of the first digit; behind the sign; then, for each remainder: the whole part, the fraction's digits.
    states_.resize(static_cast<size_t>(kWhole0 + (num_decimals_ + 3) * divisor_));
    AddDigits(0, 0, Of(kWholePart, 0));
    states_[0].edges.insert(states_[0].edges.begin(), {'-', '-', kSign});
    AddDigits(kSign, 0, Of(kWholePart, 0));
    for (int64_t remainder = 0; remainder < divisor_; ++remainder) {
      const int32_t whole = Of(kWholePart, remainder);
      states_[static_cast<size_t>(whole)].edges.push_back({'.', '.', Of(kPoint, remainder)});
      AddDigits(whole, remainder, Of(kWholePart, 0));
      SetAccepts(whole, remainder, num_decimals_);
      for (int64_t read = 0; read <= num_decimals_; ++read) AddDecimal(read, remainder);
    }
    constexpr int64_t kStepsPerState = 12;  // its digits and what is left of them
    const int64_t work = kStepsPerState * std::ssize(states_);
    return ByteDfa(std::move(states_), work);
  }

 private:
  static constexpr int32_t kSign = 1, kWhole0 = 2;
  static constexpr int64_t kWholePart = 0, kPoint = 1;

  int32_t Of(int64_t part, int64_t remainder) const {
    return static_cast<int32_t>(kWhole0 + part * divisor_ + remainder);
  }

  // Where `read` digits behind the point have been read.
  void AddDecimal(int64_t read, int64_t remainder) {
    const int32_t state = Of(kPoint + read, remainder);
    if (read < num_decimals_) {
      AddDigits(state, remainder, Of(kPoint + read + 1, 0));
    } else {
      // The divisor has no digit there. The point itself is no end of a number.
      states_[static_cast<size_t>(state)].edges.push_back({'0', '0', Of(kPoint + num_decimals_ + 1, remainder)});
      const int32_t end = Of(kPoint + num_decimals_ + 1, remainder);
      states_[static_cast<size_t>(end)].edges.push_back({'0', '0', end});
      SetAccepts(end, remainder, 0);
    }
    if (read > 0) SetAccepts(state, remainder, num_decimals_ - read);
  }

  void AddDigits(int32_t from, int64_t remainder, int32_t to_zero) {
    for (int digit = 0; digit < 10; ++digit) {
      const auto byte = static_cast<uint8_t>('0' + digit);
      const auto next = static_cast<int32_t>((remainder * 10 + digit) % divisor_);
      states_[static_cast<size_t>(from)].edges.push_back({byte, byte, to_zero + next});
    }
  }

  void SetAccepts(int32_t state, int64_t remainder, int64_t num_missing) {
    for (int64_t i = 0; i < num_missing; ++i) remainder = remainder * 10 % divisor_;
    states_[static_cast<size_t>(state)].accepts = remainder == 0;
  }

  const int64_t divisor_;
  const int64_t num_decimals_;
  std::vector<ByteDfa::State> states_;
};

absl::StatusOr<ByteDfa> MultiplesOf(const Decimal& divisor) {
  const std::string digits = absl::StrCat(divisor.whole, divisor.fraction);
  const auto num_decimals = static_cast<int64_t>(divisor.fraction.size());
  int64_t whole = 0;
  for (const char digit : digits) whole = std::min(whole * 10 + (digit - '0'), kMaxMultipleStates + 1);
  if (whole * (num_decimals + 3) > kMaxMultipleStates) {
    return absl::ResourceExhaustedError(absl::StrCat("the multiples need more than ", kMaxMultipleStates, " states"));
  }
  return MultiplesDfa(whole, num_decimals).Build();
}

// Of a bound that is seen to be beyond all numbers.
constexpr int64_t kReadBoundSteps = 256;

absl::StatusOr<ByteDfa> Bounded(std::string_view base, NumberBounds bounds) {
  if (IsBeyond(bounds.minimum)) {
    if (!bounds.minimum->is_negative) return ByteDfa({}, kReadBoundSteps);
    bounds.minimum.reset();
  }
  if (IsBeyond(bounds.maximum)) {
    if (bounds.maximum->is_negative) return ByteDfa({}, kReadBoundSteps);
    bounds.maximum.reset();
  }
  CADRE_ASSIGN_OR_RETURN(ByteDfa dfa, Compile(base));
  const auto keep_common = [&dfa](const ByteDfa& other) -> absl::Status {
    const int64_t work = dfa.work() + other.work();
    CADRE_ASSIGN_OR_RETURN(dfa, Intersect(dfa, other));
    dfa.AddWork(work);
    return absl::OkStatus();
  };
  if (bounds.minimum.has_value()) {
    CADRE_ASSIGN_OR_RETURN(const ByteDfa least, Compile(MinimumPattern(*bounds.minimum, bounds.excludes_minimum)));
    CADRE_RETURN_IF_ERROR(keep_common(least));
  }
  if (bounds.maximum.has_value()) {
    CADRE_ASSIGN_OR_RETURN(const ByteDfa most, Compile(MaximumPattern(*bounds.maximum, bounds.excludes_maximum)));
    CADRE_RETURN_IF_ERROR(keep_common(most));
  }
  if (bounds.multiple_of.has_value()) {
    CADRE_ASSIGN_OR_RETURN(const ByteDfa multiples, MultiplesOf(*bounds.multiple_of));
    CADRE_RETURN_IF_ERROR(keep_common(multiples));
  }
  return dfa;
}

}  // namespace

Decimal Decimal::FromJson(const nlohmann::ordered_json& json) {
  std::string text;
  if (json.is_number_float()) {
    std::array<char, 1200> buffer;  // the longest double in fixed notation has about 1,080 characters
    const auto end =
        std::to_chars(buffer.data(), buffer.data() + buffer.size(), json.get<double>(), std::chars_format::fixed);
    text.assign(buffer.data(), end.ptr);
  } else {
    text = json.dump();
  }
  Decimal decimal;
  decimal.is_negative = text.front() == '-';
  if (decimal.is_negative) text.erase(0, 1);
  const size_t point = std::min(text.find('.'), text.size());
  decimal.whole = text.substr(0, point);
  if (point < text.size()) decimal.fraction = text.substr(point + 1);
  while (!decimal.fraction.empty() && decimal.fraction.back() == '0') decimal.fraction.pop_back();
  if (IsZero(decimal)) decimal.is_negative = false;
  return decimal;
}

std::strong_ordering operator<=>(const Decimal& a, const Decimal& b) {
  if (a.is_negative != b.is_negative) {
    return a.is_negative ? std::strong_ordering::less : std::strong_ordering::greater;
  }
  const Decimal& nearer = a.is_negative ? b : a;
  const Decimal& farther = a.is_negative ? a : b;
  if (nearer.whole.size() != farther.whole.size()) return nearer.whole.size() <=> farther.whole.size();
  if (nearer.whole != farther.whole) return nearer.whole <=> farther.whole;
  return nearer.fraction <=> farther.fraction;
}

absl::StatusOr<ByteDfa> IntegerDfa(const NumberBounds& bounds) { return Bounded(kInteger, bounds); }

absl::StatusOr<ByteDfa> NumberDfa(const NumberBounds& bounds) {
  return Bounded(bounds.any() ? kExactNumber : kNumber, bounds);
}

}  // namespace cadre
