// Flags whose values are durations: "30s", "500ms", "1m30s", or a number of seconds.
#ifndef CADRE_SERVER_DURATION_FLAG_H_
#define CADRE_SERVER_DURATION_FLAG_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace cadre {

// Nothing for what is no duration.
std::optional<absl::Duration> ToDuration(const std::string& text);

// Both ends are allowed.
CLI::Validator DurationIn(absl::Duration low, absl::Duration high);

// "auto", or what `other` allows.
CLI::Validator AutoOr(const CLI::Validator& other);

}  // namespace cadre

#endif  // CADRE_SERVER_DURATION_FLAG_H_
