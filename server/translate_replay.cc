#include "server/translate_replay.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/engine.h"
#include "engine/request/routing_replay.h"
#include "server/errors.h"
#include "server/request_limits.h"

namespace cadre {

absl::Status TranslateReplay(const v1::ReplayRouting& wire, const ModelCard& card, Request* request) {
  if (!card.limits.can_replay_routing) {
    return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                      .reason = reason::kRoutingSchemeRefused,
                      .message = "replay_routing: a simulated model has no routers"});
  }
  if (!v1::ReplayWeights_IsValid(wire.weights())) {
    return InvalidField("replay_routing.weights",
                        absl::StrCat(static_cast<int>(wire.weights()), " is no value of ReplayWeights"));
  }
  const v1::RoutedExperts& record = wire.record();
  if (record.expert_ids_size() > kMaxRoutedChoices) {
    return InvalidField("replay_routing.record.expert_ids",
                        absl::StrCat(record.expert_ids_size(), " choices, the limit is ", kMaxRoutedChoices));
  }
  if (record.weights_size() > kMaxRoutedChoices) {
    return InvalidField("replay_routing.record.weights",
                        absl::StrCat(record.weights_size(), " weights, the limit is ", kMaxRoutedChoices));
  }
  auto replay = std::make_shared<RoutingReplay>();
  replay->first_position = record.first_position();
  replay->uses_recorded_weights = wire.weights() == v1::REPLAY_WEIGHTS_RECORDED;
  replay->record.num_layers = record.num_layers();
  replay->record.top_k = record.top_k();
  replay->record.expert_ids.assign(record.expert_ids().begin(), record.expert_ids().end());
  replay->record.weights.assign(record.weights().begin(), record.weights().end());
  if (std::optional<ReplayFault> fault = FindReplayFault(*replay, ReplayBoundsOf(card.limits, *request))) {
    return InvalidField(absl::StrCat("replay_routing.", fault->field), std::move(fault->problem));
  }
  if (!replay->uses_recorded_weights) replay->record.weights = {};
  request->replay = std::move(replay);
  return absl::OkStatus();
}

}  // namespace cadre
