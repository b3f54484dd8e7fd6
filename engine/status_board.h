// What the engine thread last said about itself, for any thread to read.
#ifndef CADRE_ENGINE_STATUS_BOARD_H_
#define CADRE_ENGINE_STATUS_BOARD_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/schedule/service_estimate.h"

namespace cadre {

// One writer, many readers; the lock is held for the copy of a small struct and never during a step.
class StatusBoard {
 public:
  struct Notice {
    EngineSnapshot snapshot;
    // What the engine thread had taken out of the queue by then: the rest of the queue's totals still waits there.
    int64_t taken_requests = 0;
    int64_t taken_prompt_tokens = 0;
    ServiceState service;                                // how fast it is, and what it has to do
    absl::Time oldest_arrival = absl::InfiniteFuture();  // of the waiting requests among those taken
  };

  void Publish(const Notice& notice);
  Notice Read() const;

  // Whether the model is at work on a step, however long that takes.
  void SetInForward(bool is_in_forward) { is_in_forward_.store(is_in_forward, std::memory_order_release); }
  bool is_in_forward() const { return is_in_forward_.load(std::memory_order_acquire); }

  // `num_finished` requests in all have heard OnFinish.
  void SetFinished(int64_t num_finished);
  // True once `num_expected()` requests have; false when `timeout` passed first.
  bool AwaitFinished(const std::function<int64_t()>& num_expected, absl::Duration timeout);

 private:
  std::atomic<bool> is_in_forward_{false};
  mutable std::mutex mutex_;
  std::condition_variable finished_;
  Notice notice_;             // guarded by mutex_
  int64_t num_finished_ = 0;  // guarded by mutex_
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STATUS_BOARD_H_
