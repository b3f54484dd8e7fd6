#include "server/reading_watch.h"

#include "absl/strings/str_cat.h"
#include "server/errors.h"
#include "server/incoming_call.h"
#include "server/request_log.h"

namespace cadre {
namespace {

constexpr size_t kPatienceBytes = 1 << 20;

absl::Status SlowReader(absl::Duration patience) {
  return MakeError(
      {.code = absl::StatusCode::kResourceExhausted,
       .reason = reason::kSlowReader,
       .message = absl::StrCat("the client reads too slowly: it took nothing for ", absl::FormatDuration(patience)),
       .metadata = {{"timeout", absl::FormatDuration(patience)}}});
}

}  // namespace

absl::Duration MessagePatience(size_t bytes, absl::Duration slow_reader_timeout) {
  return slow_reader_timeout * static_cast<int64_t>(1 + bytes / kPatienceBytes);
}

void ReadingWatch::Begin(absl::Duration patience, WhenLate when_late) {
  const std::lock_guard lock(mutex_);
  ++num_begun_;
  patience_ = patience;
  when_late_ = when_late;
  is_late_ = false;
  Arm();
}

absl::Status ReadingWatch::Took() {
  const std::lock_guard lock(mutex_);
  ++num_begun_;
  alarm_.Cancel();
  return is_late_ ? SlowReader(patience_) : absl::OkStatus();
}

void ReadingWatch::CutOff() {
  const std::lock_guard lock(mutex_);
  Cancel();
}

void ReadingWatch::End() {
  const std::lock_guard lock(mutex_);
  context_ = nullptr;
  alarm_.Cancel();
}

void ReadingWatch::Arm() {
  alarm_.Set(patience_, [self = shared_from_this(), message = num_begun_] {
    const std::lock_guard lock(self->mutex_);
    if (self->num_begun_ == message) self->OnLate();
  });
}

void ReadingWatch::OnLate() {
  if (is_late_ || when_late_ == WhenLate::kCutOff) return Cancel();
  is_late_ = true;
  Arm();
}

void ReadingWatch::Cancel() {
  if (context_ == nullptr) return;
  context_->TryCancel();
  if (services_.metrics != nullptr) services_.metrics->OnCallCutOff();
  LogCall(spdlog::level::debug, LabelsOf(services_, *context_, path_), "call of a client that does not read cut off");
}

}  // namespace cadre
