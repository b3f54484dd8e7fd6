#include "tools/loadgen/latency_targets.h"

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "tools/client.h"

namespace cadre {
namespace {

void AppendTarget(std::string& text, const char* name, const std::optional<int64_t>& target) {
  if (!target) return;
  absl::StrAppend(&text, text.empty() ? "" : ", ", name, " <= ", absl::FormatDuration(absl::Nanoseconds(*target)));
}

bool Keeps(const std::optional<int64_t>& target, int64_t value) { return !target || value <= *target; }

}  // namespace

absl::StatusOr<LatencyTargets> LatencyTargets::Parse(const std::string& text) {
  LatencyTargets targets;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const std::vector<std::string> pair = absl::StrSplit(part, absl::MaxSplits(':', 1));
    std::optional<int64_t>* target = pair[0] == "ttft"   ? &targets.ttft
                                     : pair[0] == "itl"  ? &targets.itl
                                     : pair[0] == "tpot" ? &targets.tpot
                                     : pair[0] == "e2e"  ? &targets.e2e
                                                         : nullptr;
    absl::Duration limit;
    if (target == nullptr || pair.size() != 2 || !ParseTimeout(pair[1], &limit)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part, "\" is no target; try ttft:200ms,itl:50ms,tpot:30ms,e2e:2s"));
    }
    if (target->has_value()) return absl::InvalidArgumentError(absl::StrCat(pair[0], " is given twice"));
    *target = absl::ToInt64Nanoseconds(limit);
  }
  return targets;
}

bool LatencyTargets::Met(const RequestLatency& latency) const {
  return Keeps(ttft, latency.first_token) && Keeps(itl, latency.longest_gap) && Keeps(tpot, latency.per_token_mean) &&
         Keeps(e2e, latency.end_to_end);
}

std::string LatencyTargets::Describe() const {
  std::string text;
  AppendTarget(text, "ttft", ttft);
  AppendTarget(text, "itl", itl);
  AppendTarget(text, "tpot", tpot);
  AppendTarget(text, "e2e", e2e);
  return text;
}

}  // namespace cadre
