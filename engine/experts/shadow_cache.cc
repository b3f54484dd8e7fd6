#include "engine/experts/shadow_cache.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "engine/base/check.h"
#include "engine/experts/load_window.h"
#include "engine/experts/slot_table.h"

namespace cadre {
namespace {

// ---- policies ----

class ShadowTable {
 public:
  ShadowTable(const AccessLog& log, const ShadowOptions& options)
      : table_(log.num_layers * log.num_experts, options.num_slots,
               CreateEvictionPolicy(options.policy, {.num_experts = log.num_experts,
                                                     .num_layers = log.num_layers,
                                                     .half_life_steps = options.half_life_steps})),
        max_loads_(MaxMissesInFlight(options.num_threads, options.num_slots)) {
    const auto num_kept = std::min(std::ssize(options.kept), static_cast<std::ptrdiff_t>(options.num_slots - 1));
    const absl::Status kept = table_.SetKept({options.kept.begin(), options.kept.begin() + num_kept}, 1);
    CADRE_CHECK(kept.ok());
  }

  void Need(const LayerTime& now, std::span<const ExpertId> experts) {
    missing_.clear();
    for (const ExpertId expert : experts) {
      if (table_.Lookup(expert, now) == LookupResult::kHit) {
        table_.Pin(expert);
        pinned_.push_back(expert);
      } else {
        missing_.push_back(expert);
      }
    }
    for (const ExpertId expert : missing_) {
      if (std::ssize(loads_) == max_loads_) EndWave();
      std::optional<LoadTicket> ticket = table_.BeginLoad(expert, LoadCause::kMiss, now);
      if (!ticket.has_value()) {
        EndWave();
        ticket = table_.BeginLoad(expert, LoadCause::kMiss, now);
      }
      CADRE_CHECK(ticket.has_value());
      loads_.push_back(*ticket);
    }
    EndWave();
  }

  ShadowResult result() const {
    const SlotCounters& counters = table_.counters();
    return {.lookups = counters.hits + counters.misses, .hits = counters.hits};
  }

 private:
  void EndWave() {
    for (const LoadTicket& load : loads_) table_.FinishLoad(load);
    loads_.clear();
    for (const ExpertId expert : pinned_) table_.Unpin(expert);
    pinned_.clear();
  }

  SlotTable table_;
  const int64_t max_loads_;
  std::vector<LoadTicket> loads_;
  std::vector<ExpertId> pinned_;
  std::vector<ExpertId> missing_;
};

// ---- Belady's choice ----

// For each access the group that needs the same expert next.
std::vector<size_t> NextUses(const AccessLog& log) {
  std::vector<size_t> next_of(static_cast<size_t>(log.num_layers * log.num_experts),
                              std::numeric_limits<size_t>::max());
  std::vector<size_t> next(log.experts.size());
  size_t access = log.experts.size();
  for (size_t group = log.num_groups(); group-- > 0;) {
    const size_t begin = group == 0 ? 0 : log.ends[group - 1];
    while (access > begin) {
      --access;
      size_t& known = next_of[static_cast<size_t>(log.experts[access])];
      next[access] = known;
      known = group;
    }
  }
  return next;
}

class BeladyCache {
 public:
  BeladyCache(const AccessLog& log, int64_t num_slots)
      : num_slots_(static_cast<size_t>(num_slots)),
        next_of_(static_cast<size_t>(log.num_layers * log.num_experts), kAbsent) {}

  // `next` of each expert.
  void Need(std::span<const ExpertId> experts, std::span<const size_t> next) {
    result_.lookups += std::ssize(experts);
    for (size_t i = 0; i < experts.size(); ++i) {
      const Use use = {next[i], experts[i]};
      if (const size_t known = next_of_[static_cast<size_t>(use.second)]; known != kAbsent) {
        ++result_.hits;
        there_.erase({known, use.second});
      }
      Insert(use);
    }
    while (there_.size() > num_slots_) PutOutFarthest();
  }

  const ShadowResult& result() const { return result_; }

 private:
  using Use = std::pair<size_t, ExpertId>;  // the group that needs it next
  static constexpr size_t kAbsent = std::numeric_limits<size_t>::max() - 1;

  void Insert(const Use& use) {
    there_.insert(use);
    next_of_[static_cast<size_t>(use.second)] = use.first;
  }

  void PutOutFarthest() {
    const auto farthest = std::prev(there_.end());
    next_of_[static_cast<size_t>(farthest->second)] = kAbsent;
    there_.erase(farthest);
  }

  const size_t num_slots_;
  std::vector<size_t> next_of_;  // by expert
  std::set<Use> there_;
  ShadowResult result_;
};

}  // namespace

ShadowResult SimulatePolicy(const AccessLog& log, const ShadowOptions& options) {
  CADRE_CHECK_GE(options.num_slots, 1);
  ShadowTable table(log, options);
  for (size_t i = 0; i < log.num_groups(); ++i) table.Need(log.times[i], log.group(i));
  return table.result();
}

ShadowResult SimulateBelady(const AccessLog& log, int64_t num_slots) {
  CADRE_CHECK_GE(num_slots, 1);
  const std::vector<size_t> next = NextUses(log);
  BeladyCache cache(log, num_slots);
  std::span<const size_t> rest(next);
  for (size_t i = 0; i < log.num_groups(); ++i) {
    const std::span<const ExpertId> group = log.group(i);
    cache.Need(group, rest.first(group.size()));
    rest = rest.subspan(group.size());
  }
  return cache.result();
}

std::array<int64_t, 3> WhatIfSizes(int64_t num_slots, int64_t num_experts) {
  const int64_t most = std::min(num_slots, num_experts);
  return {std::max(std::min(num_slots / 2, num_experts), int64_t{1}), most, std::min(most * 2, num_experts)};
}

std::vector<WhatIfRow> SimulateWhatIf(const AccessLog& log, const ShadowOptions& live,
                                      const std::atomic<bool>* must_stop) {
  CADRE_CHECK_GE(live.num_slots, 1);
  const std::array<int64_t, 3> wanted = WhatIfSizes(live.num_slots, log.num_layers * log.num_experts);
  std::vector<int64_t> sizes(wanted.begin(), wanted.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  std::vector<WhatIfRow> rows;
  for (const int64_t size : sizes) {
    for (const EvictionPolicyKind policy : kEvictionPolicies) {
      if (must_stop != nullptr && must_stop->load()) return rows;
      ShadowOptions options = live;
      options.policy = policy;
      options.num_slots = size;
      rows.push_back({EvictionPolicyName(policy), size, SimulatePolicy(log, options)});
    }
    rows.push_back({kBeladyName, size, SimulateBelady(log, size)});
  }
  return rows;
}

}  // namespace cadre
