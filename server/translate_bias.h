// The selection bias of routers as a message.
#ifndef CADRE_SERVER_TRANSLATE_BIAS_H_
#define CADRE_SERVER_TRANSLATE_BIAS_H_

#include <cstdint>
#include <span>

#include "cadre/v1/router_bias.pb.h"
#include "engine/router_bias.h"

namespace cadre {

// `moe_layers` are the indices in the model of the report's layers; lists are left out
// unless `with_experts`.
void FillRouterBias(const RouterBiasReport& report, std::span<const int32_t> moe_layers, bool with_experts,
                    v1::RouterBias* wire);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_BIAS_H_
