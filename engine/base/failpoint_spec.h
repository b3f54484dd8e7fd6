// What a failpoint does, as written in its specification (failpoint.h has the grammar).
#ifndef CADRE_ENGINE_BASE_FAILPOINT_SPEC_H_
#define CADRE_ENGINE_BASE_FAILPOINT_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre::failpoint {

enum class Action { kOff, kReturn, kSleep, kDelay, kYield, kPrint, kPanic, kPause };

struct Term {
  double probability = 1.0;                     // of applying when its turn comes
  std::optional<int64_t> count = std::nullopt;  // how often it may apply; absent: for ever
  Action action = Action::kOff;
  std::string text = {};     // of return, print and panic
  int64_t milliseconds = 0;  // of sleep and delay, at most kMaxMilliseconds

  bool operator==(const Term&) const = default;
};

inline constexpr int64_t kMaxMilliseconds = 600'000;
inline constexpr size_t kMaxTerms = 64;

// INVALID_ARGUMENT quotes the term and says what is wrong with it.
absl::StatusOr<std::vector<Term>> ParseSpec(std::string_view spec);

}  // namespace cadre::failpoint

#endif  // CADRE_ENGINE_BASE_FAILPOINT_SPEC_H_
