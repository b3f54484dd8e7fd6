// Which experts are worth a slot, by what a profile counted: who stays for good, and who is loaded first.
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_RANKING_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_RANKING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/expert_id.h"

namespace cadre {

// How slots are shared among the layers. Every layer sees every token, so counts of different layers compare.
enum class LayerShare {
  // The most used of the whole model: the most hits, if the load stays what it was. A layer whose router spreads its
  // tokens evenly may get nothing.
  kGlobal,
  // As many for each layer, give or take one: no layer is left without, whatever the load becomes.
  kPerLayer,
};

// All experts, the most worth having first: those of any number of slots are the first ones. With kGlobal by count,
// falling; with kPerLayer the most used of each layer, then the second of each and so on, these by count. Of equals the
// lower id. `assignments` [layers, num_experts], as ProfileCounts has them. REQUIRES: num_experts >= 1, whole layers,
// counts >= 0.
std::vector<ExpertId> RankExperts(std::span<const int64_t> assignments, int64_t num_experts, LayerShare share);

// For SlotTable::SetKept: the first `max_kept` of RankExperts that were used at all, in that order.
// REQUIRES: as RankExperts, max_kept >= 0.
std::vector<ExpertId> ChooseKept(std::span<const int64_t> assignments, int64_t num_experts, int64_t max_kept,
                                 LayerShare share);

// What to load into `num_slots` empty slots, in this order: the most used first, so that a start that is cut short has
// loaded what matters. First those of `kept`, as they are worth a slot whatever the counts say, then the others by
// `share`, never used ones last. REQUIRES: as RankExperts; ids of `kept` are in range, none is there twice; num_slots
// >= 0.
std::vector<ExpertId> OrderWarmStart(std::span<const int64_t> assignments, int64_t num_experts, int64_t num_slots,
                                     std::span<const ExpertId> kept, LayerShare share);

// The share of the assignments that went to `experts`: the hits of a cache that holds them and nothing else, of a batch
// of one token, if the load stays what it was. 0 where nothing was counted. REQUIRES: ids in range, none twice.
double CountedShare(std::span<const int64_t> assignments, std::span<const ExpertId> experts);

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_RANKING_H_
