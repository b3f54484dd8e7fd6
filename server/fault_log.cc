#include "server/fault_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace cadre {

std::vector<FaultLog::Line> FaultLog::Observe(const ExpertFaults& faults, absl::Time now) {
  if (last_ != absl::InfinitePast()) lines_left_ += absl::FDivDuration(now - last_, kPauseForALine);
  lines_left_ = std::min(lines_left_, static_cast<double>(kMostLines));
  last_ = now;
  if (lines_left_ > static_cast<double>(kMostLines) / 2) is_flooded_ = false;
  std::vector<Line> lines;
  for (const ExpertFault& fault : faults.told) {
    if (!MayTell(&lines)) continue;
    if (fault.pause == absl::ZeroDuration()) {
      lines.push_back({.is_warning = false, .text = absl::StrCat(fault.message, " can be read again")});
    } else {
      lines.push_back(
          {.text = absl::StrCat(fault.message, "; it is left alone for ", absl::FormatDuration(fault.pause))});
    }
  }
  if (faults.num_more > 0 && MayTell(&lines)) {
    lines.push_back({.text = absl::StrCat("the same of ", faults.num_more, " more experts")});
  }
  return lines;
}

bool FaultLog::MayTell(std::vector<Line>* lines) {
  if (lines_left_ < 1.0) {
    ++num_untold_;
    if (!std::exchange(is_flooded_, true)) {
      lines->push_back({.text = absl::StrCat("more experts than can be told one by one: from here on one each ",
                                             absl::FormatDuration(kPauseForALine))});
    }
    return false;
  }
  lines_left_ -= 1.0;
  if (const int64_t untold = std::exchange(num_untold_, 0); untold > 0) {
    lines->push_back({.text = absl::StrCat("of experts that cannot be read, or can again, ", untold,
                                           " lines were left out before this one")});
  }
  return true;
}

}  // namespace cadre
