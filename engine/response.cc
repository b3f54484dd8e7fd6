#include "engine/response.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {
namespace {

bool Contains(std::span<const int32_t> ids, int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

}  // namespace

Response::Response(std::shared_ptr<RequestGroup> group, int32_t index, const Tokenizer* tokenizer)
    : group_(std::move(group)), index_(index), echoes_(group_->request().echo) {
  usage_.prompt_tokens = group_->num_prompt_tokens();
  if (group_->request().wants_text) {
    const SamplingParams& params = group_->rules().params();
    text_ = TextState{.detokenizer = IncrementalDetokenizer(tokenizer, params.skip_special_tokens),
                      .stops = StopMatcher(params.stop_strings, params.include_stop_string)};
  }
}

std::optional<absl::Status> Response::Interruption(absl::Time now) const {
  const Request& request = group_->request();
  const absl::Duration age = now - request.arrival;
  if (now >= request.deadline) {
    return absl::DeadlineExceededError(absl::StrCat("deadline passed ", absl::FormatDuration(age),
                                                    " after arrival, with ", usage_.generated_tokens, " of at most ",
                                                    request.sampling.max_tokens, " tokens generated"));
  }
  if (request.cancel->cancelled()) return absl::CancelledError("cancelled by the caller");
  if (age >= request.time_limit) return absl::OkStatus();
  return std::nullopt;
}

void Response::Start(absl::Time now, int64_t cached_prompt_tokens) {
  started_ = now;
  usage_.cached_prompt_tokens = cached_prompt_tokens;
  if (!group_->has_started()) group_->Start(cached_prompt_tokens);
}

FinishReason Response::Append(ChosenToken token, bool is_complete, absl::Time now) {
  CADRE_CHECK(reason_ == FinishReason::kNone);
  group_->TellStarted();
  const SamplingParams& params = group_->rules().params();
  if (usage_.generated_tokens++ == 0) first_token_ = now;
  TokenDelta delta = NewDelta();
  delta.token_ids.push_back(token.token_id);
  if (token.logprob) delta.logprobs.push_back(*std::move(token.logprob));
  if (!params.ignore_eos && Contains(group_->eos_token_ids(), token.token_id)) {
    reason_ = FinishReason::kEos;
    matched_token_ = token.token_id;
  } else if (Contains(params.stop_token_ids, token.token_id)) {
    reason_ = FinishReason::kStopToken;
    matched_token_ = token.token_id;
  } else {
    if (text_) delta.text += Show(text_->detokenizer.Append(token.token_id));
    if (reason_ == FinishReason::kNone && is_complete) reason_ = FinishReason::kConstraintEnd;
    if (reason_ == FinishReason::kNone && usage_.generated_tokens == params.max_tokens) {
      reason_ = FinishReason::kLength;
    }
  }
  group_->request().sink->OnTokens(std::move(delta));
  return reason_;
}

TokenDelta Response::NewDelta() {
  TokenDelta delta{.index = index_, .text = {}, .token_ids = {}};
  if (!std::exchange(echoes_, false)) return delta;
  const Request& request = group_->request();
  delta.num_prompt_tokens = static_cast<int32_t>(request.prompt.size());
  delta.token_ids = request.prompt;
  delta.text = request.prompt_text;
  if (request.sampling.logprobs) delta.logprobs = group_->PromptLogprobs();
  return delta;
}

void Response::Interrupt(FinishReason reason) {
  CADRE_CHECK(reason_ == FinishReason::kNone);
  reason_ = reason;
}

std::string Response::Show(std::string_view text) {
  StopMatcher::Result shown = text_->stops.Append(text);
  if (shown.matched) {
    reason_ = FinishReason::kStopString;
    matched_stop_ = *std::move(shown.matched);
    matched_token_ = -1;
  }
  return std::move(shown.text);
}

std::string Response::Flush() {
  if (!text_ || reason_ == FinishReason::kStopString) return {};
  std::string text = Show(text_->detokenizer.Flush());
  if (reason_ != FinishReason::kStopString) text += text_->stops.Flush();
  return text;
}

FinishSummary Response::Summarize(absl::Status status, absl::Time now, int32_t num_preemptions) {
  CADRE_CHECK(!status.ok() || reason_ != FinishReason::kNone);
  FinishSummary summary;
  summary.index = index_;
  summary.text = Flush();  // may find a stop string in what was held back
  if (status.ok()) {
    summary.reason = reason_;
    summary.matched_stop = matched_stop_;
    summary.matched_token = matched_token_;
  }
  summary.status = std::move(status);
  summary.usage = usage_;
  summary.timings.total = now - arrival();
  if (started_ != absl::InfinitePast()) summary.timings.queue = started_ - arrival();
  if (first_token_ != absl::InfinitePast()) {
    summary.timings.prefill = first_token_ - started_;
    summary.timings.decode = now - first_token_;
  }
  summary.routing = routing_;
  summary.capacity = group_->request().capacity.value_or(CapacityPolicy());
  summary.num_preemptions = num_preemptions;
  return summary;
}

void Response::Finish(FinishSummary summary) {
  if (summary.status.ok()) {
    // A time limit may pass before there is anything to say.
    group_->TellStarted();
    if (TokenDelta delta = NewDelta(); !delta.token_ids.empty()) group_->request().sink->OnTokens(std::move(delta));
  }
  group_->request().sink->OnFinish(std::move(summary));
}

}  // namespace cadre
