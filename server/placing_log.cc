#include "server/placing_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

// One that cannot be read is waited for as long as it takes: the longer, the fewer words.
constexpr absl::Duration kFirstPause = absl::Seconds(5);
constexpr absl::Duration kLastPause = absl::Minutes(10);

}  // namespace

std::optional<std::string> PlacingLog::Observe(const ExpertCacheReport& report, absl::Time now) {
  const int64_t read = report.placed - read_before_;
  if (report.awaited == 0) {
    const bool was_under_way = std::exchange(is_under_way_, false);
    if (read == 0 && !was_under_way) return std::nullopt;
    read_before_ = report.placed;
    const std::string time =
        was_under_way ? absl::StrCat(" in ", absl::FormatDuration(absl::Trunc(now - begin_, absl::Milliseconds(100))))
                      : "";
    return absl::StrCat("experts read ahead: ", read, time);
  }
  if (!std::exchange(is_under_way_, true)) {
    begin_ = now;
    pause_ = kFirstPause;
    next_ = now + pause_;
    return absl::StrCat("reading experts ahead: ", report.awaited);
  }
  if (now < next_) return std::nullopt;
  pause_ = std::min(pause_ * 2, kLastPause);
  next_ = now + pause_;
  return absl::StrCat("reading experts ahead: ", read, " read, ", report.awaited, " are still to come");
}

}  // namespace cadre
