#include "engine/experts/shadow_simulator.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/clock.h"

namespace cadre {
namespace {

// How long the simulator leaves Note alone that it finds at work: some stores.
constexpr std::chrono::microseconds kNotePause(20);

// Whoever serves comes first. Where that is refused the thread is as any other, for a second at a time.
void LowerPriority() {
  constexpr int kNicest = 19;
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNicest);
}

AccessTraceOptions TraceOptions(const ShadowSimulatorOptions& options) {
  return {.num_layers = options.num_layers,
          .num_experts = options.num_experts,
          .max_bytes = options.trace_bytes > 0 ? options.trace_bytes
                                               : ShadowSimulator::TraceBytes(options.num_layers, options.num_experts)};
}

absl::Duration ThreadCpuTime() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

std::shared_ptr<const WhatIfReport> EmptyReport(const ShadowSimulatorOptions& options) {
  auto report = std::make_shared<WhatIfReport>();
  report->num_slots = options.num_slots;
  report->policy = options.policy;
  report->num_experts = options.num_layers * options.num_experts;
  return report;
}

int64_t CountSteps(const AccessLog& log) {
  int64_t count = 0;
  for (size_t i = 0; i < log.num_groups(); ++i) count += i == 0 || log.times[i].step != log.times[i - 1].step;
  return count;
}

}  // namespace

int64_t ShadowSimulator::TraceBytes(int64_t num_layers, int64_t num_experts) {
  // Measured: 20 ns for a group and an expert of the model, with four policies and three sizes.
  constexpr int64_t kGroupsTimesExperts = 50'000'000;
  constexpr int64_t kBytesOfGroup = 22;  // of eight experts
  constexpr int64_t kMaxBytes = int64_t{1} << 20;
  const int64_t within_time = kGroupsTimesExperts / (num_layers * num_experts) * kBytesOfGroup;
  const int64_t one_step = num_layers * (2 * num_experts + 6);  // at least, whatever it takes
  return std::max(std::min(within_time, kMaxBytes), one_step);
}

ShadowSimulator::ShadowSimulator(const ShadowSimulatorOptions& options)
    : options_(options),
      trace_options_(TraceOptions(options)),
      trace_(trace_options_),
      num_slots_(options.num_slots),
      fresh_(new Fresh{.trace = AccessTrace(trace_options_)}),
      latest_(EmptyReport(options)) {
  try {
    thread_ = std::thread([this] { Work(); });
  } catch (const std::system_error& error) {  // a server can do without
    WhatIfReport report = *latest_;
    report.status = absl::ResourceExhaustedError(
        absl::StrCat("other expert caches are not simulated: no thread could be started: ", error.what()));
    latest_ = std::make_shared<const WhatIfReport>(std::move(report));
  }
}

ShadowSimulator::~ShadowSimulator() {
  must_stop_.store(true);
  {
    const std::lock_guard lock(mutex_);  // so that nobody who has just looked misses the notice
  }
  has_changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  delete fresh_.load();
}

void ShadowSimulator::Note(const LayerTime& now, std::span<const int32_t> experts) {
  if (!thread_.joinable()) return;
  ids_.clear();
  for (const int32_t expert : experts) {
    ids_.push_back(static_cast<ExpertId>(now.layer * options_.num_experts + expert));
  }
  const auto count = static_cast<int64_t>(ids_.size());
  std::unique_ptr<Fresh> fresh(fresh_.exchange(nullptr));
  fresh->trace.Append(now, ids_);
  fresh->num_accesses = num_accesses_.fetch_add(count) + count;
  fresh_.store(fresh.release());
}

std::unique_ptr<ShadowSimulator::Fresh> ShadowSimulator::TakeFresh() {
  auto empty = std::make_unique<Fresh>(Fresh{.trace = AccessTrace(trace_options_)});
  while (true) {
    Fresh* noted = fresh_.load();
    if (noted != nullptr && fresh_.compare_exchange_strong(noted, empty.get())) {
      static_cast<void>(empty.release());  // Note's now
      return std::unique_ptr<Fresh>(noted);
    }
    std::this_thread::sleep_for(kNotePause);
  }
}

std::shared_ptr<const WhatIfReport> ShadowSimulator::Latest() const {
  const std::lock_guard lock(mutex_);
  return latest_;
}

void ShadowSimulator::Refresh() {
  {
    const std::lock_guard lock(mutex_);
    is_wanted_ = true;
  }
  has_changed_.notify_all();
}

