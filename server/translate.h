// Between the wire and the engine: requests in, checked against every limit, and events out. With translate_stats.h,
// the only place that knows both worlds.
#ifndef CADRE_SERVER_TRANSLATE_H_
#define CADRE_SERVER_TRANSLATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cadre/v1/generation_service.pb.h"
#include "engine/request/request.h"
#include "engine/text/tokenizer.h"
#include "server/model_card.h"
#include "server/translate_chat.h"
#include "server/translate_sampling.h"

namespace cadre {

// The id of a request: the client's, else the metadata's if it is one, else a random one. INVALID_ARGUMENT when the
// client's is not 1 to 128 visible ASCII characters.
absl::StatusOr<std::string> ChooseRequestId(std::string_view from_client, std::string_view from_metadata);

// The request without its sink, cancel flag, arrival and deadline. Tokenizes. The fields are known to be supported (see
// field_support.h). INVALID_ARGUMENT names the field, the value and the limit.
absl::StatusOr<Request> TranslateRequest(const v1::GenerateRequest& wire, const ModelCard& card,
                                         const Tokenizer& tokenizer, const ChatSupport& chat,
                                         AnswerKind kind = AnswerKind::kStreamed);

// Token ids of `text`, the field called `field`. INVALID_ARGUMENT when it is longer than kMaxPromptBytes or not UTF-8.
absl::StatusOr<std::vector<int32_t>> TokenizeField(std::string_view text, const v1::PromptOptions& options,
                                                   const Tokenizer& tokenizer);

// INVALID_ARGUMENT names the first id outside [0, vocab_size), as "field[index]".
absl::Status CheckTokenIds(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids,
                           int32_t vocab_size);

// What the started event tells; constant for a request.
struct RequestFacts {
  std::string request_id;
  std::string model;
  uint64_t seed = 0;
  int64_t prompt_tokens = 0;
  int32_t num_sequences = 1;
  bool has_token_bytes = false;                          // tokens come with their bytes
  std::shared_ptr<const Tokenizer> tokenizer = nullptr;  // that knows the bytes
};

// The bytes of a token as it stands inside a text, or (`is_first`) at its begin, which may be part of a character; the
// characters of a special token. Empty for an id that is no token.
std::string TokenBytes(int32_t token_id, const Tokenizer& tokenizer, bool is_first = false);

void FillStarted(const RequestFacts& facts, const RequestStart& start, v1::StartedEvent* event);
// Moves the delta's content into the event.
void FillDelta(TokenDelta&& delta, const RequestFacts& facts, v1::DeltaEvent* event);
// REQUIRES: summary.status is OK.
void FillFinished(const FinishSummary& summary, v1::FinishedEvent* event);

// The error of a request that the engine ended: adds the reason and, for one that may be sent again, the delay. OK for
// OK. What only the log should tell is left out.
absl::Status FinishError(const FinishSummary& summary, const std::string& request_id);

// The timings of a request of which some sequences have `a` and one more has `b`: waiting ends with the first that
// runs, and the last one ends it.
RequestTimings CoverBoth(const RequestTimings& a, const RequestTimings& b);

// What all sequences of a request took together.
struct RequestTotals {
  RequestTimings timings;
  RoutingReport routing;
  TokenUsage usage;  // the prompt, shared as it is, counts once
};

// "queue;dur=0.12, prefill;dur=3.4, decode;dur=51.0": milliseconds, as the header Server-Timing of HTTP.
std::string ServerTiming(const RequestTimings& timings);
// "processed=904;rerouted=0;reweighted=0;dropped=8;gate_weight=113.5;lost_gate_weight=0.75;fidelity=0.99": the numbers
// of a RoutingReport, the last three with as many digits as it takes to read the same number back.
std::string RoutingTrailer(const RoutingReport& routing);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_H_
