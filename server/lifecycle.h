// From the first signal to the last call: watches the engine's progress while it runs, and ends the server in order.
//
//   SIGTERM or SIGINT: readiness off; for --drain-delay requests are still accepted, until balancers have noticed
//   then: new requests are refused with UNAVAILABLE; accepted ones run on
//   all done, or --drain-timeout: what still runs ends with UNAVAILABLE; calls are closed; the process ends with 0
//   a device that is lost to this process: readiness off, what runs ends with UNAVAILABLE, and the process with 74
//   a second signal, at any time: the process ends at once with 128 + signal
#ifndef CADRE_SERVER_LIFECYCLE_H_
#define CADRE_SERVER_LIFECYCLE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "server/health.h"
#include "server/memory_guard.h"
#include "server/metrics.h"
#include "server/model_host.h"
#include "server/placing_log.h"

namespace cadre {

// Makes SIGTERM and SIGINT wait for Lifecycle, in this thread and those it starts, and ignores SIGPIPE: a client or a
// log reader that goes away is an error code, not the end. First thing in main.
void BlockSignals();

struct LifecycleOptions {
  absl::Duration drain_delay = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration stall_timeout = absl::Seconds(60);
  // Told of each reading of the host's memory, ten times a second.
  std::function<void(const MemoryReading&)> on_memory = nullptr;
};

// Ends the process with an error when this is not destroyed in time: an engine that is stuck in a step cannot be
// joined, and a server that was told to end must end. A signal that comes meanwhile ends it at once.
class ExitTimer {
 public:
  explicit ExitTimer(absl::Duration limit);
  ~ExitTimer();
  ExitTimer(const ExitTimer&) = delete;
  ExitTimer& operator=(const ExitTimer&) = delete;

 private:
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

// Belongs to the main thread; is_ready() and is_stalled() may be asked from any.
class Lifecycle {
 public:
  // `metrics` and `memory` may be null. All outlive this.
  Lifecycle(const LifecycleOptions& options, ModelHost* host, Health* health, Metrics* metrics,
            MemoryGuard* memory = nullptr);

  // Waits for a signal, and watches the engine meanwhile; readiness follows what it sees. Also returns, with 0, once
  // `stop` is set, or when the engine's device is lost.
  int RunUntilSignal(const std::atomic<bool>& stop);
  // Returns once no call is open or the drain time is over; new requests are refused from then on.
  void Drain();

  bool is_ready() const { return is_ready_.load(); }
  bool is_stalled() const { return is_stalled_.load(); }
  bool is_device_lost() const { return is_device_lost_.load(); }

 private:
  void Watch();
  void WatchMemory();
  // Whether requests are in flight and no step has ended for the stall timeout, or none is in progress for the idle
  // timeout, as far as calls of this can tell.
  bool SeesStall(absl::Time now);
  void SetReady(bool ready);
  // Waits for a signal for `patience`. A second one ends the process.
  int AwaitSignal(absl::Duration patience);

  const LifecycleOptions options_;
  ModelHost* const host_;
  Health* const health_;
  Metrics* const metrics_;
  MemoryGuard* const memory_;
  std::atomic<bool> is_ready_{false};
  std::atomic<bool> is_stalled_{false};
  std::atomic<bool> is_device_lost_{false};
  bool is_memory_watched_ = false;
  PlacingLog placing_log_;
  MemoryPressure memory_pressure_ = MemoryPressure::kNone;  // as the host was last told
  absl::Time last_progress_observed_ = absl::InfinitePast();
  int64_t last_steps_ = -1;
  absl::Time last_step_observed_ = absl::InfinitePast();
  absl::Time last_activity_observed_ = absl::InfinitePast();  // a step ended or was in progress
  int num_signals_ = 0;
};

}  // namespace cadre

#endif  // CADRE_SERVER_LIFECYCLE_H_
