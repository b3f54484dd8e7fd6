#include "tools/loadgen/load_run.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "tools/loadgen/generate_call.h"
#include "tools/loadgen/load_recorder.h"

namespace cadre {
namespace {

constexpr auto kProgressInterval = std::chrono::milliseconds(500);
constexpr auto kStopCheckInterval = std::chrono::milliseconds(50);

// The calls in flight.
class Flight {
 public:
  void Add(std::unique_ptr<GenerateCall> call) {
    std::lock_guard<std::mutex> lock(mutex_);
    GenerateCall* const key = call.get();
    calls_.emplace(key, std::move(call));
    ++size_;
  }

  // From a thread of gRPC, as the last act of the call. The call counts until it is deleted: whoever waits for the last
  // one may then take the channel and the process down.
  void Remove(GenerateCall* call) {
    std::unique_ptr<GenerateCall> ended;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ended = std::move(calls_.extract(call).mapped());
    }
    ended.reset();
    std::lock_guard<std::mutex> lock(mutex_);
    --size_;
    changed_.notify_all();
  }

  // Waits until fewer than `limit` are in flight, or `end`.
  bool AwaitBelow(size_t limit, std::chrono::steady_clock::time_point end) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_until(lock, end, [&] { return size_ < limit; });
  }

  size_t size() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return size_;
  }

  void AbandonAll() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [key, call] : calls_) call->Abandon();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<GenerateCall*, std::unique_ptr<GenerateCall>> calls_;  // not yet ended
  size_t size_ = 0;                                                         // not yet deleted
};

class LoadRunner {
 public:
  LoadRunner(const LoadRunOptions& options, Workload& workload,
             const std::vector<std::shared_ptr<grpc::Channel>>& channels, const std::atomic<bool>& stop,
             const std::function<void(const LoadProgress&)>& progress)
      : options_(options),
        workload_(workload),
        stop_(stop),
        progress_(progress),
        arrivals_(options.arrivals, std::max(options.rate, 1e-9), options.seed) {
    for (const auto& channel : channels) stubs_.push_back(v1::GenerationService::NewStub(channel));
  }

  LoadReport Run() {
    if (options_.warmup_requests == 0) BeginWindow(absl::ToInt64Nanoseconds(options_.warmup));
    SendAll();
    if (stop_) EndWindow();
    Drain();
    return recorder_.Finish(clock_.Now(), options_.rate);
  }

 private:
  void BeginWindow(int64_t begin) {
    const int64_t duration = absl::ToInt64Nanoseconds(options_.duration);
    window_begin_ = begin;
    window_end_ = duration > 0 ? begin + duration : LoadRecorder::kOpenEnd;
    recorder_.SetWindow(begin, window_end_);
  }

  // Somebody stopped the run: its rates are those up to now.
  void EndWindow() {
    if (!window_begin_) BeginWindow(clock_.Now());
    recorder_.SetWindow(*window_begin_, std::max(*window_begin_, std::min(window_end_, clock_.Now())));
  }

  // When the next request should be sent; nothing when the trace is over.
  std::optional<int64_t> NextIntended() {
    if (options_.concurrency > 0) return clock_.Now();
    if (options_.trace == nullptr) return arrivals_.NextNanoseconds();
    if (index_ >= static_cast<int64_t>(options_.trace->size())) return std::nullopt;
    return static_cast<int64_t>(static_cast<double>(Shape()->offset) / options_.trace_speed);
  }

  const TraceRequest* Shape() const {
    return options_.trace != nullptr ? &(*options_.trace)[static_cast<size_t>(index_)] : nullptr;
  }

  // Waits until fewer than `limit` are in flight. False when the time came or the run was stopped first.
  bool AwaitFlightBelow(size_t limit, int64_t time) {
    while (!stop_ && clock_.Now() < time) {
      ShowProgress();
      const auto next_check = std::chrono::steady_clock::now() + kStopCheckInterval;
      const bool is_near = time - clock_.Now() < std::chrono::nanoseconds(kStopCheckInterval).count();
      if (flight_->AwaitBelow(limit, is_near ? clock_.At(time) : next_check)) return true;
    }
    return false;
  }

