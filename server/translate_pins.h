// Pinned experts between the wire and the engine.
#ifndef CADRE_SERVER_TRANSLATE_PINS_H_
#define CADRE_SERVER_TRANSLATE_PINS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "cadre/v1/expert_service.pb.h"
#include "engine/experts/expert_id.h"
#include "server/model_card.h"

namespace cadre {

// INVALID_ARGUMENT names the field, its value and what the model has, for a layer without experts and for an expert
// that its layer does not have.
absl::StatusOr<std::vector<ExpertId>> ReadPins(const v1::PinExpertsRequest& request, const ModelCard& card);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_PINS_H_
