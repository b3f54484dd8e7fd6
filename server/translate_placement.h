// Where experts are, and what other caches would have done, on the wire.
#ifndef CADRE_SERVER_TRANSLATE_PLACEMENT_H_
#define CADRE_SERVER_TRANSLATE_PLACEMENT_H_

#include "cadre/v1/expert_service.pb.h"
#include "engine/experts/expert_cache.h"
#include "engine/experts/expert_placement.h"
#include "engine/experts/shadow_simulator.h"
#include "server/model_card.h"

namespace cadre {

// Null: all experts are in device memory.
void FillPlacement(const ExpertPlacement* placement, const ModelCard& card, v1::GetPlacementResponse* response);

// What the cache has done since the start, beside hits and misses.
// How many experts fit where.
void FillSlots(const ExpertCacheReport& report, const ModelCard& card, v1::GetPlacementResponse* response);
void FillCacheTotals(const ExpertCacheReport& report, v1::PlacementTotals* totals);

void FillWhatIf(const WhatIfReport& report, const ModelCard& card, v1::GetWhatIfResponse* response);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_PLACEMENT_H_
