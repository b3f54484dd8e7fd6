#include "engine/response.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {
namespace {

bool Contains(std::span<const int32_t> ids, int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

}  // namespace

Response::Response(const Request& request, const Tokenizer* tokenizer, std::span<const int32_t> eos_token_ids)
    : sink_(request.sink),
      cancel_(request.cancel),
      sampling_(request.sampling),
      eos_token_ids_(eos_token_ids),
      arrival_(request.arrival),
      deadline_(request.deadline) {
  usage_.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (request.wants_text) {
    text_ = TextState{.detokenizer = IncrementalDetokenizer(tokenizer, sampling_.skip_special_tokens),
                      .stops = StopMatcher(sampling_.stop_strings, sampling_.include_stop_string)};
  }
}

absl::Status Response::Interruption(absl::Time now) const {
  if (now >= deadline_) {
    return absl::DeadlineExceededError(absl::StrCat("deadline passed ", absl::FormatDuration(now - arrival_),
                                                    " after arrival, with ", usage_.generated_tokens, " of at most ",
                                                    sampling_.max_tokens, " tokens generated"));
  }
  if (cancel_->cancelled()) return absl::CancelledError("cancelled by the caller");
  return absl::OkStatus();
}

void Response::Start(absl::Time now) {
  started_ = now;
  sink_->OnStarted({});
}

void Response::AddRouting(int64_t num_assignments) { routing_.processed += num_assignments; }

FinishReason Response::Append(int32_t token, absl::Time now) {
  CADRE_CHECK(reason_ == FinishReason::kNone);
  if (usage_.generated_tokens++ == 0) first_token_ = now;
  TokenDelta delta;
  delta.token_ids.push_back(token);
  if (!sampling_.ignore_eos && Contains(eos_token_ids_, token)) {
    reason_ = FinishReason::kEos;
    matched_token_ = token;
  } else if (Contains(sampling_.stop_token_ids, token)) {
    reason_ = FinishReason::kStopToken;
    matched_token_ = token;
  } else {
    if (text_) delta.text = Show(text_->detokenizer.Append(token));
    if (reason_ == FinishReason::kNone && usage_.generated_tokens == sampling_.max_tokens) {
      reason_ = FinishReason::kLength;
    }
  }
  sink_->OnTokens(std::move(delta));
  return reason_;
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
  summary.text = Flush();  // may find a stop string in what was held back
  if (status.ok()) {
    summary.reason = reason_;
    summary.matched_stop = matched_stop_;
    summary.matched_token = matched_token_;
  }
  summary.status = std::move(status);
  summary.usage = usage_;
  summary.timings.total = now - arrival_;
  if (started_ != absl::InfinitePast()) summary.timings.queue = started_ - arrival_;
  if (first_token_ != absl::InfinitePast()) {
    summary.timings.prefill = first_token_ - started_;
    summary.timings.decode = now - first_token_;
  }
  summary.routing = routing_;
  summary.num_preemptions = num_preemptions;
  return summary;
}

void Response::Finish(FinishSummary summary) { sink_->OnFinish(std::move(summary)); }

}  // namespace cadre
