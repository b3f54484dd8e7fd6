#include "server/token_stream.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/request/refusal.h"
#include "server/errors.h"
#include "server/metrics.h"
#include "server/model_host.h"

namespace cadre {
namespace {

// gRPC's own deadline timer may be earlier than the engine's by rounding; a cancel so close to the deadline is the
// deadline.
constexpr absl::Duration kDeadlineTolerance = absl::Milliseconds(20);

// What clients are not told must be found here.
void LogEnd(const RequestLabels& labels, const FinishSummary& summary) {
  const bool is_ours =
      summary.status.code() == absl::StatusCode::kInternal || RefusalOf(summary.status) == Refusal::kExpertUnavailable;
  const auto level = is_ours ? spdlog::level::err : spdlog::level::debug;
  if (!spdlog::should_log(level)) return;
  LogRequest(
      level, labels,
      absl::StrCat(": ", summary.status.ToString(), " after ", summary.usage.generated_tokens, " generated tokens"));
}

absl::Status SlowReader(size_t waiting_bytes, size_t limit, const TokenStreamOptions& options) {
  ErrorSpec spec{.code = absl::StatusCode::kResourceExhausted, .reason = reason::kSlowReader};
  spec.message = absl::StrCat("the client reads too slowly: ", waiting_bytes, " bytes wait, more than the limit of ",
                              limit, " for longer than ", absl::FormatDuration(options.slow_reader_timeout));
  spec.metadata = {{"limit", absl::StrCat(limit)}, {"actual", absl::StrCat(waiting_bytes)}};
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
      writer_(writer) {}

TokenStream::~TokenStream() { DropOutbox(); }

bool TokenStream::IsAtDeadline() const { return host_->clock().Now() + kDeadlineTolerance >= deadline_; }

void TokenStream::SetRequestId(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (writer_ != nullptr && !finish_called_) writer_->SetRequestId(id);
  facts_.request_id = id;
  labels_.request_id = id;
}

void TokenStream::SetTenant(std::string tenant) {
  const std::lock_guard lock(mutex_);
  labels_.tenant = std::move(tenant);
}

RequestLabels TokenStream::labels() {
  const std::lock_guard lock(mutex_);
  return labels_;
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
  std::unique_lock lock(mutex_);
  if (!final_status_.has_value()) final_status_ = status;
  Pump(&lock);
}

void TokenStream::OnStarted(RequestStart start) {
  std::unique_lock lock(mutex_);
  if (final_status_.has_value()) return;
  outbox_.Add(std::move(start));
  PumpSoon(&lock);
}

void TokenStream::OnTokens(TokenDelta delta) {
  std::unique_lock lock(mutex_);
  if (final_status_.has_value()) return;
  const absl::Time now = host_->clock().Now();
  MeterTokens(delta, now);
  outbox_.Add(std::move(delta));
  TellOutboxBytes();
  PumpSoon(&lock);
  if (!IsTooSlow(now)) return;
  Abandon(SlowReader(outbox_.bytes(), OutboxLimit(), options_));
  if (IsStuck()) ArmCutOff();
}

void TokenStream::OnFinish(FinishSummary summary) {
  host_->SequenceEnded();
  std::unique_lock lock(mutex_);
  if (!totals_.has_value()) {
    totals_ = {.timings = summary.timings, .routing = summary.routing, .usage = summary.usage};
  } else {
    totals_->timings = CoverBoth(totals_->timings, summary.timings);
    totals_->routing += summary.routing;
    totals_->usage.generated_tokens += summary.usage.generated_tokens;
  }
  LogEnd(labels_, summary);
  if (!final_status_.has_value()) {
    const absl::Status error = FinishError(summary, facts_.request_id);
    // One sequence that fails fails the call; all others have to end well.
    if (!error.ok() || summary.is_last) final_status_ = error;
    if (error.ok()) outbox_.Add(std::move(summary));
    // From here on no token comes that would find the client too slow.
    if (final_status_.has_value() && IsStuck()) ArmCutOff();
  }
  PumpSoon(&lock);
}

void TokenStream::OnWriteDone(bool ok) {
  {
    std::unique_lock lock(mutex_);
    write_in_flight_ = false;
    ++num_writes_;
    if (ok) {
      Pump(&lock);
      return;
    }
  }
  OnCancel();
}

void TokenStream::OnPartTaken() {
  const std::lock_guard lock(mutex_);
  ++num_writes_;
}

void TokenStream::OnCancel() {
  const bool is_deadline = IsAtDeadline();
  {
    std::unique_lock lock(mutex_);
    if (is_deadline) {
      // The engine sees the deadline by itself, and counts the request as what it is.
      DropOutbox();
      if (!final_status_.has_value() || final_status_->ok()) {
        final_status_ = absl::DeadlineExceededError("the deadline passed");
      }
    } else {
      Abandon(absl::CancelledError("cancelled by the client"));
    }
    Pump(&lock);
  }
  host_->Wake();
}

void TokenStream::Abort() {
  {
    std::unique_lock lock(mutex_);
    if (final_status_.has_value()) return;
    was_aborted_ = true;
    Abandon(MakeError({.code = absl::StatusCode::kCancelled,
                       .reason = reason::kCancelled,
                       .message = "aborted by its request id",
                       .metadata = {{"request_id", facts_.request_id}}}));
    if (IsStuck()) ArmCutOff();
    Pump(&lock);
  }
  host_->Wake();
}

void TokenStream::CutOff() {
  const std::lock_guard lock(mutex_);
  if (!IsStuck()) return;
  if (num_writes_ != num_writes_armed_) return ArmCutOff();  // it reads, if slowly
  DropOutbox();
  writer_->Cancel();
}

void TokenStream::ArmCutOff() {
  num_writes_armed_ = num_writes_;
  writer_->CutOffAfter(options_.slow_reader_timeout);
}

void TokenStream::Detach() {
  const std::lock_guard lock(mutex_);
  writer_ = nullptr;
  DropOutbox();
}

void TokenStream::Pump(std::unique_lock<std::mutex>* lock) {
  while (writer_ != nullptr && !finish_called_ && !write_in_flight_) {
    if (WriteNext(lock)) continue;
    if (!final_status_.has_value()) return;
    finish_called_ = true;
    writer_->Finish(*final_status_, totals_);
  }
}

void TokenStream::PumpSoon(std::unique_lock<std::mutex>* lock) {
  const bool is_idle = writer_ != nullptr && !write_in_flight_;
  if (options_.pump == nullptr || (is_idle && !PumpAt(MustWait() ? next_delta_ : StreamPump::Time::min()))) Pump(lock);
}

// False when there is no pump any more.
bool TokenStream::PumpAt(StreamPump::Time due) {
  if (due >= posted_due_) return true;
  if (!options_.pump->Post(shared_from_this(), due)) return false;
  posted_due_ = due;
  return true;
}

void TokenStream::PumpNow() {
  std::unique_lock lock(mutex_);
  posted_due_ = StreamPump::Time::max();
  Pump(&lock);
}

// Whether all that could be written is tokens that come too soon after the last ones.
bool TokenStream::MustWait() const {
  return options_.pump != nullptr && !outbox_.has_start() && !final_status_.has_value() &&
         std::chrono::steady_clock::now() < next_delta_;
}

absl::Duration TokenStream::Interval() const {
  const absl::Duration shared = options_.interval_per_call * host_->num_open_calls();
  return std::max(options_.min_interval, std::min(shared, kMaxSharedInterval));
}

// False when there is nothing to write now.
bool TokenStream::WriteNext(std::unique_lock<std::mutex>* lock) {
  if (outbox_.empty() || (MustWait() && PumpAt(next_delta_))) return false;
  TokenOutbox::Item item;
  const bool ends_round = outbox_.Take(&item);
  // Each sequence has its message before the wait begins.
  if (ends_round) next_delta_ = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(Interval());
  TellOutboxBytes();
  if (outbox_.bytes() <= OutboxLimit()) over_limit_since_ = absl::InfiniteFuture();
  metadata_sent_ = true;
  // An error waits until the client has taken what comes before it, or was cut off.
  finish_called_ = outbox_.empty() && final_status_.has_value() && final_status_->ok();
  write_in_flight_ = !finish_called_;
  // While these say so nobody else writes, and the call, which has not been finished, cannot go.
  ResponseWriter* const writer = writer_;
  const bool is_last = finish_called_;
  const std::optional<RequestTotals> totals = totals_;

  lock->unlock();
  v1::GenerateResponse event;
  FillEvent(facts_, std::move(item), &event);
  bool is_taken = false;
  if (is_last) {
    writer->WriteLast(event, totals);
  } else {
    is_taken = writer->Write(event);
  }
  lock->lock();
  if (is_taken) write_in_flight_ = false;
  return true;
}

size_t TokenStream::OutboxLimit() const {
  return options_.max_outbox_bytes * static_cast<size_t>(facts_.num_sequences);
}

void TokenStream::TellOutboxBytes() {
  const size_t told = std::exchange(told_outbox_bytes_, outbox_.bytes());
  if (told == outbox_.bytes()) return;
  if (metrics_ != nullptr) metrics_->AddOutboxBytes(static_cast<int64_t>(outbox_.bytes()) - static_cast<int64_t>(told));
}

bool TokenStream::IsTooSlow(absl::Time now) {
  if (outbox_.bytes() <= OutboxLimit()) return false;
  over_limit_since_ = std::min(over_limit_since_, now);
  return now - over_limit_since_ >= options_.slow_reader_timeout;
}

void TokenStream::DropOutbox() {
  outbox_.Clear();
  TellOutboxBytes();
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
  return writer_ != nullptr && write_in_flight_ && (is_abandoned || outbox_.bytes() > OutboxLimit());
}

void TokenStream::MeterTokens(const TokenDelta& delta, absl::Time now) {
  const int64_t num_tokens = std::ssize(delta.token_ids) - delta.num_prompt_tokens;
  if (num_tokens == 0) return;
  // Of each sequence by itself: the tokens of others come in between.
  const auto [last, is_first] = last_delivery_.try_emplace(delta.index, now);
  const absl::Duration gap = now - std::exchange(last->second, now);
  if (metrics_ == nullptr) return;
  if (!is_first) {
    metrics_->OnInterToken(gap, num_tokens);
  } else if (last_delivery_.size() == 1) {
    metrics_->OnFirstToken(now - arrival_);
  }
}

}  // namespace cadre
