// Recorded choices of experts, from the wire to the engine.
#ifndef CADRE_SERVER_TRANSLATE_REPLAY_H_
#define CADRE_SERVER_TRANSLATE_REPLAY_H_

#include "absl/status/status.h"
#include "cadre/v1/generation_service.pb.h"
#include "engine/request/request.h"
#include "server/model_card.h"

namespace cadre {

// Sets request->replay, whose prompt and max_tokens are settled. INVALID_ARGUMENT names the field, the value and the
// limit; FAILED_PRECONDITION: a simulated model has no routers.
absl::Status TranslateReplay(const v1::ReplayRouting& wire, const ModelCard& card, Request* request);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_REPLAY_H_
