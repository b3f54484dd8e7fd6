// The only door into the engine: many threads push, the engine thread takes everything at once.
#ifndef CADRE_ENGINE_REQUEST_REQUEST_QUEUE_H_
#define CADRE_ENGINE_REQUEST_REQUEST_QUEUE_H_

#include <array>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/memory_ladder.h"
#include "engine/request/request.h"

namespace cadre {

struct RequestQueueLimits {
  int32_t max_requests = 256;
  int64_t max_prompt_tokens = 1 << 20;
  int64_t max_total_tokens = int64_t{1} << 40;  // prompts and all that may be generated
  double max_tenant_share = 1.0;                // of each of these, for the requests of one named tenant
  int64_t priority_tokens = 65536;              // how far a level of priority reaches; no limit, see CostAhead
};

// What waiting requests take up.
struct QueueCost {
  int64_t requests = 0;
  int64_t sequences = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;    // at most: sequences x max_tokens
  int64_t expected_tokens = 0;  // of these, as expected when the request came

  int64_t total_tokens() const { return prompt_tokens + output_tokens; }
  // What it will be charged, in all likelihood.
  int64_t service() const { return prompt_tokens + kGeneratedTokenService * expected_tokens; }
  QueueCost& operator+=(const QueueCost& other);
  QueueCost& operator-=(const QueueCost& other);
  bool operator==(const QueueCost&) const = default;
};

// Classes of priority, for whoever counts.
enum class PriorityClass { kLow, kNormal, kHigh };  // below 0, 0, above 0
inline constexpr int kNumPriorityClasses = 3;

// What one request takes up, and on whose account.
struct QueuePlace {
  std::string tenant = {};
  int32_t priority = 0;
  QueueCost cost = {};

  PriorityClass priority_class() const {
    return priority > 0 ? PriorityClass::kHigh : priority < 0 ? PriorityClass::kLow : PriorityClass::kNormal;
  }
};
QueuePlace PlaceOf(const Request& request);

// A request takes a place when it is pushed and gives it back when its first step has been planned or it has ended, not
// when the engine thread takes it over: the bounds are on requests that wait, wherever they stand. All methods: any
// thread.
class RequestQueue {
 public:
  // A consistent reading.
  struct Totals {
    int64_t pushed_requests = 0;  // since the start
    int64_t pushed_prompt_tokens = 0;
    QueueCost places;  // held now
    std::array<int64_t, kNumPriorityClasses> requests_by_class = {};
    absl::Time oldest_arrival = absl::InfiniteFuture();  // of the requests not taken yet
  };

  explicit RequestQueue(RequestQueueLimits limits) : limits_(limits) {}

  // Takes the request over, or leaves it untouched: RESOURCE_EXHAUSTED (a Refusal) when there is no place, for anybody
  // or for its tenant; INVALID_ARGUMENT when it alone is above a limit, UNAVAILABLE after Close. Never waits for the
  // engine.
  absl::Status Push(Request&& request);

  // Everything pushed since the last call, in order of arrival.
  std::vector<Request> TakeAll();
  // Gives back the place of a request that was taken.
  void ReleasePlace(const QueuePlace& place);

  // What may be pushed from now on: from kShortenQueue on, up to a quarter of each limit; from kRefuse on, nothing.
  // What waits keeps its place.
  void SetMemoryPressure(MemoryPressure pressure);

  // Refuses every request from now on. Idempotent.
  void Close();
  bool closed() const;

  // Sleeps until there is something to take, Wake is called or `timeout` has passed; returns at once if that happened
  // since the last return.
  void Wait(absl::Duration timeout = absl::InfiniteDuration());
  void Wake();

  Totals totals() const;
  // What of the places a fair engine serves before a new request at `place`. Of its tenant's own, all that has its
  // priority or a higher one. Of each other tenant's, from the highest priority down, as much as that and the request
  // are together in tokens of service, and `priority_tokens` more, or fewer, for each level above, or below, its own.
  QueueCost CostAhead(const QueuePlace& place) const;

 private:
  // By priority.
  using TenantPlaces = std::map<int32_t, QueueCost>;

  absl::Status CheckRoom(const QueuePlace& place) const;
  absl::Status CheckTenantShare(const QueuePlace& place, const RequestQueueLimits& limits) const;
  // The limits under the present pressure.
  RequestQueueLimits CurrentLimits() const;

  const RequestQueueLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  // Guarded by mutex_:
  std::vector<Request> pushed_;
  Totals totals_;                               // without oldest_arrival
  std::map<std::string, TenantPlaces> places_;  // of each tenant that has any
  MemoryPressure pressure_ = MemoryPressure::kNone;
  bool closed_ = false;
  bool woken_ = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_REQUEST_REQUEST_QUEUE_H_
