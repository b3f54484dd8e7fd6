// The text side of a request: decides when it has said enough, and tells its sink.
#ifndef CADRE_ENGINE_RESPONSE_H_
#define CADRE_ENGINE_RESPONSE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request/request.h"
#include "engine/text/incremental_detokenizer.h"
#include "engine/text/stop_matcher.h"
#include "engine/text/tokenizer.h"

namespace cadre {

// Calls the sink in the promised order: Start, Append for each token, Finish once. How a token ends a sequence, in this
// order: end-of-sequence token, stop token, stop string, max_tokens. The ending token counts and is among the delta's
// token ids; the text of an end or stop token is never shown, that of a stop string only with include_stop_string.
// Engine thread only.
class Response {
 public:
  // `tokenizer` may be null when the request wants no text; it and `eos_token_ids` must outlive the response. The
  // prompt stays in `request` and is not kept.
  Response(const Request& request, const Tokenizer* tokenizer, std::span<const int32_t> eos_token_ids);

  absl::Time arrival() const { return arrival_; }
  const SamplingParams& sampling() const { return sampling_; }
  int64_t num_prompt_tokens() const { return usage_.prompt_tokens; }
  int64_t num_generated_tokens() const { return usage_.generated_tokens; }
  int64_t num_assignments() const { return routing_.total(); }

  // Why the request must end now although its sequence could go on: DEADLINE_EXCEEDED, CANCELLED, or OK for none. A
  // transport cancels what is past its deadline, so the deadline is named when both hold.
  absl::Status Interruption(absl::Time now) const;

  // The first step that contains the request has been planned.
  void Start(absl::Time now);
  // Assignments of the request's rows in one step, all of them processed.
  void AddRouting(int64_t num_assignments);
  // The next token: tells the sink. Anything but kNone means that the sequence has ended normally.
  FinishReason Append(int32_t token, absl::Time now);

  // What there is to say at the end, which is `status`. REQUIRES: called once, and OK only after Append ended it.
  FinishSummary Summarize(absl::Status status, absl::Time now, int32_t num_preemptions);
  // The last word.
  void Finish(FinishSummary summary);

 private:
  // Only for requests that want text.
  struct TextState {
    IncrementalDetokenizer detokenizer;
    StopMatcher stops;
  };

  std::string Show(std::string_view text);
  std::string Flush();

  const std::shared_ptr<TokenSink> sink_;
  const std::shared_ptr<CancelFlag> cancel_;
  const SamplingParams sampling_;
  const std::span<const int32_t> eos_token_ids_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  absl::Time started_ = absl::InfinitePast();
  absl::Time first_token_ = absl::InfinitePast();
  std::optional<TextState> text_;
  FinishReason reason_ = FinishReason::kNone;
  std::string matched_stop_;
  int32_t matched_token_ = -1;
  TokenUsage usage_;
  RoutingReport routing_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_RESPONSE_H_
