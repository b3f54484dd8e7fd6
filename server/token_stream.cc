#include "server/token_stream.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors.h"
#include "server/metrics.h"
#include "server/model_host.h"

namespace cadre {
namespace {

// gRPC's own deadline timer may be earlier than the engine's by rounding; a cancel so close to the deadline is the
// deadline.
constexpr absl::Duration kDeadlineTolerance = absl::Milliseconds(20);

size_t Bytes(const TokenDelta& delta) { return delta.text.size() + delta.token_ids.size() * sizeof(int32_t); }

// What clients are not told must be found here.
void LogEnd(const std::string& request_id, const FinishSummary& summary) {
  const bool is_ours = summary.status.code() == absl::StatusCode::kInternal;
  spdlog::log(is_ours ? spdlog::level::err : spdlog::level::debug, "request {}: {} after {} generated tokens",
              request_id, summary.status.ToString(), summary.usage.generated_tokens);
}

absl::Status SlowReader(size_t waiting_bytes, const TokenStreamOptions& options) {
  ErrorSpec spec{.code = absl::StatusCode::kResourceExhausted, .reason = reason::kSlowReader};
  spec.message =
      absl::StrCat("the client reads too slowly: ", waiting_bytes, " bytes wait, more than the limit of ",
                   options.max_outbox_bytes, " for longer than ", absl::FormatDuration(options.slow_reader_timeout));
  spec.metadata = {{"limit", absl::StrCat(options.max_outbox_bytes)}, {"actual", absl::StrCat(waiting_bytes)}};
  return MakeError(std::move(spec));
}

}  // namespace

TokenStream::TokenStream(ResponseWriter* writer, ModelHost* host, Metrics* metrics, TokenStreamOptions options,
                         absl::Time deadline)
    : host_(host),
      metrics_(metrics),
      options_(options),
      arrival_(host->clock().Now()),
      deadline_(deadline),
      writer_(writer) {
  host_->CallOpened();
}

TokenStream::~TokenStream() { DropOutbox(); }

void TokenStream::SetRequestId(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (writer_ != nullptr && !finish_called_) writer_->SetRequestId(id);
  facts_.request_id = id;
}

void TokenStream::SetFacts(RequestFacts facts) {
  const std::lock_guard lock(mutex_);
  facts_ = std::move(facts);
}

void TokenStream::Queued() {
  const std::lock_guard lock(mutex_);
  if (writer_ == nullptr || finish_called_ || metadata_sent_) return;
  metadata_sent_ = true;
  writer_->SendInitialMetadata();
}

void TokenStream::Reject(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  if (!final_status_.has_value()) final_status_ = status;
  Pump();
}

void TokenStream::OnStarted(RequestStart /*start*/) {
  const std::lock_guard lock(mutex_);
  if (final_status_.has_value()) return;
  started_pending_ = true;
  PumpSoon();
}

void TokenStream::OnTokens(TokenDelta delta) {
  const std::lock_guard lock(mutex_);
  if (final_status_.has_value()) return;
  const absl::Time now = host_->clock().Now();
  MeterTokens(std::ssize(delta.token_ids), now);
  outbox_bytes_ += Bytes(delta);
  if (metrics_ != nullptr) metrics_->AddOutboxBytes(static_cast<int64_t>(Bytes(delta)));
  if (delta_.token_ids.empty() && delta_.text.empty()) {
    delta_ = std::move(delta);
  } else {
    delta_.text += delta.text;
    delta_.token_ids.insert(delta_.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  }
  PumpSoon();
  if (!IsTooSlow(now)) return;
  Abandon(SlowReader(outbox_bytes_, options_));
  if (IsStuck()) writer_->CutOffAfter(options_.slow_reader_timeout);
}

void TokenStream::OnFinish(FinishSummary summary) {
  const std::lock_guard lock(mutex_);
  timings_ = summary.timings;
  LogEnd(facts_.request_id, summary);
  if (!final_status_.has_value()) {
    final_status_ = FinishError(summary, facts_.request_id);
    if (summary.status.ok()) finished_ = std::move(summary);
    // From here on no token comes that would find the client too slow.
    if (IsStuck()) writer_->CutOffAfter(options_.slow_reader_timeout);
  }
  PumpSoon();
}

void TokenStream::OnWriteDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    write_in_flight_ = false;
    if (ok) {
      Pump();
      return;
    }
  }
  OnCancel();
}

