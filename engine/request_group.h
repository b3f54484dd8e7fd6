// What the n sequences of one request have in common, and what its sink is told once for all of them.
#ifndef CADRE_ENGINE_REQUEST_GROUP_H_
#define CADRE_ENGINE_REQUEST_GROUP_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request/request.h"
#include "engine/sample/token_chooser.h"

namespace cadre {

// A request in the counters: admitted when its group is made, ended when its last sequence has. One sequence that fails
// fails the request, and the others end with it. Engine thread only.
class RequestGroup {
 public:
  // Takes the request over, without its prompt unless that is repeated in front of the output. `eos_token_ids` must
  // outlive the group.
  RequestGroup(Request request, std::span<const int32_t> eos_token_ids, int32_t vocab_size);

  const Request& request() const { return request_; }
  const ChoiceRules& rules() const { return rules_; }
  std::span<const int32_t> eos_token_ids() const { return eos_token_ids_; }
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }

  // A step has contained a sequence of the request.
  bool has_started() const { return has_started_; }
  // The first step that contains the request has been planned. Tells the sink, unless prompt log probabilities have to
  // be computed first.
  void Start(int64_t cached_prompt_tokens);
  // Tells the sink that the request was started, if it does not know.
  void TellStarted();

  // The logits of the prompt's position `position` tell about the token after it: keeps that, or forgets the row of the
  // last position, which tells about the output. Computed again after a preemption, it is the same again. Errors as
  // DescribeToken.
  absl::Status AddPromptLogits(std::span<const int32_t> prompt, int32_t position, std::span<const float> logits);

  // One for each token of the prompt that is repeated: what is known. REQUIRES: started, echo and logprobs.
  std::vector<TokenLogprob> PromptLogprobs() const;

  // One of the sequences has ended with `status`. True when it was the last.
  bool EndSequence(const absl::Status& status);
  // Of the request: OK, or how its first failed sequence ended.
  const absl::Status& status() const { return status_; }

 private:
  const int64_t num_prompt_tokens_;
  const Request request_;
  const std::span<const int32_t> eos_token_ids_;
  const ChoiceRules rules_;
  RequestStart start_;  // until it is told, or longer when its parts are told again
  bool has_started_ = false;
  bool is_start_told_ = false;
  int32_t num_live_;
  absl::Status status_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_GROUP_H_
