#include "server/lifecycle.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "server/exit_codes.h"
#include "server/logging.h"

namespace cadre {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
// Each end of the server takes up to one of these longer.
constexpr absl::Duration kExitTick = absl::Milliseconds(10);
constexpr absl::Duration kProgressInterval = absl::Seconds(1);
// A step may be long, but with work to do the next one begins at once. Longer than any pause of a busy machine, and
// with the time to notice it below two seconds.
constexpr absl::Duration kIdleTimeout = absl::Milliseconds(1500);

// Of the memory that is left for requests, compiled constraints may keep an eighth.
constexpr int kConstraintShare = 8;

[[noreturn]] void EndAtOnce(int exit_code, const char* why) {
  WriteToStderr(why, absl::ZeroDuration());
  _exit(exit_code);
}

sigset_t EndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

// 0 when none came for `patience`.
int NextSignal(absl::Duration patience) {
  const sigset_t set = EndingSignals();
  const timespec timeout = absl::ToTimespec(std::max(patience, absl::ZeroDuration()));
  return std::max(sigtimedwait(&set, nullptr, &timeout), 0);
}

[[noreturn]] void EndBySignal(int signal_number) {
  EndAtOnce(kExitSignalBase + signal_number, "cadre-server: ended at once by a second signal\n");
}

}  // namespace

void BlockSignals() {
  const sigset_t set = EndingSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

ExitTimer::ExitTimer(absl::Duration limit)
    : thread_([this, limit] {
        const absl::Time end = absl::Now() + limit;
        while (!is_over_.load()) {
          if (const int signal_number = NextSignal(kExitTick); signal_number != 0) EndBySignal(signal_number);
          if (absl::Now() >= end) EndAtOnce(kExitInternal, "cadre-server: did not end in time; ended anyway\n");
        }
      }) {}

ExitTimer::~ExitTimer() {
  is_over_.store(true);
  thread_.join();
}

Lifecycle::Lifecycle(const LifecycleOptions& options, ModelHost* host, Health* health, Metrics* metrics,
                     MemoryGuard* memory)
    : options_(options), host_(host), health_(health), metrics_(metrics), memory_(memory) {}

int Lifecycle::RunUntilSignal(const std::atomic<bool>& stop) {
  while (!stop.load() && !is_device_lost()) {
    Watch();
    if (const int signal_number = AwaitSignal(kTick); signal_number != 0) return signal_number;
  }
  return 0;
}

void Lifecycle::Drain() {
  SetReady(false);
  if (metrics_ != nullptr) metrics_->SetDraining(true);
  const absl::Time delay_end = absl::Now() + options_.drain_delay;
  while (absl::Now() < delay_end) {
    WatchMemory();
    AwaitSignal(std::min(kTick, delay_end - absl::Now()));
  }

  host_->StartDrain();
  spdlog::info("draining: waiting up to {} for {} open calls", absl::FormatDuration(options_.drain_timeout),
               host_->num_open_calls());
  const absl::Time drain_end = absl::Now() + options_.drain_timeout;
  while (absl::Now() < drain_end && (!host_->IsIdle() || host_->num_open_calls() > 0)) {
    WatchMemory();
    AwaitSignal(std::min(kTick, drain_end - absl::Now()));
  }
  if (!host_->IsIdle()) spdlog::warn("the drain time is over: ending {} open calls", host_->num_open_calls());
}

void Lifecycle::Watch() {
  const absl::Time now = host_->clock().Now();
  if (now - last_progress_observed_ >= kProgressInterval) {
    last_progress_observed_ = now;
    host_->ObserveProgress(now);
  }
  if (host_->Snapshot().is_lost && !is_device_lost_.exchange(true)) {
    spdlog::error("the device is lost to this process: ending, for whoever supervises it to start another");
  }
  if (const auto cache = host_->Snapshot().expert_cache; cache.has_value()) {
    if (const auto line = placing_log_.Observe(*cache, now); line.has_value()) spdlog::info("{}", *line);
  }
  WatchMemory();
  const bool is_stalled = SeesStall(now);
  if (is_stalled != is_stalled_.exchange(is_stalled)) {
    if (metrics_ != nullptr) metrics_->SetStalled(is_stalled);
    if (is_stalled) {
      spdlog::error("the engine has requests and has finished no step for {}: not ready",
                    absl::FormatDuration(now - last_step_observed_));
    } else {
      spdlog::warn("the engine goes on");
    }
  }
  SetReady(host_->state() == ModelHost::State::kReady && !is_stalled && !is_device_lost());
}

void Lifecycle::WatchMemory() {
  if (memory_ == nullptr || host_->state() == ModelHost::State::kLoading) return;
  if (!is_memory_watched_) memory_->Arm();
  is_memory_watched_ = true;
  const MemoryFigures figures = memory_->Observe();
  if (metrics_ != nullptr) metrics_->SetMemory(figures);
  if (options_.on_memory) options_.on_memory(figures.reading);
  host_->SetConstraintMemory(figures.reading.headroom / kConstraintShare);
  if (figures.level != memory_pressure_ || figures.level == MemoryPressure::kPreempt) {
    host_->SetMemoryPressure(figures.level);
  }
  memory_pressure_ = figures.level;
}

bool Lifecycle::SeesStall(absl::Time now) {
  const EngineSnapshot snapshot = host_->Snapshot();
  if (snapshot.admitted_requests == snapshot.num_finished() || snapshot.steps != last_steps_) {
    last_steps_ = snapshot.steps;
    last_step_observed_ = now;
    last_activity_observed_ = now;
  }
  if (snapshot.is_in_forward) last_activity_observed_ = now;
  return now - last_step_observed_ >= options_.stall_timeout || now - last_activity_observed_ >= kIdleTimeout;
}

void Lifecycle::SetReady(bool ready) {
  if (ready == is_ready_.exchange(ready)) return;
  health_->SetReady(ready);
  if (metrics_ != nullptr) metrics_->SetReady(ready);
}

int Lifecycle::AwaitSignal(absl::Duration patience) {
  const int signal_number = NextSignal(patience);
  if (signal_number != 0 && ++num_signals_ > 1) EndBySignal(signal_number);
  return signal_number;
}

}  // namespace cadre
