// The fields of a request that say how its tokens are chosen, when it ends and what it is told.
#ifndef CADRE_SERVER_TRANSLATE_SAMPLING_H_
#define CADRE_SERVER_TRANSLATE_SAMPLING_H_

#include "absl/status/status.h"
#include "cadre/v1/generation_service.pb.h"
#include "engine/request/request.h"
#include "server/model_card.h"

namespace cadre {

// Fills all of `request` that does not depend on the prompt. INVALID_ARGUMENT names the field, the value and the limit.
absl::Status TranslateOptions(const v1::GenerateRequest& wire, const ModelCard& card, Request* request);

// How an answer reaches its client.
enum class AnswerKind {
  kStreamed,            // event by event
  kStreamedBySequence,  // the same, but with details of the prompt for each sequence again
  kCollected,           // in one message, which the server holds until the end
};

// What is left to check once the prompt and max_tokens are known: min_tokens, and the memory that the answer may take,
// in the worst case, before the client gets any of it (kMaxAnswerBytes).
absl::Status CheckAnswer(const Request& request, bool has_token_bytes, AnswerKind kind);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_SAMPLING_H_
