#include "tools/what_if_table.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cadre {
namespace {

constexpr int kColumn = 13;

std::string Memory(int64_t slots, const v1::GetWhatIfResponse& what_if) {
  constexpr double kMib = 1 << 20;
  const double mib = static_cast<double>(slots * what_if.expert_bytes()) / kMib;
  return mib < 1024 ? absl::StrFormat("%.1f MiB", mib) : absl::StrFormat("%.1f GiB", mib / 1024);
}

// In order of their first appearance.
template <typename Value, typename Get>
std::vector<Value> Distinct(const v1::GetWhatIfResponse& what_if, Get get) {
  std::vector<Value> values;
  for (const v1::WhatIfCache& cache : what_if.caches()) {
    if (std::find(values.begin(), values.end(), get(cache)) == values.end()) values.push_back(get(cache));
  }
  return values;
}

}  // namespace

std::string FormatWhatIf(const v1::GetWhatIfResponse& what_if) {
  std::string text =
      absl::StrFormat("%s: %d of %d experts in memory (%s), policy %s\n", what_if.model(), what_if.slots(),
                      what_if.experts(), Memory(what_if.slots(), what_if), what_if.policy());
  if (what_if.caches().empty() || what_if.lookups() == 0) {
    return text + "nothing was simulated yet: experts are noted as steps need them\n";
  }
  absl::StrAppendFormat(&text, "hits of other caches in the last %d steps, %d lookups, each from empty:\n",
                        what_if.steps(), what_if.lookups());
  const auto policies = Distinct<std::string>(what_if, [](const auto& cache) { return cache.policy(); });
  absl::StrAppendFormat(&text, "%10s  %10s", "experts", "memory");
  for (const std::string& policy : policies) absl::StrAppendFormat(&text, "%*s", kColumn, policy);
  text += "\n";
  for (const int64_t slots : Distinct<int64_t>(what_if, [](const auto& cache) { return cache.slots(); })) {
    absl::StrAppendFormat(&text, "%10d  %10s", slots, Memory(slots, what_if));
    for (const std::string& policy : policies) {
      for (const v1::WhatIfCache& cache : what_if.caches()) {
        if (cache.slots() != slots || cache.policy() != policy) continue;
        const bool is_live = slots == what_if.slots() && policy == what_if.policy();
        const double percent = 100.0 * static_cast<double>(cache.hits()) / static_cast<double>(what_if.lookups());
        absl::StrAppendFormat(&text, "%*s", kColumn, absl::StrFormat("%s%.1f %%", is_live ? "> " : "", percent));
      }
    }
    text += "\n";
  }
  if (what_if.pinned() > 0) {
    absl::StrAppendFormat(&text, "the cache that serves has %d pinned experts; none of these has any\n",
                          what_if.pinned());
  }
  if (what_if.resident() > 0) {
    absl::StrAppendFormat(&text, "%d more experts lie in the device's memory for good, and are in no lookup here\n",
                          what_if.resident());
  }
  return text + "> as the cache that serves; belady: the best that anybody could do who knew the future\n";
}

}  // namespace cadre
