// The only door into the engine: many threads push, the engine thread takes everything at once.
#ifndef CADRE_ENGINE_REQUEST_REQUEST_QUEUE_H_
#define CADRE_ENGINE_REQUEST_REQUEST_QUEUE_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request/request.h"

namespace cadre {

struct RequestQueueLimits {
  int32_t max_requests = 256;
  int64_t max_prompt_tokens = 1 << 20;
};

// A request takes a place when it is pushed and gives it back when its first step has been planned or it has ended, not
// when the engine thread takes it over: the bound is on requests that wait, wherever they stand. All methods: any
// thread.
class RequestQueue {
 public:
  // A consistent reading.
  struct Totals {
    int64_t pushed_requests = 0;  // since the start
    int64_t pushed_prompt_tokens = 0;
    int64_t num_places = 0;  // held now
    int64_t num_place_tokens = 0;
    absl::Time oldest_arrival = absl::InfiniteFuture();  // of the requests not taken yet
  };

  explicit RequestQueue(RequestQueueLimits limits) : limits_(limits) {}

  // Takes the request over, or leaves it untouched: RESOURCE_EXHAUSTED when there is no place, INVALID_ARGUMENT when
  // its prompt alone is above the limit, UNAVAILABLE after Close. Never waits for the engine.
  absl::Status Push(Request&& request);

  // Everything pushed since the last call, in order of arrival.
  std::vector<Request> TakeAll();
  // Gives back the place of a request that was taken.
  void ReleasePlace(int64_t num_prompt_tokens);

  // Refuses every request from now on. Idempotent.
  void Close();
  bool closed() const;

  // Sleeps until there is something to take or Wake is called; returns at once if that happened since the last return.
  void Wait();
  void Wake();

  Totals totals() const;

 private:
  const RequestQueueLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  // Guarded by mutex_:
  std::vector<Request> pushed_;
  Totals totals_;  // without oldest_arrival
  bool closed_ = false;
  bool woken_ = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_REQUEST_QUEUE_H_
