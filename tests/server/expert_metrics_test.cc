#include "server/expert_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/expert_json.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

// One step of `tokens` rows in two layers of 16 experts, two for each token: the first layer sends all to experts 3 and
// 9, the second to all alike.
ExpertSnapshot OneCollapsedLayer(int64_t tokens) {
  ExpertStats stats(2, 16, 2, 4096);
  StepRouting step;
  step.num_layers = 2;
  step.num_experts = 16;
  step.top_k = 2;
  step.num_tokens = tokens;
  step.assignments.assign(32, 0);
  step.assignments[3] = step.assignments[9] = tokens;
  std::fill(step.assignments.begin() + 16, step.assignments.end(), tokens * 2 / 16);
  step.gate_weight.assign(32, 0.25);
  step.probability.assign(32, static_cast<double>(tokens) / 16);
  step.squared_log_sum_exp.assign(2, 0.0);
  step.sequence_assignments = {tokens * 4};
  stats.Record(step);
  return stats.Snapshot();
}

TEST(RouterHealthMetrics, TellOfDeadAndHotExpertsAndOfCollapse) {
  const ExpertSnapshot snapshot = OneCollapsedLayer(8000);
  MetricPage page;
  WriteRoutingTotals(snapshot, page);
  WriteRouterHealth(snapshot, {1, 4}, page);
  WriteLayers(snapshot, {1, 4}, page);
  const std::string text = std::move(page).Take();
  for (const char* line : {
           "cadre_routing_unaccounted_assignments 0\n",
           "cadre_router_dead_experts 14\n",
           "cadre_router_hot_experts 2\n",
           "cadre_router_collapsed_layers 1\n",
           // 1.6 of 16 experts carry 0.8 of the load in one layer and 0.1 in the other.
           "cadre_router_concentration_ratio{busiest=\"0.1\"} 0.45",
           "cadre_router_concentration_ratio{busiest=\"0.5\"} 0.75\n",
           "cadre_layer_collapsed{layer=\"1\"} 1\n",
           "cadre_layer_collapsed{layer=\"4\"} 0\n",
           "cadre_layer_dead_experts{layer=\"1\"} 14\n",
           "cadre_layer_hot_experts{layer=\"1\"} 2\n",
           "cadre_layer_hot_experts{layer=\"4\"} 0\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(RouterHealthMetrics, SayWhatIsUnaccounted) {
  ExpertSnapshot snapshot = OneCollapsedLayer(8000);
  snapshot.total[0].processed[3] -= 5;
  snapshot.total[1].dropped[0] += 2;
  MetricPage page;
  WriteRoutingTotals(snapshot, page);
  EXPECT_THAT(std::move(page).Take(), HasSubstr("cadre_routing_unaccounted_assignments 7\n"));
}

TEST(ExpertJson, TellsTheCountersOfEachLayer) {
  const ExpertSnapshot snapshot = OneCollapsedLayer(8000);
  const std::string text = ExpertJson("a \"name\"\xff", snapshot, {1, 4}, /*window=*/true, 12.5);
  const nlohmann::json json = nlohmann::json::parse(text);
  EXPECT_EQ(json["model"], "a \"name\"\xef\xbf\xbd");
  EXPECT_EQ(json["time"], 12.5);
  EXPECT_EQ(json["num_experts"], 16);
  EXPECT_EQ(json["top_k"], 2);
  EXPECT_EQ(json["omitted_layers"], 0);
  ASSERT_EQ(json["layers"].size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const nlohmann::json& layer = json["layers"][i];
    EXPECT_EQ(layer["layer"], i == 0 ? 1 : 4);
    EXPECT_EQ(layer["tokens"], 8000);
    EXPECT_EQ(layer["collapsed"], i == 0);
    EXPECT_EQ(layer["processed"].get<std::vector<int64_t>>(), snapshot.window[i].processed);
    EXPECT_EQ(layer["gate_weight"].get<std::vector<double>>(), snapshot.window[i].gate_weight);
    EXPECT_FALSE(layer.contains("dropped"));
  }
}

TEST(ExpertJson, TellsOfTheCacheWhereThereIsOne) {
  const ExpertSnapshot snapshot = OneCollapsedLayer(8000);
  EXPECT_FALSE(nlohmann::json::parse(ExpertJson("m", snapshot, {1, 4}, true, 0.0)).contains("cache"));
  ExpertCacheReport cache;
  cache.num_slots = 12;
  cache.slots = {
      .hits = 1, .misses = 2, .evictions = 3, .prefetches_used = 4, .prefetches_late = 5, .prefetches_wasted = 6};
  cache.loads.bytes = 7;
  cache.wait_time = absl::Milliseconds(1500);
  cache.quarantined = 8;
  EXPECT_EQ(nlohmann::json::parse(ExpertJson("m", snapshot, {1, 4}, true, 0.0, cache))["cache"],
            nlohmann::json::parse(R"({"slots": 12, "hits": 1, "misses": 2, "loaded_bytes": 7, "wait_seconds": 1.5,
                                      "evictions": 3, "prefetches_used": 4, "prefetches_late": 5,
                                      "prefetches_wasted": 6, "quarantined": 8})"));
}

TEST(ExpertJson, TellsDriftWhereThereIsABaseline) {
  ExpertSnapshot snapshot = OneCollapsedLayer(8000);
  EXPECT_FALSE(nlohmann::json::parse(ExpertJson("m", snapshot, {1, 4}, true, 0.0))["layers"][0].contains("drift"));
  snapshot.drift = {0.25, 0.0};
  const nlohmann::json json = nlohmann::json::parse(ExpertJson("m", snapshot, {1, 4}, true, 0.0));
  EXPECT_EQ(json["layers"][0]["drift"], 0.25);
  EXPECT_EQ(json["layers"][1]["drift"], 0.0);
  MetricPage page;
  WriteRouterHealth(snapshot, {1, 4}, page);
  WriteLayers(snapshot, {1, 4}, page);
  const std::string text = std::move(page).Take();
  EXPECT_THAT(text, HasSubstr("cadre_router_drift_ratio{over=\"mean\"} 0.125\n"));
  EXPECT_THAT(text, HasSubstr("cadre_router_drift_ratio{over=\"worst\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("cadre_router_has_baseline 1\n"));
  EXPECT_THAT(text, HasSubstr("cadre_layer_drift_ratio{layer=\"1\"} 0.25\n"));
}

TEST(ExpertJson, IsBoundedForAnyModel) {
  constexpr int32_t kLayers = 200;
  constexpr int32_t kExperts = 1024;
  ExpertSnapshot snapshot;
  snapshot.num_layers = kLayers;
  snapshot.num_experts = kExperts;
  LayerCounters layer;
  layer.tokens = int64_t{1} << 60;
  for (auto list :
       {&LayerCounters::processed, &LayerCounters::rerouted, &LayerCounters::reweighted, &LayerCounters::dropped}) {
    (layer.*list).assign(kExperts, int64_t{1} << 53);
  }
  layer.gate_weight.assign(kExperts, 1.23456789e300);
  layer.lost_gate_weight = layer.gate_weight;
  snapshot.total.assign(kLayers, layer);
  std::vector<int32_t> moe_layers(kLayers);
  std::iota(moe_layers.begin(), moe_layers.end(), 0);
  const std::string text = ExpertJson("big", snapshot, moe_layers, /*window=*/false, 0.0);
  EXPECT_LT(text.size(), static_cast<size_t>(kMaxExpertJsonCells) * 100);
  const nlohmann::json json = nlohmann::json::parse(text);
  EXPECT_EQ(json["layers"].size(), 64u);
  EXPECT_EQ(json["omitted_layers"], 136);
}

TEST(ExpertKindsJson, TellsTheMostFrequentKinds) {
  ProfileCounts counts;
  counts.shape = {.num_layers = 2, .num_experts = 2, .num_classes = 16};
  counts.assignments.assign(4, 0);
  counts.class_tokens.assign(16, 1);
  counts.class_assignments.assign(64, 0);
  const auto count = [&](size_t token_class, size_t cell) -> int64_t& {
    return counts.class_assignments[token_class * 4 + cell];
  };
  count(6, 3) = 60;
  count(2, 3) = 25;
  count(4, 3) = 10;
  count(5, 3) = 5;  // the fourth is not told
  count(3, 0) = 7;
  const nlohmann::json json = nlohmann::json::parse(ExpertKindsJson(counts, {1, 4}));
  EXPECT_EQ(json["classes"][6], "latin");
  ASSERT_EQ(json["layers"].size(), 2u);
  EXPECT_EQ(json["layers"][0]["layer"], 1);
  EXPECT_EQ(json["layers"][0]["kinds"], nlohmann::json::parse("[[3,100],[]]"));
  EXPECT_EQ(json["layers"][1]["kinds"], nlohmann::json::parse("[[],[6,60,2,25,4,10]]"));
  EXPECT_TRUE(nlohmann::json::parse(ExpertKindsJson({}, {}))["layers"].empty());
  counts.assignments.clear();  // nothing is looked at
  EXPECT_TRUE(nlohmann::json::parse(ExpertKindsJson(counts, {1, 4}))["layers"].empty());
}

TEST(ExpertJson, IsThereBeforeTheModel) {
  const nlohmann::json json = nlohmann::json::parse(EmptyExpertJson(1.0));
  EXPECT_TRUE(json["model"].is_null());
  EXPECT_TRUE(json["layers"].empty());
}

}  // namespace
}  // namespace cadre
