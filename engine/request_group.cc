#include "engine/request_group.h"

#include <utility>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/sample/log_softmax.h"

namespace cadre {
namespace {

Request WithoutPrompt(Request request) {
  if (!request.echo) request.prompt = {};
  return request;
}

}  // namespace

RequestGroup::RequestGroup(Request request, std::span<const int32_t> eos_token_ids, int32_t vocab_size)
    : num_prompt_tokens_(std::ssize(request.prompt)),
      request_(WithoutPrompt(std::move(request))),
      eos_token_ids_(eos_token_ids),
      rules_(request_, eos_token_ids, vocab_size),
      num_live_(request_.num_sequences) {
  if (request_.prompt_logprobs) start_.prompt_logprobs.resize(static_cast<size_t>(num_prompt_tokens_));
}

void RequestGroup::Start(int64_t cached_prompt_tokens) {
  has_started_ = true;
  start_.cached_prompt_tokens = cached_prompt_tokens;
  if (!request_.prompt_logprobs) TellStarted();
}

void RequestGroup::TellStarted() {
  if (std::exchange(is_start_told_, true)) return;
  const bool is_repeated = request_.echo && request_.sampling.logprobs;
  request_.sink->OnStarted(is_repeated ? start_ : std::exchange(start_, {}));
}

std::vector<TokenLogprob> RequestGroup::PromptLogprobs() const {
  if (!start_.prompt_logprobs.empty()) return start_.prompt_logprobs;
  std::vector<TokenLogprob> unknown;
  for (const int32_t token : request_.prompt) unknown.push_back({.token_id = token, .alternatives = {}});
  return unknown;
}

absl::Status RequestGroup::AddPromptLogits(std::span<const int32_t> prompt, int32_t position,
                                           std::span<const float> logits) {
  CADRE_CHECK(request_.prompt_logprobs.has_value() && !is_start_told_);
  CADRE_CHECK_EQ(std::ssize(prompt), num_prompt_tokens_);
  const auto place = static_cast<size_t>(position);
  if (place == 0) start_.prompt_logprobs[0] = {.token_id = prompt[0], .alternatives = {}};
  if (place + 1 == prompt.size()) return absl::OkStatus();
  CADRE_ASSIGN_OR_RETURN(start_.prompt_logprobs[place + 1],
                         DescribeToken(logits, prompt[place + 1], *request_.prompt_logprobs));
  return absl::OkStatus();
}

bool RequestGroup::EndSequence(const absl::Status& status) {
  CADRE_CHECK_GT(num_live_, 0);
  if (status_.ok()) status_ = status;
  return --num_live_ == 0;
}

}  // namespace cadre
