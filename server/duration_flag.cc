#include "server/duration_flag.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace cadre {

std::optional<absl::Duration> ToDuration(const std::string& text) {
  absl::Duration duration;
  if (double seconds = 0; absl::SimpleAtod(text, &seconds)) return absl::Seconds(seconds);
  if (absl::ParseDuration(text, &duration)) return duration;
  return std::nullopt;
}

CLI::Validator DurationIn(absl::Duration low, absl::Duration high) {
  const std::string range = absl::StrCat("[", absl::FormatDuration(low), ", ", absl::FormatDuration(high), "]");
  const auto check = [=](const std::string& text) -> std::string {
    const auto duration = ToDuration(text);
    if (!duration.has_value()) return absl::StrCat("\"", text, "\" is no duration such as 30s or 500ms");
    if (*duration >= low && *duration <= high) return "";
    return absl::StrCat(text, " is not in ", range);
  };
  return CLI::Validator(check, absl::StrCat("DURATION in ", range));
}

CLI::Validator AutoOr(const CLI::Validator& other) {
  const auto check = [=](const std::string& text) { return text == "auto" ? "" : other(text); };
  return CLI::Validator(check, absl::StrCat("auto or ", other.get_description()));
}

}  // namespace cadre
