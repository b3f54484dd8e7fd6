// Names one routed expert of a model, in every layer that has experts.
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_ID_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_ID_H_

#include <cstdint>

namespace cadre {

// layer * E + expert, layer counting the layers that have experts, from 0.
using ExpertId = int32_t;

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_ID_H_
