#include "engine/experts/shadow_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/experts/slot_table.h"

namespace cadre {
namespace {

// Layers whose experts are drawn by chance, low numbers more often; each step needs up to `most` of each layer.
AccessLog RandomLog(std::mt19937* random, int64_t layers, int64_t experts, int64_t steps, int most) {
  AccessLog log{.num_layers = layers, .num_experts = experts, .times = {}, .ends = {}, .experts = {}};
  for (int64_t step = 0; step < steps; ++step) {
    for (int32_t layer = 0; layer < layers; ++layer) {
      std::set<ExpertId> needed;
      for (int i = 1 + static_cast<int>((*random)() % static_cast<uint32_t>(most)); i > 0; --i) {
        const auto first = static_cast<ExpertId>((*random)() % static_cast<uint32_t>(experts));
        const auto second = static_cast<ExpertId>((*random)() % static_cast<uint32_t>(experts));
        needed.insert(layer * static_cast<ExpertId>(experts) + std::min(first, second));
      }
      log.Append({step, layer}, std::vector<ExpertId>(needed.begin(), needed.end()));
    }
  }
  return log;
}

AccessLog LogOf(int64_t num_experts, const std::vector<std::vector<ExpertId>>& groups) {
  AccessLog log{.num_layers = 1, .num_experts = num_experts, .times = {}, .ends = {}, .experts = {}};
  for (size_t i = 0; i < groups.size(); ++i) log.Append({static_cast<int64_t>(i), 0}, groups[i]);
  return log;
}

TEST(ShadowCache, CountsByHand) {
  const AccessLog log = LogOf(4, {{0}, {1}, {2}, {0}, {1}, {2}, {0}, {1}, {2}});
  EXPECT_EQ(SimulatePolicy(log, {.policy = EvictionPolicyKind::kLru, .num_slots = 2}), (ShadowResult{9, 0}));
  EXPECT_EQ(SimulateBelady(log, 2), (ShadowResult{9, 4})) << "0 and 1 stay, and 2 passes through";
  EXPECT_EQ(SimulatePolicy(log, {.policy = EvictionPolicyKind::kLru, .num_slots = 3}), (ShadowResult{9, 6}));
  EXPECT_EQ(SimulateBelady(log, 3), (ShadowResult{9, 6}));
  EXPECT_EQ(SimulateBelady(LogOf(4, {}), 3), (ShadowResult{0, 0}));
}

TEST(ShadowCache, KeptExpertsStay) {
  const AccessLog log = LogOf(4, {{0}, {1}, {2}, {0}, {1}, {2}, {0}, {1}, {2}});
  ShadowOptions options{.policy = EvictionPolicyKind::kLru, .num_slots = 2, .kept = {0, 1}};
  EXPECT_EQ(SimulatePolicy(log, options).hits, 2) << "0 stays, and one slot is left for others";
  options.num_slots = 1;
  EXPECT_EQ(SimulatePolicy(log, options).hits, 0);
}

// More experts than slots: what is there counts before anything gives way.
TEST(ShadowCache, WavesCountWhatWasThere) {
  const AccessLog log = LogOf(6, {{0, 1}, {0, 1, 2, 3, 4}, {4}});
  const ShadowResult lru = SimulatePolicy(log, {.policy = EvictionPolicyKind::kLru, .num_slots = 2});
  EXPECT_EQ(lru, (ShadowResult{8, 3}));
  EXPECT_EQ(SimulateBelady(log, 2), (ShadowResult{8, 3}));
}

// ---- the best possible, by trying everything ----

using SlotSet = uint32_t;  // a bit for each expert

// The most hits from group `i` on, of caches that may hold any set afterwards of what there was and what came.
int64_t MostHits(const AccessLog& log, int num_slots, size_t i, SlotSet there,
                 std::map<std::pair<size_t, SlotSet>, int64_t>* known) {
  if (i == log.num_groups()) return 0;
  const auto found = known->find({i, there});
  if (found != known->end()) return found->second;
  SlotSet group = 0;
  for (const ExpertId expert : log.group(i)) group |= SlotSet{1} << expert;
  const SlotSet reachable = there | group;
  int64_t most = -1;
  for (SlotSet next = reachable;; next = (next - 1) & reachable) {  // every subset
    if (std::popcount(next) <= num_slots) most = std::max(most, MostHits(log, num_slots, i + 1, next, known));
    if (next == 0) break;
  }
  const int64_t hits = std::popcount(group & there) + most;
  (*known)[{i, there}] = hits;
  return hits;
}

TEST(ShadowCache, BeladyIsTheBestOfAllChoices) {
  std::mt19937 random(17);
  int num_in_waves = 0;
  for (int i = 0; i < 400; ++i) {
    const auto layers = static_cast<int64_t>(1 + random() % 2);
    const auto experts = static_cast<int64_t>(2 + random() % (layers == 1 ? 5 : 3));
    const AccessLog log = RandomLog(&random, layers, experts, layers == 1 ? 9 : 5, static_cast<int>(1 + random() % 4));
    const int num_slots = static_cast<int>(1 + random() % 4);
    std::map<std::pair<size_t, SlotSet>, int64_t> known;
    ASSERT_EQ(SimulateBelady(log, num_slots).hits, MostHits(log, num_slots, 0, 0, &known)) << "trace " << i;
    for (size_t group = 0; group < log.num_groups(); ++group) {
      if (std::ssize(log.group(group)) > num_slots) ++num_in_waves;
    }
  }
  EXPECT_GT(num_in_waves, 100);
}

TEST(ShadowCache, BeladyIsAtLeastAsGoodAsEveryPolicy) {
  std::mt19937 random(23);
  for (int i = 0; i < 60; ++i) {
    const auto layers = static_cast<int64_t>(1 + random() % 4);
    const auto experts = static_cast<int64_t>(2 + random() % 30);
    const AccessLog log = RandomLog(&random, layers, experts, 120, static_cast<int>(1 + random() % 10));
    int64_t before = -1;
    for (int64_t num_slots = 1; num_slots <= layers * experts; num_slots += 1 + static_cast<int64_t>(random() % 7)) {
      const ShadowResult best = SimulateBelady(log, num_slots);
      EXPECT_EQ(best.lookups, std::ssize(log.experts));
      EXPECT_GE(best.hits, before) << "a larger cache is not worse";
      before = best.hits;
      for (const EvictionPolicyKind policy : kEvictionPolicies) {
        const ShadowResult result = SimulatePolicy(log, {.policy = policy, .num_slots = num_slots});
        EXPECT_EQ(result.lookups, best.lookups);
        EXPECT_LE(result.hits, best.hits) << EvictionPolicyName(policy) << " with " << num_slots << " slots";
      }
    }
    const int64_t distinct = std::ssize(std::set<ExpertId>(log.experts.begin(), log.experts.end()));
    EXPECT_EQ(SimulateBelady(log, layers * experts).hits, std::ssize(log.experts) - distinct);
  }
}

// A table that serves the same groups out of step: loads end late and in any order. As long as a layer fits, who gives
// way is settled when the loads begin.
TEST(ShadowCache, AgreesWithTheCountersOfALiveTable) {
  std::mt19937 random(31);
  for (const EvictionPolicyKind policy : kEvictionPolicies) {
    const AccessLog log = RandomLog(&random, 3, 16, 1000, 8);
    constexpr int64_t kNumSlots = 14;
    SlotTable table(48, kNumSlots,
                    CreateEvictionPolicy(policy, {.num_experts = 16, .num_layers = 3, .half_life_steps = 50}));
    AccessTrace trace({.num_layers = 3, .num_experts = 16});
    for (size_t i = 0; i < log.num_groups(); ++i) {
      trace.Append(log.times[i], log.group(i));
      std::vector<ExpertId> missing;
      for (const ExpertId expert : log.group(i)) {
        if (table.Lookup(expert, log.times[i]) == LookupResult::kHit) {
          table.Pin(expert);
        } else {
          missing.push_back(expert);
        }
      }
      std::vector<LoadTicket> loads;
      loads.reserve(missing.size());
      for (const ExpertId expert : missing) {
        loads.push_back(*table.BeginLoad(expert, LoadCause::kMiss, log.times[i]));
      }
      std::ranges::shuffle(loads, random);
      for (const LoadTicket& load : loads) {
        table.FinishLoad(load);
        table.Pin(load.expert);
      }
      for (const ExpertId expert : log.group(i)) table.Unpin(expert);
    }
    const ShadowResult shadow =
        SimulatePolicy(trace.Log(), {.policy = policy, .num_slots = kNumSlots, .half_life_steps = 50});
    EXPECT_EQ(shadow.hits, table.counters().hits) << EvictionPolicyName(policy);
    EXPECT_EQ(shadow.lookups, table.counters().hits + table.counters().misses);
    EXPECT_GT(shadow.hits, 1000);
  }
}

TEST(ShadowCache, WhatIfHasEveryPolicyAtThreeSizes) {
  std::mt19937 random(2);
  const AccessLog log = RandomLog(&random, 2, 16, 200, 4);
  const std::vector<WhatIfRow> rows = SimulateWhatIf(log, {.num_slots = 10});
  ASSERT_EQ(rows.size(), 18U);
  ASSERT_EQ(std::size(kWhatIfPolicies), 6U);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].policy, kWhatIfPolicies[i % 6]);
    EXPECT_EQ(rows[i].num_slots, (std::vector<int64_t>{5, 10, 20}[i / 6]));
    EXPECT_EQ(rows[i].result.lookups, std::ssize(log.experts));
    EXPECT_LE(rows[i].result.hits, rows[i / 6 * 6 + 5].result.hits);
  }
  EXPECT_EQ(rows[7].result, SimulatePolicy(log, {.policy = EvictionPolicyKind::kLfu, .num_slots = 10}));
  EXPECT_EQ(rows[17].result, SimulateBelady(log, 20));
}

TEST(ShadowCache, WhatIfSizesStayWithinTheExperts) {
  std::mt19937 random(2);
  const AccessLog log = RandomLog(&random, 2, 16, 20, 4);
  const auto sizes = [&](int64_t num_slots) {
    std::vector<int64_t> result;
    for (const WhatIfRow& row : SimulateWhatIf(log, {.num_slots = num_slots})) {
      if (row.policy == "belady") result.push_back(row.num_slots);
    }
    return result;
  };
  EXPECT_EQ(sizes(1), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(sizes(20), (std::vector<int64_t>{10, 20, 32}));
  EXPECT_EQ(sizes(32), (std::vector<int64_t>{16, 32}));
  EXPECT_EQ(sizes(int64_t{1} << 62), (std::vector<int64_t>{32}));
}

TEST(ShadowCacheDeathTest, WhatIsRequiredIsChecked) {
  const AccessLog log = LogOf(4, {{0}});
  EXPECT_DEATH(SimulateBelady(log, 0), "num_slots");
  EXPECT_DEATH(SimulatePolicy(log, {.num_slots = 0}), "num_slots");
  EXPECT_DEATH(SimulateWhatIf(log, {.num_slots = 0}), "num_slots");
}

}  // namespace
}  // namespace cadre
