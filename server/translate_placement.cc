#include "server/translate_placement.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "server/proto_time.h"

namespace cadre {
namespace {

v1::ExpertTier ToWire(ExpertTier tier) {
  switch (tier) {
    case ExpertTier::kCheckpoint:
      return v1::EXPERT_TIER_DISK;
    case ExpertTier::kHost:
      return v1::EXPERT_TIER_HOST;
    case ExpertTier::kDevice:
      return v1::EXPERT_TIER_DEVICE;
  }
  return v1::EXPERT_TIER_UNSPECIFIED;
}

int64_t CountExperts(const ModelCard& card) { return std::ssize(card.moe_layers) * card.limits.num_experts; }

int64_t ExpertBytes(const ModelCard& card) {
  const int64_t experts = CountExperts(card);
  return experts == 0 ? 0 : card.memory.all_expert_bytes / experts;
}

// All in device memory, which needs no lookups.
ExpertPlacement ResidentPlacement(const ModelCard& card) {
  return {.tiers = std::vector<ExpertTier>(static_cast<size_t>(CountExperts(card)), ExpertTier::kDevice),
          .loading = {},
          .kept = {},
          .quarantined = {},
          .counters = std::vector<SlotCounters>(card.moe_layers.size())};
}

using ExpertList = google::protobuf::RepeatedField<int32_t>;

// Adds each of `ids` to its layer's list.
template <typename MutableList>
void AddExperts(const std::vector<ExpertId>& ids, int32_t num_experts, MutableList list,
                v1::GetPlacementResponse* response) {
  for (const ExpertId id : ids) (response->mutable_layers(id / num_experts)->*list)()->Add(id % num_experts);
}

void CountTiers(const ExpertPlacement& placement, v1::PlacementTotals* totals) {
  for (const ExpertTier tier : placement.tiers) {
    if (tier == ExpertTier::kDevice) totals->set_device(totals->device() + 1);
    if (tier == ExpertTier::kHost) totals->set_host(totals->host() + 1);
    if (tier == ExpertTier::kCheckpoint) totals->set_disk(totals->disk() + 1);
  }
}

void FillCacheLayer(const SlotCounters& counters, int64_t expert_bytes, v1::LayerPlacement* layer) {
  layer->set_hits(counters.hits);
  layer->set_misses(counters.misses);
  layer->set_evictions(counters.evictions);
  layer->set_loaded_bytes(counters.loads_done * expert_bytes);
  layer->set_prefetches_used(counters.prefetches_used);
  layer->set_prefetches_late(counters.prefetches_late);
  layer->set_prefetches_wasted(counters.prefetches_wasted);
}

}  // namespace

void FillPlacement(const ExpertPlacement* known, const ModelCard& card, v1::GetPlacementResponse* response) {
  const ExpertPlacement placement = known != nullptr ? *known : ResidentPlacement(card);
  const auto num_experts = static_cast<size_t>(card.limits.num_experts);
  CADRE_CHECK_EQ(placement.tiers.size(), card.moe_layers.size() * num_experts);
  CADRE_CHECK_EQ(placement.counters.size(), card.moe_layers.size());
  v1::PlacementTotals* totals = response->mutable_totals();
  for (size_t i = 0; i < card.moe_layers.size(); ++i) {
    v1::LayerPlacement* layer = response->add_layers();
    layer->set_layer(card.moe_layers[i]);
    layer->mutable_tiers()->Reserve(card.limits.num_experts);
    for (size_t e = 0; e < num_experts; ++e) layer->add_tiers(ToWire(placement.tiers[i * num_experts + e]));
    FillCacheLayer(placement.counters[i], ExpertBytes(card), layer);
    if (!placement.waits.empty()) *layer->mutable_wait() = ToProto(placement.waits[i]);
    totals->set_hits(totals->hits() + layer->hits());
    totals->set_misses(totals->misses() + layer->misses());
  }
  using Layer = v1::LayerPlacement;
  constexpr auto kPinned = static_cast<ExpertList* (Layer::*)()>(&Layer::mutable_pinned_experts);
  constexpr auto kLoading = static_cast<ExpertList* (Layer::*)()>(&Layer::mutable_loading_experts);
  constexpr auto kQuarantined = static_cast<ExpertList* (Layer::*)()>(&Layer::mutable_quarantined_experts);
  AddExperts(placement.kept, card.limits.num_experts, kPinned, response);
  AddExperts(placement.loading, card.limits.num_experts, kLoading, response);
  AddExperts(placement.quarantined, card.limits.num_experts, kQuarantined, response);
  CountTiers(placement, totals);
  totals->set_pinned(std::ssize(placement.kept));
  totals->set_loading(std::ssize(placement.loading));
  totals->set_quarantined(std::ssize(placement.quarantined));
  response->set_expert_bytes(ExpertBytes(card));
  ExpertCacheReport planned;
  planned.resident = card.memory.num_resident_experts;
  planned.num_slots = card.memory.num_expert_slots > 0 ? card.memory.num_expert_slots : CountExperts(card);
  FillSlots(planned, card, response);
  response->set_model(card.name);
}

void FillSlots(const ExpertCacheReport& report, const ModelCard& card, v1::GetPlacementResponse* response) {
  const bool are_hosts = report.resident > 0;
  response->set_device_slots(static_cast<int32_t>(are_hosts ? report.resident : report.num_slots));
  const int64_t hosted = card.memory.host_expert_bytes > 0 ? CountExperts(card) : 0;
  response->set_host_slots(static_cast<int32_t>(are_hosts ? report.num_slots : hosted));
}

void FillCacheTotals(const ExpertCacheReport& report, v1::PlacementTotals* totals) {
  totals->set_evictions(report.slots.evictions);
  totals->set_loaded_bytes(report.loads.bytes);
  *totals->mutable_wait() = ToProto(report.wait_time);
  totals->set_prefetches_used(report.slots.prefetches_used);
  totals->set_prefetches_late(report.slots.prefetches_late);
  totals->set_prefetches_wasted(report.slots.prefetches_wasted);
  totals->set_load_errors(report.loads.errors);
}

void FillWhatIf(const WhatIfReport& report, const ModelCard& card, v1::GetWhatIfResponse* response) {
  if (report.num_simulations > 0) *response->mutable_time() = ToProto(report.time);
  response->set_model(card.name);
  response->set_policy(std::string(EvictionPolicyName(report.policy)));
  response->set_slots(report.num_slots);
  response->set_experts(report.num_experts);
  response->set_expert_bytes(ExpertBytes(card));
  response->set_steps(report.num_steps);
  response->set_lookups(report.num_lookups);
  for (const WhatIfRow& row : report.rows) {
    v1::WhatIfCache* cache = response->add_caches();
    cache->set_policy(std::string(row.policy));
    cache->set_slots(row.num_slots);
    cache->set_hits(row.result.hits);
  }
}

}  // namespace cadre
