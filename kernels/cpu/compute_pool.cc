#include "kernels/cpu/compute_pool.h"

#include <algorithm>
#include <chrono>

#include "kernels/check.h"

namespace cadre {
namespace {

constexpr std::chrono::microseconds kSpinTime{50};
// Pauses between two looks at the clock.
constexpr int kPausesPerLook = 64;

constexpr uint64_t kCountMask = 0xFFFFFFFFu;
constexpr uint64_t kJobStep = uint64_t{1} << 32;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Spins until `done()` or for kSpinTime; true if done.
template <typename Done>
bool SpinUntil(Done&& done) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (done()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

ComputePool::ComputePool(int num_threads) {
  CADRE_CHECK_GE(num_threads, 1);
  workers_.reserve(static_cast<size_t>(num_threads - 1));
  for (int thread = 1; thread < num_threads; ++thread) {
    workers_.emplace_back([this, thread] { WorkerLoop(thread); });
  }
}

ComputePool::~ComputePool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ComputePool::Run(int64_t n, int64_t max_run, Call call, void* context) {
  CADRE_CHECK_EQ(unfinished_.load(std::memory_order_relaxed), int64_t{0});
  CADRE_CHECK_LE(n, static_cast<int64_t>(kCountMask));
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  size_.store(n, std::memory_order_relaxed);
  max_run_.store(max_run, std::memory_order_relaxed);
  unfinished_.store(n, std::memory_order_relaxed);
  const uint64_t job = (ticket_.load(std::memory_order_relaxed) & ~kCountMask) + kJobStep;
  // Sequentially consistent with the counterpart in WorkerLoop: either this thread sees the sleeper or the sleeper sees
  // the job.
  ticket_.store(job | static_cast<uint64_t>(n));
  if (num_sleeping_.load() > 0) {
    { const std::lock_guard<std::mutex> lock(mutex_); }
    wake_.notify_all();
  }
  TakeIndices(0);
  const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  while (!SpinUntil(finished)) std::this_thread::yield();
}

void ComputePool::TakeIndices(int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while ((ticket & kCountMask) != 0) {
    // Read before indices are taken: once they are, and until they are finished, the caller cannot begin another job.
    const Call call = call_.load(std::memory_order_relaxed);
    void* const context = context_.load(std::memory_order_relaxed);
    const int64_t size = size_.load(std::memory_order_relaxed);
    const int64_t max_run = max_run_.load(std::memory_order_relaxed);
    const auto left = static_cast<int64_t>(ticket & kCountMask);
    // Half of a fair share of what is left, so that the threads end together.
    const int64_t run = std::clamp(left / (2 * num_threads()), int64_t{1}, max_run);
    if (!ticket_.compare_exchange_weak(ticket, ticket - static_cast<uint64_t>(run), std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    for (int64_t i = 0; i < run; ++i) call(context, size - left + i, thread);
    unfinished_.fetch_sub(run, std::memory_order_release);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ComputePool::WorkerLoop(int thread) {
  const auto job_or_stop = [this] { return (ticket_.load() & kCountMask) != 0 || stop_.load(); };
  while (true) {
    if (!SpinUntil(job_or_stop)) {
      std::unique_lock<std::mutex> lock(mutex_);
      num_sleeping_.fetch_add(1);
      wake_.wait(lock, job_or_stop);
      num_sleeping_.fetch_sub(1);
    }
    if (stop_.load()) return;
    TakeIndices(thread);
  }
}

}  // namespace cadre
