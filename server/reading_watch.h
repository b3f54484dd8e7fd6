// What becomes of calls whose clients do not take what is sent to them.
#ifndef CADRE_SERVER_READING_WATCH_H_
#define CADRE_SERVER_READING_WATCH_H_

#include <grpcpp/server_context.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/call_alarm.h"
#include "server/services.h"

namespace cadre {

// How long a client may take for a message that holds a call's memory: `slow_reader_timeout` for each MiB that it has
// begun.
absl::Duration MessagePatience(size_t bytes, absl::Duration slow_reader_timeout);
// For the one answer of a call: the same, but 10 s at least for what is so small that it costs little to keep. It may
// tell of something that was done, and a busy server or the client's other calls may be what keeps it.
absl::Duration AnswerPatience(size_t bytes, const TokenStreamOptions& options);

// Of one call, which it may outlive where its alarm is just ringing. Thread-safe.
class ReadingWatch : public std::enable_shared_from_this<ReadingWatch> {
 public:
  // For a client whose time is over: kCutOff cancels its call; kTellFirst does so when the same time has passed once
  // more, and has Took say why the call must end if the client reads before.
  enum class WhenLate { kCutOff, kTellFirst };

  // `services`, and what `path`, "/package.Service/Method", is a view of, outlive the call.
  ReadingWatch(const ServiceContext& services, grpc::CallbackServerContext* context, std::string_view path)
      : services_(services), path_(path), context_(context) {}

  // A message begins to leave, and should have left after `patience`. Instead of the one before.
  void Begin(absl::Duration patience, WhenLate when_late);
  // It has left. RESOURCE_EXHAUSTED (SLOW_READER) where that was too late.
  absl::Status Took();
  // How much of the patience for the message on its way is left; nothing where none is.
  absl::Duration TimeLeft() const;
  // Cancels the call, counts it, and says so in the log, once.
  void CutOff();
  // Exactly once: the call is about to go.
  void End();

 private:
  // These run under mutex_.
  void Arm();
  void OnLate();
  void Cancel();

  const ServiceContext& services_;  // not to be touched once the call is gone
  const std::string_view path_;     // the same
  mutable std::mutex mutex_;
  grpc::CallbackServerContext* context_;  // null once the call is gone
  CallAlarm alarm_;
  int64_t generation_ = 0;  // of the alarm: one that was set before is nobody's
  absl::Duration patience_;
  absl::Time due_ = absl::InfinitePast();
  WhenLate when_late_ = WhenLate::kCutOff;
  bool is_late_ = false;
  bool is_cut_off_ = false;
};

}  // namespace cadre

#endif  // CADRE_SERVER_READING_WATCH_H_
