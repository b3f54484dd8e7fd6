// Profiles of expert use between the wire and the engine.
#ifndef CADRE_SERVER_TRANSLATE_PROFILE_H_
#define CADRE_SERVER_TRANSLATE_PROFILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cadre/v1/expert_service.pb.h"
#include "engine/experts/expert_stats.h"
#include "engine/experts/routing_profile.h"
#include "server/model_card.h"

namespace cadre {

// What profiles say of the model that they come from: equal for models whose experts can be compared one by one, that
// is of one family and shape.
std::string ModelFingerprint(const ModelCard& card);

// `counters` since the start, and what was seen of single tokens.
void FillProfile(const std::vector<LayerCounters>& counters, const ProfileCounts& counts, const ModelCard& card,
                 v1::ExpertProfile* wire);

// The loads of a profile, [MoE layers, E]. INVALID_ARGUMENT names the field, its value and what the model has, for a
// profile of another version or shape, or of counts that cannot be.
absl::StatusOr<std::vector<int64_t>> ReadProfile(const v1::ExpertProfile& wire, const ModelCard& card);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_PROFILE_H_
