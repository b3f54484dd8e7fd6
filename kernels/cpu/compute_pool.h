// The threads that share a verb's work: the caller and num_threads - 1 workers.
//
// Work is handed out in rising order, one index or a short run of them at a time, so that which thread computes an
// index, and when, is left to chance: results may not depend on it. Workers spin for a few tens of microseconds after
// their last index, long enough for the next verb of a busy step, and then sleep: an idle server uses no CPU.
#ifndef CADRE_KERNELS_CPU_COMPUTE_POOL_H_
#define CADRE_KERNELS_CPU_COMPUTE_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace cadre {

class ComputePool {
 public:
  // num_threads >= 1, the caller included.
  explicit ComputePool(int num_threads);
  ~ComputePool();
  ComputePool(const ComputePool&) = delete;
  ComputePool& operator=(const ComputePool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(index, thread) once for every index in [0, n), thread < num_threads(), and returns when all calls have.
  // One caller at a time; not from within a body. n < 2^32. Allocates nothing.
  // A thread takes up to max_run indices at once, fewer towards the end, and computes them in rising order: for bodies
  // that take equal times and read memory where that of the index before ended, which is then fetched ahead.
  template <typename Body>
  void ParallelFor(int64_t n, Body&& body, int64_t max_run = 1) {
    using Plain = std::remove_reference_t<Body>;
    if (n <= 1 || workers_.empty()) {
      for (int64_t i = 0; i < n; ++i) body(i, 0);
      return;
    }
    Run(
        n, max_run, [](void* context, int64_t index, int thread) { (*static_cast<Plain*>(context))(index, thread); },
        const_cast<std::remove_const_t<Plain>*>(&body));
  }

 private:
  using Call = void (*)(void* context, int64_t index, int thread);

  void Run(int64_t n, int64_t max_run, Call call, void* context);
  void WorkerLoop(int thread);
  // Takes indices of the current job until none is left.
  void TakeIndices(int thread);

  // The current job. `ticket_` is its number in the upper half and the count of indices not yet taken in the lower: the
  // next ones are taken by decreasing it, so a worker that comes late can neither take an index of a job that is over
  // nor mix the body of one job with an index of another.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int64_t> size_{0};
  std::atomic<int64_t> max_run_{1};
  std::atomic<int64_t> unfinished_{0};

  std::atomic<int> num_sleeping_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> stop_{false};

  std::vector<std::thread> workers_;
};

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_COMPUTE_POOL_H_
