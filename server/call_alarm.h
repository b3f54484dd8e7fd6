#ifndef CADRE_SERVER_CALL_ALARM_H_
#define CADRE_SERVER_CALL_ALARM_H_

#include <grpcpp/alarm.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace cadre {

// Rings on one of gRPC's threads, and keeps what it would ring for no longer than until this is destroyed. One thread
// at a time; `ring` may set it again, but must not destroy it.
class CallAlarm {
 public:
  CallAlarm() = default;
  CallAlarm(const CallAlarm&) = delete;
  CallAlarm& operator=(const CallAlarm&) = delete;
  ~CallAlarm() { Cancel(); }

  // Replaces what was set before.
  void Set(absl::Duration delay, std::function<void()> ring) {
    Cancel();
    pending_ = std::make_shared<grpc::Alarm>();
    // It holds itself until it has rung or was cancelled, which may be after this is gone.
    pending_->Set(absl::ToChronoTime(absl::Now() + delay),
                  [alarm = pending_, ring = std::move(ring)](bool is_time) mutable {
                    if (is_time) ring();
                    ring = nullptr;
                    alarm.reset();
                  });
  }

  // Does not ring any more, unless it is just doing so.
  void Cancel() {
    if (pending_ != nullptr) pending_->Cancel();
  }

 private:
  std::shared_ptr<grpc::Alarm> pending_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_CALL_ALARM_H_
