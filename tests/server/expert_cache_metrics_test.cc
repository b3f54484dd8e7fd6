// What the expert cache tells Prometheus: nothing where there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/experts/expert_cache.h"
#include "engine/experts/expert_placement.h"
#include "engine/experts/expert_stats.h"
#include "server/expert_metrics.h"
#include "server/metrics.h"

namespace cadre {
namespace {

using testing::HasSubstr;

TEST(ExpertCacheMetricsTest, LayersTellTheirOwn) {
  using enum ExpertTier;
  const ExpertPlacement placement{.tiers = {kCheckpoint, kDevice, kHost, kCheckpoint, kDevice, kDevice},
                                  .loading = {},
                                  .kept = {},
                                  .quarantined = {},
                                  .counters = {{.hits = 1, .misses = 2},
                                               {.loads_done = 3,
                                                .evictions = 4,
                                                .prefetches_used = 5,
                                                .prefetches_late = 6,
                                                .prefetches_wasted = 7,
                                                .prefetches_failed = 8}},
                                  .waits = {absl::Milliseconds(1500), absl::ZeroDuration()}};
  MetricPage page;
  WriteCacheLayers(placement, {1, 4}, page);
  const std::string text = std::move(page).Take();
  for (const char* line : {
           "cadre_layer_expert_lookups_total{layer=\"1\",result=\"hit\"} 1\n",
           "cadre_layer_expert_lookups_total{layer=\"1\",result=\"miss\"} 2\n",
           "cadre_layer_expert_lookups_total{layer=\"4\",result=\"miss\"} 0\n",
           "cadre_layer_expert_loads_total{layer=\"4\"} 3\n",
           "cadre_layer_expert_evictions_total{layer=\"4\"} 4\n",
           "cadre_layer_expert_prefetches_total{layer=\"4\",result=\"used\"} 5\n",
           "cadre_layer_expert_prefetches_total{layer=\"4\",result=\"late\"} 6\n",
           "cadre_layer_expert_prefetches_total{layer=\"4\",result=\"wasted\"} 7\n",
           "cadre_layer_expert_prefetches_total{layer=\"4\",result=\"failed\"} 8\n",
           "cadre_layer_expert_wait_seconds_total{layer=\"1\"} 1.5\n",
           "cadre_layer_experts{layer=\"1\",tier=\"device\"} 1\n",
           "cadre_layer_experts{layer=\"1\",tier=\"host\"} 1\n",
           "cadre_layer_experts{layer=\"4\",tier=\"checkpoint\"} 1\n",
           "cadre_layer_experts{layer=\"4\",tier=\"device\"} 2\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(ExpertCacheMetricsTest, EveryFigureIsTold) {
  EngineSnapshot engine;
  Metrics metrics({});
  ServedModel model;
  model.moe_layers = {0};
  metrics.SetModel(model, {[&engine] { return engine; }, [] { return ExpertStats(1, 2, 1, 4096).Snapshot(); }});
  EXPECT_THAT(metrics.RenderDefaultPage(), testing::Not(HasSubstr("cadre_expert_lookups_total")));
  ExpertCacheReport report;
  report.slots = {.hits = 11,
                  .misses = 12,
                  .miss_loads = 13,
                  .prefetch_loads = 14,
                  .placed_loads = 30,
                  .evictions = 15,
                  .prefetches_used = 16,
                  .prefetches_late = 17,
                  .prefetches_wasted = 18,
                  .prefetches_failed = 19};
  report.loads = {.bytes = 19, .errors = 20, .read_time = absl::Milliseconds(2500)};
  report.wait_time = absl::Milliseconds(1500);
  report.direct_bytes = 27;
  report.missing = 21;
  report.quarantined = 22;
  report.empty_slots = 23;
  report.loading_slots = 24;
  report.idle_slots = 25;
  report.pinned_slots = 26;
  report.kept = 28;
  report.awaited = 29;
  engine.expert_cache = report;
  engine.preferred_sequences = 31;
  engine.passed_over = 32;
  const std::string page = metrics.RenderDefaultPage();
  for (const char* const line : {"cadre_expert_lookups_total{result=\"hit\"} 11",
                                 "cadre_expert_lookups_total{result=\"miss\"} 12",
                                 "cadre_expert_loads_total{cause=\"miss\"} 13",
                                 "cadre_expert_loads_total{cause=\"prefetch\"} 14",
                                 "cadre_expert_loads_total{cause=\"placed\"} 30",
                                 "cadre_experts_kept 28",
                                 "cadre_experts_awaited 29",
                                 "cadre_expert_evictions_total 15",
                                 "cadre_expert_aware_preferred_total 31",
                                 "cadre_expert_aware_passed_over_total 32",
                                 "cadre_expert_prefetches_total{result=\"used\"} 16",
                                 "cadre_expert_prefetches_total{result=\"late\"} 17",
                                 "cadre_expert_prefetches_total{result=\"wasted\"} 18",
                                 "cadre_expert_prefetches_total{result=\"failed\"} 19",
                                 "cadre_expert_load_bytes_total 19",
                                 "cadre_expert_load_errors_total 20",
                                 "cadre_expert_load_seconds_total 2.5",
                                 "cadre_expert_wait_seconds_total 1.5",
                                 "cadre_experts_missing_total 21",
                                 "cadre_experts_quarantined 22",
                                 "cadre_expert_slots{state=\"empty\"} 23",
                                 "cadre_expert_slots{state=\"loading\"} 24",
                                 "cadre_expert_direct_bytes_total 27",
                                 "cadre_expert_slots{state=\"idle\"} 25",
                                 "cadre_expert_slots{state=\"pinned\"} 26"}) {
    EXPECT_THAT(page, HasSubstr(std::string(line) + "\n"));
  }
}

TEST(ExpertCacheMetricsTest, WhatIfHasEverySeriesFromTheStart) {
  auto report = std::make_shared<WhatIfReport>();
  report->num_slots = 3;
  report->num_experts = 5;
  std::shared_ptr<const WhatIfReport> told;
  Metrics metrics({});
  ServedModel model;
  model.moe_layers = {0};
  metrics.SetModel(model, {.engine = [] { return EngineSnapshot(); },
                           .experts = [] { return ExpertStats(1, 2, 1, 4096).Snapshot(); },
                           .what_if = [&told] { return told; }});
  EXPECT_THAT(metrics.RenderDefaultPage(), testing::Not(HasSubstr("what_if")));
  told = report;
  std::string page = metrics.RenderDefaultPage();
  for (const std::string_view policy : kWhatIfPolicies) {
    for (const char* const size : {"half", "same", "twice"}) {
      EXPECT_THAT(page, HasSubstr(std::string("cadre_expert_what_if_hit_ratio{policy=\"")
                                      .append(policy)
                                      .append("\",size=\"")
                                      .append(size)
                                      .append("\"} 0\n")));
    }
  }
  auto later = std::make_shared<WhatIfReport>(*report);
  later->num_simulations = 7;
  later->num_lookups = 40;
  later->cpu_time = absl::Milliseconds(250);
  later->rows = {{"lru", 1, {.lookups = 40, .hits = 10}}, {"lru", 5, {.lookups = 40, .hits = 30}}};
  told = later;
  page = metrics.RenderDefaultPage();
  for (const char* const line :
       {"cadre_expert_what_if_hit_ratio{policy=\"lru\",size=\"half\"} 0.25",
        "cadre_expert_what_if_hit_ratio{policy=\"lru\",size=\"twice\"} 0.75",
        "cadre_expert_what_if_slots{size=\"half\"} 1", "cadre_expert_what_if_slots{size=\"same\"} 3",
        "cadre_expert_what_if_slots{size=\"twice\"} 5", "cadre_expert_what_if_lookups 40",
        "cadre_expert_what_if_simulations_total 7", "cadre_expert_what_if_cpu_seconds_total 0.25"}) {
    EXPECT_THAT(page, HasSubstr(std::string(line) + "\n"));
  }
  metrics.ClearSources();
  EXPECT_THAT(metrics.RenderDefaultPage(), HasSubstr("cadre_expert_what_if_lookups 40\n"));
}

// What has moved is told as it is now, also where the memory plan is told.
TEST(ExpertCacheMetricsTest, MemoryThatMoves) {
  EngineSnapshot engine;
  Metrics metrics({});
  ServedModel model;
  model.moe_layers = {0};
  model.expert_weight_bytes = 1;
  model.kv_cache_bytes = 2;
  metrics.SetModel(model, {[&engine] { return engine; }, [] { return ExpertStats(1, 2, 1, 4096).Snapshot(); }});
  EXPECT_THAT(metrics.RenderDefaultPage(), testing::Not(HasSubstr("cadre_memory_split")));
  JointBudgetReport& budget = engine.joint_budget.emplace();
  budget.limits.slot_bytes = 500;
  budget.limits.block_bytes = 200;
  budget.shares = {.slots = 9, .blocks = 70};
  budget.effects = {.slots_gain = 1.0, .slots_loss = 2.0, .blocks_gain = 3.0, .blocks_loss = 4.0};
  budget.stretch = absl::Seconds(4);
  budget.moves_to_slots = 2;
  budget.moves_to_blocks = 5;
  const std::string page = metrics.RenderDefaultPage();
  for (const char* const line :
       {"cadre_memory_split_bytes{side=\"experts\"} 4500", "cadre_memory_split_bytes{side=\"kv_blocks\"} 14000",
        "cadre_memory_bytes{pool=\"expert_weights\"} 4500", "cadre_memory_bytes{pool=\"kv_cache\"} 14000",
        "cadre_memory_split_gain_ratio{side=\"experts\"} 0.25",
        "cadre_memory_split_gain_ratio{side=\"kv_blocks\"} 0.75", "cadre_memory_split_loss_ratio{side=\"experts\"} 0.5",
        "cadre_memory_split_loss_ratio{side=\"kv_blocks\"} 1", "cadre_memory_split_moves_total{to=\"experts\"} 2",
        "cadre_memory_split_moves_total{to=\"kv_blocks\"} 5"}) {
    EXPECT_THAT(page, HasSubstr(std::string(line) + "\n"));
  }
}

}  // namespace
}  // namespace cadre
