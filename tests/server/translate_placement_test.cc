#include "server/translate_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre {
namespace {

using ::testing::ElementsAre;

constexpr auto kOnDisk = v1::EXPERT_TIER_DISK;
constexpr auto kInHost = v1::EXPERT_TIER_HOST;
constexpr auto kOnDevice = v1::EXPERT_TIER_DEVICE;

ModelCard MakeCard() {
  ModelCard card;
  card.name = "toy";
  card.moe_layers = {1, 3};
  card.limits.num_experts = 3;
  card.memory.all_expert_bytes = 600;
  card.memory.num_expert_slots = 2;
  return card;
}

TEST(TranslatePlacementTest, SlotsAreToldByWhereTheyLie) {
  ModelCard card = MakeCard();
  ExpertCacheReport report;
  report.num_slots = 2;
  v1::GetPlacementResponse response;
  FillSlots(report, card, &response);
  EXPECT_EQ(response.device_slots(), 2);
  EXPECT_EQ(response.host_slots(), 0);
  card.memory.host_expert_bytes = 600;
  FillSlots(report, card, &response);
  EXPECT_EQ(response.device_slots(), 2);
  EXPECT_EQ(response.host_slots(), 6) << "all of them";
  card.memory.host_expert_bytes = 300;
  report.num_slots = 3;
  report.resident = 1;
  FillSlots(report, card, &response);
  EXPECT_EQ(response.device_slots(), 1);
  EXPECT_EQ(response.host_slots(), 3);
}

TEST(TranslatePlacementTest, LayersHaveTheirOwnExperts) {
  using enum ExpertTier;
  const ExpertPlacement placement{.tiers = {kCheckpoint, kDevice, kHost, kCheckpoint, kCheckpoint, kDevice},
                                  .loading = {0, 3},
                                  .kept = {1, 4, 5},
                                  .quarantined = {4},
                                  .counters = {{.hits = 7,
                                                .misses = 20,
                                                .loads_done = 9,
                                                .evictions = 3,
                                                .prefetches_used = 4,
                                                .prefetches_late = 5,
                                                .prefetches_wasted = 6},
                                               {.hits = 8, .misses = 10}},
                                  .waits = {absl::Seconds(2), absl::ZeroDuration()}};
  v1::GetPlacementResponse response;
  FillPlacement(&placement, MakeCard(), &response);
  ASSERT_EQ(response.layers_size(), 2);
  const v1::LayerPlacement& first = response.layers(0);
  EXPECT_EQ(first.layer(), 1);
  EXPECT_THAT(first.tiers(), ElementsAre(kOnDisk, kOnDevice, kInHost));
  EXPECT_THAT(first.loading_experts(), ElementsAre(0));
  EXPECT_THAT(first.pinned_experts(), ElementsAre(1));
  EXPECT_THAT(first.quarantined_experts(), ElementsAre());
  EXPECT_EQ(first.hits(), 7);
  EXPECT_EQ(first.misses(), 20);
  EXPECT_EQ(first.wait().seconds(), 2);
  EXPECT_EQ(first.evictions(), 3);
  EXPECT_EQ(first.loaded_bytes(), 900) << "nine of 100 bytes";
  EXPECT_EQ(first.prefetches_used(), 4);
  EXPECT_EQ(first.prefetches_late(), 5);
  EXPECT_EQ(first.prefetches_wasted(), 6);
  const v1::LayerPlacement& second = response.layers(1);
  EXPECT_EQ(second.layer(), 3);
  EXPECT_THAT(second.tiers(), ElementsAre(kOnDisk, kOnDisk, kOnDevice));
  EXPECT_THAT(second.loading_experts(), ElementsAre(0));
  EXPECT_THAT(second.pinned_experts(), ElementsAre(1, 2));
  EXPECT_THAT(second.quarantined_experts(), ElementsAre(1));
  EXPECT_EQ(second.hits(), 8);
  EXPECT_EQ(second.misses(), 10);
  const v1::PlacementTotals& totals = response.totals();
  EXPECT_EQ(totals.device(), 2);
  EXPECT_EQ(totals.host(), 1);
  EXPECT_EQ(totals.disk(), 3);
  EXPECT_EQ(totals.loading(), 2);
  EXPECT_EQ(totals.pinned(), 3);
  EXPECT_EQ(totals.quarantined(), 1);
  EXPECT_EQ(totals.hits(), 15);
  EXPECT_EQ(totals.misses(), 30);
  EXPECT_EQ(response.expert_bytes(), 100);
  EXPECT_EQ(response.device_slots(), 2);
  EXPECT_EQ(response.model(), "toy");
}

TEST(TranslatePlacementTest, TotalsTellWhatTheCacheHasDone) {
  ExpertCacheReport report;
  report.slots.evictions = 1;
  report.loads.bytes = 2;
  report.wait_time = absl::Seconds(3);
  report.slots.prefetches_used = 4;
  report.slots.prefetches_late = 5;
  report.slots.prefetches_wasted = 6;
  report.loads.errors = 7;
  v1::PlacementTotals totals;
  FillCacheTotals(report, &totals);
  EXPECT_EQ(totals.evictions(), 1);
  EXPECT_EQ(totals.loaded_bytes(), 2);
  EXPECT_EQ(totals.wait().seconds(), 3);
  EXPECT_EQ(totals.prefetches_used(), 4);
  EXPECT_EQ(totals.prefetches_late(), 5);
  EXPECT_EQ(totals.prefetches_wasted(), 6);
  EXPECT_EQ(totals.load_errors(), 7);
}

TEST(TranslatePlacementTest, WithoutACacheAllAreOnTheDevice) {
  ModelCard card = MakeCard();
  card.memory.num_expert_slots = 0;
  v1::GetPlacementResponse response;
  FillPlacement(nullptr, card, &response);
  for (const v1::LayerPlacement& layer : response.layers()) {
    EXPECT_THAT(layer.tiers(), ElementsAre(kOnDevice, kOnDevice, kOnDevice));
  }
  EXPECT_EQ(response.device_slots(), 6);
  EXPECT_EQ(response.totals().device(), 6);
  EXPECT_EQ(response.totals().disk(), 0);
}

TEST(TranslatePlacementTest, WhatIfHasEveryRow) {
  WhatIfReport report;
  report.num_slots = 2;
  report.num_experts = 6;
  report.policy = EvictionPolicyKind::kLfru;
  v1::GetWhatIfResponse empty;
  FillWhatIf(report, MakeCard(), &empty);
  EXPECT_FALSE(empty.has_time());
  EXPECT_EQ(empty.policy(), "lfru");
  EXPECT_EQ(empty.slots(), 2);
  EXPECT_EQ(empty.experts(), 6);
  EXPECT_EQ(empty.expert_bytes(), 100);
  report.num_simulations = 3;
  report.time = absl::FromUnixSeconds(1000);
  report.num_steps = 4;
  report.num_lookups = 50;
  report.rows = {{"lru", 1, {.lookups = 50, .hits = 5}}, {kBeladyName, 4, {.lookups = 50, .hits = 40}}};
  v1::GetWhatIfResponse response;
  FillWhatIf(report, MakeCard(), &response);
  EXPECT_EQ(response.time().seconds(), 1000);
  EXPECT_EQ(response.steps(), 4);
  EXPECT_EQ(response.lookups(), 50);
  ASSERT_EQ(response.caches_size(), 2);
  EXPECT_EQ(response.caches(0).policy(), "lru");
  EXPECT_EQ(response.caches(0).slots(), 1);
  EXPECT_EQ(response.caches(0).hits(), 5);
  EXPECT_EQ(response.caches(1).policy(), "belady");
  EXPECT_EQ(response.caches(1).hits(), 40);
}

}  // namespace
}  // namespace cadre
