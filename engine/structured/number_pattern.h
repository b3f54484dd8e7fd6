#ifndef CADRE_ENGINE_STRUCTURED_NUMBER_PATTERN_H_
#define CADRE_ENGINE_STRUCTURED_NUMBER_PATTERN_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/structured/byte_dfa.h"
#include "nlohmann/json.hpp"

namespace cadre {

// A decimal number, exactly.
struct Decimal {
  bool is_negative = false;  // false for zero
  std::string whole;         // digits, "0" or without leading zeros
  std::string fraction;      // digits, without trailing zeros

  // The shortest decimal that reads back as the JSON number. REQUIRES: json is a number.
  static Decimal FromJson(const nlohmann::ordered_json& json);

  friend bool operator==(const Decimal& a, const Decimal& b) = default;
};

// By value. JSON numbers themselves are not compared exactly: integers become doubles, or wrap around.
std::strong_ordering operator<=>(const Decimal& a, const Decimal& b);

// What multiples may cost: states of an automaton, about the divisor without its point times its digits behind it.
inline constexpr int64_t kMaxMultipleStates = 10'000;

struct NumberBounds {
  std::optional<Decimal> minimum = {};
  std::optional<Decimal> maximum = {};
  bool excludes_minimum = false;
  bool excludes_maximum = false;
  std::optional<Decimal> multiple_of = {};  // above zero

  bool any() const { return minimum.has_value() || maximum.has_value() || multiple_of.has_value(); }
};

// Of both: ResourceExhausted when the multiples of `multiple_of`, which are those of decimal numbers, without rounding,
// need more than kMaxMultipleStates states.
//
// JSON integers of at most 18 digits within the bounds.
absl::StatusOr<ByteDfa> IntegerDfa(const NumberBounds& bounds);

// JSON numbers within the bounds. Without bounds: at most 18 digits before and 18 behind the point, and an exponent of
// at most two digits, so that every one of them is finite. With bounds: no exponent, and at most 15 significant digits
// (6 before and 9 behind the point, or 15 before it), so that a reader who rounds to a double sees them kept.
absl::StatusOr<ByteDfa> NumberDfa(const NumberBounds& bounds);

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_NUMBER_PATTERN_H_