  void SleepUntil(int64_t time) {
    while (!stop_ && clock_.Now() < time) {
      ShowProgress();
      std::this_thread::sleep_until(std::min(clock_.At(time), std::chrono::steady_clock::now() + kStopCheckInterval));
    }
  }

  void SendAll() {
    const int64_t warmup = absl::ToInt64Nanoseconds(options_.warmup);
    const auto is_over = [this] { return options_.requests > 0 && num_measured_ >= options_.requests; };
    for (; !stop_ && !is_over(); ++index_) {
      if (options_.concurrency > 0 && !AwaitFlightBelow(static_cast<size_t>(options_.concurrency), window_end_)) return;
      std::optional<int64_t> intended = NextIntended();
      if (!intended) return;
      v1::GenerateRequest request = workload_.Next(Shape());
      if (options_.concurrency > 0) intended = clock_.Now();
      const bool measured = index_ >= options_.warmup_requests && *intended >= warmup;
      if (measured && !window_begin_) BeginWindow(*intended);
      if (*intended >= window_end_) return;
      SleepUntil(*intended);
      if (stop_) return;
      num_measured_ += measured ? 1 : 0;
      Send(std::move(request), *intended, measured);
      ShowProgress();
    }
  }

  void Send(v1::GenerateRequest request, int64_t intended, bool measured) {
    if (flight_->size() >= static_cast<size_t>(options_.max_in_flight)) {
      const int64_t now = clock_.Now();
      recorder_.OnSent(intended, now, measured);
      recorder_.OnEnded({.intended = intended,
                         .started = now,
                         .ended = now,
                         .measured = measured,
                         .end = RequestEnd::kFailed,
                         .why = "not sent: too many in flight"});
      return;
    }
    auto call = std::make_unique<GenerateCall>(std::move(request), intended, measured, &clock_, &recorder_,
                                               [flight = flight_](GenerateCall* ended) { flight->Remove(ended); });
    GenerateCall& started = *call;
    flight_->Add(std::move(call));
    started.Start(*stubs_[static_cast<size_t>(index_) % stubs_.size()], options_.deadline);
  }

  void Drain() {
    draining_ = true;
    AwaitFlightBelow(1, clock_.Now() + absl::ToInt64Nanoseconds(options_.drain_timeout));
    flight_->AbandonAll();
    // Cancelled calls end at once, whatever the server does.
    while (!flight_->AwaitBelow(1, std::chrono::steady_clock::now() + std::chrono::seconds(1))) continue;
  }

  void ShowProgress() {
    const auto now = std::chrono::steady_clock::now();
    if (!progress_ || now < next_progress_) return;
    next_progress_ = now + kProgressInterval;
    LoadProgress shown;
    shown.seconds = static_cast<double>(clock_.Now()) * 1e-9;
    shown.warming_up = num_measured_ == 0;
    shown.draining = draining_;
    shown.in_flight = static_cast<int64_t>(flight_->size());
    shown.total = recorder_.total();
    shown.output_tokens = recorder_.total_output_tokens();
    progress_(shown);
  }

  const LoadRunOptions& options_;
  Workload& workload_;
  const std::atomic<bool>& stop_;
  const std::function<void(const LoadProgress&)>& progress_;
  std::vector<std::unique_ptr<v1::GenerationService::Stub>> stubs_;
  ArrivalProcess arrivals_;
  RunClock clock_;
  LoadRecorder recorder_{options_.targets};
  // Calls hold it until they are gone, which may be a little after the run.
  const std::shared_ptr<Flight> flight_ = std::make_shared<Flight>();
  int64_t index_ = 0;  // of the next request
  int64_t num_measured_ = 0;
  std::optional<int64_t> window_begin_;
  int64_t window_end_ = LoadRecorder::kOpenEnd;
  bool draining_ = false;
  std::chrono::steady_clock::time_point next_progress_ = std::chrono::steady_clock::now() + kProgressInterval;
};

}  // namespace

LoadReport RunLoad(const LoadRunOptions& options, Workload& workload,
                   const std::vector<std::shared_ptr<grpc::Channel>>& channels, const std::atomic<bool>& stop,
                   const std::function<void(const LoadProgress&)>& progress) {
  return LoadRunner(options, workload, channels, stop, progress).Run();
}

}  // namespace cadre