std::shared_ptr<const WhatIfReport> ShadowSimulator::TryLatest() const {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  return lock.owns_lock() ? latest_ : nullptr;
}

bool ShadowSimulator::TryRefresh() {
  {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    is_wanted_ = true;
  }
  has_changed_.notify_all();
  return true;
}

void ShadowSimulator::SetNumSlots(int64_t num_slots) {
  num_slots_.store(num_slots);
  const std::lock_guard lock(mutex_);
  if (latest_->num_simulations > 0) return;  // it tells of a size that there was
  WhatIfReport report = *latest_;
  report.num_slots = num_slots;
  latest_ = std::make_shared<const WhatIfReport>(std::move(report));
}

void ShadowSimulator::SetKept(std::vector<ExpertId> experts) {
  const std::lock_guard lock(mutex_);
  kept_ = std::move(experts);
}

void ShadowSimulator::Work() {
  LowerPriority();
  std::unique_lock lock(mutex_);
  while (AwaitTurn(lock)) {
    is_wanted_ = false;
    const std::shared_ptr<const WhatIfReport> before = latest_;
    const std::vector<ExpertId> kept = kept_;
    lock.unlock();
    const std::unique_ptr<Fresh> fresh = TakeFresh();
    auto report = std::make_shared<WhatIfReport>(*before);
    report->num_accesses = std::max(before->num_accesses, fresh->num_accesses);
    Simulate(fresh->trace, kept, report.get());
    std::shared_ptr<const WhatIfReport> next = std::move(report);
    lock.lock();
    if (!must_stop_.load()) latest_.swap(next);
    lock.unlock();
    next.reset();  // nobody waits for that either
    lock.lock();
  }
}

bool ShadowSimulator::AwaitTurn(std::unique_lock<std::mutex>& lock) {
  const auto now = std::chrono::steady_clock::now();
  const auto soonest = now + absl::ToChronoNanoseconds(std::max(options_.min_pause, 9 * last_cpu_time_));
  const auto latest = now + absl::ToChronoNanoseconds(options_.interval);
  const auto stops = [this] { return must_stop_.load(); };
  const auto stops_or_is_wanted = [&] { return stops() || is_wanted_; };
  if (has_changed_.wait_until(lock, soonest, stops)) return false;
  has_changed_.wait_until(lock, latest, stops_or_is_wanted);
  // Nothing new: the last answer is still right.
  while (!stops() && latest_->num_accesses == num_accesses_.load()) {
    is_wanted_ = false;
    has_changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.interval), stops_or_is_wanted);
  }
  return !stops();
}

SlotMargin ShadowSimulator::SimulateMargin(const AccessLog& log, int64_t num_slots,
                                           const std::vector<ExpertId>& kept) const {
  SlotMargin margin;
  margin.num_slots = num_slots;
  margin.step_slots = margin_step_.load();
  if (margin.step_slots == 0) return margin;
  const auto simulate = [&](int64_t slots) {
    const int64_t most = options_.num_layers * options_.num_experts;
    if (must_stop_.load()) return ShadowResult();
    return SimulatePolicy(log, {.policy = options_.policy,
                                .num_slots = std::clamp<int64_t>(slots, 1, most),
                                .num_threads = options_.num_threads,
                                .kept = kept});
  };
  margin.fewer = simulate(num_slots - margin.step_slots);
  margin.same = simulate(num_slots);
  margin.more = simulate(num_slots + margin.step_slots);
  return margin;
}

void ShadowSimulator::Simulate(const AccessTrace& fresh, const std::vector<ExpertId>& kept, WhatIfReport* report) {
  const absl::Duration begin = ThreadCpuTime();
  {
    const AccessLog log = fresh.Log();
    for (size_t i = 0; i < log.num_groups(); ++i) trace_.Append(log.times[i], log.group(i));
  }
  const AccessLog log = trace_.Log();
  report->num_slots = num_slots_.load();
  report->rows =
      SimulateWhatIf(log, {.num_slots = report->num_slots, .num_threads = options_.num_threads}, &must_stop_);
  report->margin = SimulateMargin(log, report->num_slots, kept);
  report->num_steps = CountSteps(log);
  report->num_lookups = static_cast<int64_t>(log.experts.size());
  report->time = MonotonicClock().Now();
  last_cpu_time_ = ThreadCpuTime() - begin;
  report->cpu_time += last_cpu_time_;
  ++report->num_simulations;
}

}  // namespace cadre
