// The text side of a sequence: decides when it has said enough, and tells its request's sink.
#ifndef CADRE_ENGINE_RESPONSE_H_
#define CADRE_ENGINE_RESPONSE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request_group.h"
#include "engine/sample/token_chooser.h"
#include "engine/text/incremental_detokenizer.h"
#include "engine/text/stop_matcher.h"
#include "engine/text/tokenizer.h"

namespace cadre {

// Calls the sink in the promised order: Start, Append for each token, Finish once. How a token ends a sequence, in this
// order: end-of-sequence token, stop token, stop string, the end of the constraint's language, max_tokens. The ending
// token counts and is among the delta's token ids; the text of an end or stop token is never shown, that of a stop
// string only with include_stop_string. Engine thread only.
class Response {
 public:
  // Sequence `index` of the request. `tokenizer` may be null when the request wants no text; it must outlive the
  // response.
  Response(std::shared_ptr<RequestGroup> group, int32_t index, const Tokenizer* tokenizer);

  RequestGroup& group() { return *group_; }
  const RequestGroup& group() const { return *group_; }
  int32_t index() const { return index_; }
  absl::Time arrival() const { return group_->request().arrival; }
  int64_t num_prompt_tokens() const { return usage_.prompt_tokens; }
  int64_t num_generated_tokens() const { return usage_.generated_tokens; }
  int64_t num_assignments() const { return routing_.total(); }

  // Why the request must end now although the sequence could go on: DEADLINE_EXCEEDED, CANCELLED, OK for the time
  // limit, or nothing. A transport cancels what is past its deadline, so the deadline is named when both hold.
  std::optional<absl::Status> Interruption(absl::Time now) const;

  // The first step that contains the sequence has been planned; so many tokens of its prompt need not be computed.
  void Start(absl::Time now, int64_t cached_prompt_tokens);
  // What became of the assignments of the sequence's rows in one step.
  void AddRouting(const RoutingReport& step) { routing_ += step; }
  // The next token: tells the sink. `is_complete`: the constraint lets nothing follow. Anything but kNone means that
  // the sequence has ended normally.
  FinishReason Append(ChosenToken token, bool is_complete, absl::Time now);

  // Ends the sequence normally although it could go on.
  void Interrupt(FinishReason reason);
  // What there is to say at the end, which is `status`; the request says whether it is the last. REQUIRES: called once,
  // and OK only after Append or Interrupt ended it.
  FinishSummary Summarize(absl::Status status, absl::Time now, int32_t num_preemptions);
  // The last word.
  void Finish(FinishSummary summary);

 private:
  // Only for requests that want text.
  struct TextState {
    IncrementalDetokenizer detokenizer;
    StopMatcher stops;
  };

  // An empty delta; the first one begins with the prompt when that is to be repeated.
  TokenDelta NewDelta();
  std::string Show(std::string_view text);
  std::string Flush();

  const std::shared_ptr<RequestGroup> group_;
  const int32_t index_;
  absl::Time started_ = absl::InfinitePast();
  absl::Time first_token_ = absl::InfinitePast();
  std::optional<TextState> text_;
  bool echoes_;  // the prompt is still to be repeated
  FinishReason reason_ = FinishReason::kNone;
  std::string matched_stop_;
  int32_t matched_token_ = -1;
  TokenUsage usage_;
  RoutingReport routing_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_RESPONSE_H_