void TokenStream::OnCancel() {
  const bool is_deadline = host_->clock().Now() + kDeadlineTolerance >= deadline_;
  {
    const std::lock_guard lock(mutex_);
    if (is_deadline) {
      // The engine sees the deadline by itself, and counts the request as what it is.
      DropOutbox();
      if (!final_status_.has_value() || final_status_->ok()) {
        final_status_ = absl::DeadlineExceededError("the deadline passed");
      }
    } else {
      Abandon(absl::CancelledError("cancelled by the client"));
    }
    Pump();
  }
  host_->Wake();
}

void TokenStream::CutOff() {
  const std::lock_guard lock(mutex_);
  if (!IsStuck()) return;
  DropOutbox();
  writer_->Cancel();
}

void TokenStream::Detach() {
  const std::lock_guard lock(mutex_);
  writer_ = nullptr;
  DropOutbox();
  host_->CallClosed();
}

void TokenStream::Pump() {
  while (writer_ != nullptr && !finish_called_ && !write_in_flight_) {
    if (WriteNext()) continue;
    if (!final_status_.has_value()) return;
    finish_called_ = true;
    writer_->Finish(*final_status_, timings_);
  }
}

void TokenStream::PumpSoon() {
  const bool is_idle = writer_ != nullptr && !write_in_flight_;
  if (options_.pump == nullptr || (is_idle && !PumpAt(MustWait() ? next_delta_ : StreamPump::Time::min()))) Pump();
}

// False when there is no pump any more.
bool TokenStream::PumpAt(StreamPump::Time due) {
  if (due >= posted_due_) return true;
  if (!options_.pump->Post(shared_from_this(), due)) return false;
  posted_due_ = due;
  return true;
}

void TokenStream::PumpNow() {
  const std::lock_guard lock(mutex_);
  posted_due_ = StreamPump::Time::max();
  Pump();
}

// Whether all that could be written is tokens that come too soon after the last ones.
bool TokenStream::MustWait() const {
  return options_.pump != nullptr && !started_pending_ && !final_status_.has_value() &&
         std::chrono::steady_clock::now() < next_delta_;
}

// False when there is nothing to write now.
bool TokenStream::WriteNext() {
  if (!delta_.token_ids.empty() && MustWait() && PumpAt(next_delta_)) return false;
  v1::GenerateResponse event;
  if (started_pending_) {
    started_pending_ = false;
    FillStarted(facts_, event.mutable_started());
  } else if (!delta_.token_ids.empty() || !delta_.text.empty()) {
    FillDelta(std::exchange(delta_, {}), event.mutable_delta());
    next_delta_ = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(options_.min_interval);
    if (metrics_ != nullptr) metrics_->AddOutboxBytes(-static_cast<int64_t>(outbox_bytes_));
    outbox_bytes_ = 0;
    over_limit_since_ = absl::InfiniteFuture();
  } else if (finished_.has_value()) {
    FillFinished(*finished_, event.mutable_finished());
    finished_.reset();
  } else {
    return false;
  }
  metadata_sent_ = true;
  write_in_flight_ = !writer_->Write(event);
  return true;
}

bool TokenStream::IsTooSlow(absl::Time now) {
  if (outbox_bytes_ <= options_.max_outbox_bytes) return false;
  over_limit_since_ = std::min(over_limit_since_, now);
  return now - over_limit_since_ >= options_.slow_reader_timeout;
}

void TokenStream::DropOutbox() {
  if (metrics_ != nullptr && outbox_bytes_ > 0) metrics_->AddOutboxBytes(-static_cast<int64_t>(outbox_bytes_));
  started_pending_ = false;
  delta_ = {};
  outbox_bytes_ = 0;
  finished_.reset();
}

void TokenStream::Abandon(absl::Status status) {
  DropOutbox();
  cancel_->Cancel();
  // A summary that was dropped unsent was a success the client never heard of.
  if (!final_status_.has_value() || final_status_->ok()) final_status_ = std::move(status);
}

// Whether the call can only end if the client takes the write in flight, which it has not done for a while.
bool TokenStream::IsStuck() const {
  const bool is_abandoned = final_status_.has_value() && !final_status_->ok();
  return writer_ != nullptr && write_in_flight_ && (is_abandoned || outbox_bytes_ > options_.max_outbox_bytes);
}

void TokenStream::MeterTokens(int64_t num_tokens, absl::Time now) {
  if (metrics_ != nullptr) {
    if (last_delivery_ == absl::InfinitePast()) {
      metrics_->OnFirstToken(now - arrival_);
    } else {
      metrics_->OnInterToken(now - last_delivery_, num_tokens);
    }
  }
  last_delivery_ = now;
}

}  // namespace cadre
