#include "server/reading_watch.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/base/strings.h"
#include "server/errors.h"
#include "server/incoming_call.h"
#include "server/request_log.h"

namespace cadre {
namespace {

constexpr size_t kPatienceBytes = 1 << 20;
constexpr absl::Duration kMinAnswerPatience = absl::Seconds(10);

absl::Status SlowReader(absl::Duration patience) {
  return MakeError({.code = absl::StatusCode::kResourceExhausted,
                    .reason = reason::kSlowReader,
                    .message = absl::StrCat("the client reads too slowly: it did not take a message within ",
                                            absl::FormatDuration(patience)),
                    .metadata = {{"timeout", absl::FormatDuration(patience)}}});
}

}  // namespace

absl::Duration MessagePatience(size_t bytes, absl::Duration slow_reader_timeout) {
  return slow_reader_timeout * static_cast<int64_t>(1 + bytes / kPatienceBytes);
}

absl::Duration AnswerPatience(size_t bytes, const TokenStreamOptions& options) {
  const absl::Duration patience = MessagePatience(bytes, options.slow_reader_timeout);
  return bytes <= options.max_outbox_bytes ? std::max(patience, kMinAnswerPatience) : patience;
}

void ReadingWatch::Begin(absl::Duration patience, WhenLate when_late) {
  const std::lock_guard lock(mutex_);
  ++generation_;
  patience_ = patience;
  when_late_ = when_late;
  is_late_ = false;
  Arm();
}

absl::Status ReadingWatch::Took() {
  const std::lock_guard lock(mutex_);
  ++generation_;
  due_ = absl::InfinitePast();
  alarm_.Cancel();
  return is_late_ ? SlowReader(patience_) : absl::OkStatus();
}

absl::Duration ReadingWatch::TimeLeft() const {
  const std::lock_guard lock(mutex_);
  return std::max(due_ - absl::Now(), absl::ZeroDuration());
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
  due_ = absl::Now() + patience_;
  alarm_.Set(patience_, [self = shared_from_this(), generation = generation_] {
    const std::lock_guard lock(self->mutex_);
    if (self->generation_ == generation) self->OnLate();
  });
}

void ReadingWatch::OnLate() {
  if (is_late_ || when_late_ == WhenLate::kCutOff) return Cancel();
  is_late_ = true;
  Arm();
}

void ReadingWatch::Cancel() {
  if (context_ == nullptr || std::exchange(is_cut_off_, true)) return;
  if (services_.metrics != nullptr) services_.metrics->OnCallCutOff();
  if (spdlog::should_log(spdlog::level::debug)) {
    // Before the call is cancelled: then nobody knows any more whose it was.
    LogCall(spdlog::level::debug, LabelsOf(services_, *context_, path_),
            absl::StrCat("client does not read what is sent to it: cut off from ", ToAbsl(path_), ", called"));
  }
  context_->TryCancel();
}

}  // namespace cadre
