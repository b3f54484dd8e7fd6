#include "tools/loadgen/generate_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/client.h"

namespace cadre {

GenerateCall::GenerateCall(v1::GenerateRequest request, int64_t intended, bool measured, const RunClock* clock,
                           LoadRecorder* recorder, DoneCallback on_done)
    : request_(std::move(request)), clock_(clock), recorder_(recorder), on_done_(std::move(on_done)) {
  record_.intended = intended;
  record_.measured = measured;
}

void GenerateCall::Start(v1::GenerationService::Stub& stub, absl::Duration deadline) {
  record_.started = clock_->Now();
  recorder_->OnSent(record_.intended, record_.started, record_.measured);
  if (deadline > absl::ZeroDuration()) {
    const absl::Duration late = absl::Nanoseconds(record_.started - record_.intended);
    context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(deadline - late));
  }
  stub.async()->Generate(&context_, &request_, this);
  StartRead(&event_);
  StartCall();
}

void GenerateCall::Abandon() {
  abandoned_ = true;
  context_.TryCancel();
}

void GenerateCall::OnReadDone(bool ok) {
  if (!ok) return;
  const int64_t now = clock_->Now();
  if (!has_event_ && event_.has_started()) {
    recorder_->OnStarted(now, event_.started().prompt_tokens(), event_.started().cached_prompt_tokens());
  }
  has_event_ = true;
  if (event_.has_delta() && event_.delta().token_ids_size() > 0) OnTokens(now, event_.delta().token_ids_size());
  if (event_.has_finished()) has_finished_ = true;
  StartRead(&event_);
}

void GenerateCall::OnTokens(int64_t now, int64_t tokens) {
  const int64_t gap = record_.first_token < 0 ? -1 : now - record_.last_token;
  if (record_.first_token < 0) record_.first_token = now;
  record_.last_token = now;
  record_.output_tokens += tokens;
  record_.longest_gap = std::max(record_.longest_gap, gap / tokens);
  recorder_->OnTokens(now, gap, tokens, record_.measured);
}

void GenerateCall::Classify(const grpc::Status& status) {
  if (status.ok() && has_finished_) {
    record_.end = RequestEnd::kCompleted;
  } else if (abandoned_) {
    record_.end = RequestEnd::kUnfinished;
  } else {
    const std::string reason = ErrorReason(status);
    record_.end = !has_event_ && !reason.empty() ? RequestEnd::kRejected : RequestEnd::kFailed;
    record_.why = status.ok() ? "NO_FINISHED_EVENT" : StatusCodeName(status.error_code());
    if (IsUnreachable(status)) {
      absl::StrAppend(&record_.why, " (connection)");
    } else if (!reason.empty() && reason != record_.why) {
      absl::StrAppend(&record_.why, " ", reason);
    }
  }
}

void GenerateCall::OnDone(const grpc::Status& status) {
  record_.ended = clock_->Now();
  Classify(status);
  recorder_->OnEnded(record_);
  // The callback deletes this call, and with it the member that held the callback.
  const DoneCallback on_done = std::move(on_done_);
  on_done(this);
}

}  // namespace cadre
