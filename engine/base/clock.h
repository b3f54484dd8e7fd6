// Time as an argument: the state machines take `absl::Time now`, and only the engine loop asks a clock.
#ifndef CADRE_ENGINE_BASE_CLOCK_H_
#define CADRE_ENGINE_BASE_CLOCK_H_

#include "absl/time/time.h"

namespace cadre {

// Thread-safe source of the current time. Values never go backwards.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// Wall time at the first call, advanced by the monotonic clock: a wall clock that is set back or forward while the
// server runs neither expires nor revives a request.
class MonotonicClock final : public Clock {
 public:
  absl::Time Now() const override;
};

// A clock that a test moves by hand. Not thread-safe.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::UnixEpoch()) : now_(start) {}
  absl::Time Now() const override { return now_; }
  void Advance(absl::Duration d) { now_ += d; }

 private:
  absl::Time now_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_BASE_CLOCK_H_
