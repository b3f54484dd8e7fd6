// Routing schemes other than a family's own: chosen in the `cadre` block of config.json, or by an operator. The formula
// and the source of each are in docs/routing.md.
//
//   scheme          settings (with defaults)                                            router
//   family          -                                                                   what model_config.h says
//   softmax-top-k   top_k, normalize ("after"), scaling_factor                          softmax over all, or over the K
//   sigmoid-bias    top_k, renormalize (true), scaling_factor, selection_bias           sigmoid + bias, kSum
//   group-limited   num_groups, kept_groups, score ("softmax"), group_score, top_k,     the best groups first
//                   renormalize, scaling_factor, selection_bias
//   switch          -                                                                   softmax, K = 1
//   gshard          -                                                                   softmax, K = 2, spill-over
//   noisy-top-k     top_k, noise (1), scaling_factor                                    noise, then softmax over the K
//   hash            top_k (1), hash_seed (0)                                            by token id
//   top-p           p, k_min (1), k_max (E), renormalize (false), scaling_factor        softmax, K varies
//   threshold       tau, k_min (1), k_max (E), renormalize (false), scaling_factor      softmax, K varies
//   expert-choice   group (64), capacity_factor (2), k_max (E), scaling_factor          experts choose, K afterwards
//   dense           -      softmax, K = E
#ifndef CADRE_ENGINE_MODEL_ROUTING_SCHEME_H_
#define CADRE_ENGINE_MODEL_ROUTING_SCHEME_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "nlohmann/json.hpp"

namespace cadre {

// Of each number of a selection bias.
inline constexpr double kMaxSelectionBias = 1e6;

// Reads {"scheme": "...", setting: value, ...} and sets config->router and config->routing by it. What it leaves unset
// is the family's (top_k), or the default above. `origin` opens messages and says where the scheme came from.
// INVALID_ARGUMENT names the setting, the value and the limit; a setting that the scheme does not have is refused.
// REQUIRES: the sizes of `config`, and its router as the family has it.
absl::Status ApplyRoutingScheme(const nlohmann::json& block, std::string_view origin, ModelConfig* config);

// "switch" or "softmax-top-k,top_k=4,normalize=before" as a block: numbers, true and false are what they look like, all
// else is a string. Text that begins with { is JSON. INVALID_ARGUMENT starts with `what`.
absl::StatusOr<nlohmann::json> ParseRoutingOverride(std::string_view text, std::string_view what);

std::string_view RoutingSchemeName(RoutingScheme scheme);
// The router in one line, such as "switch: softmax over 8 experts, top 1, weights as they are".
std::string DescribeRouter(const ModelConfig& config);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_ROUTING_SCHEME_H_
