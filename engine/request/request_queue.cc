#include "engine/request/request_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {

absl::Status RequestQueue::Push(Request&& request) {
  const auto num_tokens = static_cast<int64_t>(request.prompt.size());
  if (num_tokens > limits_.max_prompt_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt has ", num_tokens, " tokens, the queue's limit is ", limits_.max_prompt_tokens));
  }
  {
    std::lock_guard lock(mutex_);
    if (closed_) return absl::UnavailableError("the server is draining and takes no new requests");
    if (totals_.num_places >= limits_.max_requests) {
      return absl::ResourceExhaustedError(
          absl::StrCat(totals_.num_places, " requests are waiting, the limit is ", limits_.max_requests));
    }
    if (totals_.num_place_tokens > limits_.max_prompt_tokens - num_tokens) {
      return absl::ResourceExhaustedError(absl::StrCat("requests with ", totals_.num_place_tokens,
                                                       " prompt tokens are waiting, and ", num_tokens,
                                                       " more exceed the limit of ", limits_.max_prompt_tokens));
    }
    ++totals_.num_places;
    totals_.num_place_tokens += num_tokens;
    ++totals_.pushed_requests;
    totals_.pushed_prompt_tokens += num_tokens;
    pushed_.push_back(std::move(request));
  }
  ready_.notify_one();
  return absl::OkStatus();
}

std::vector<Request> RequestQueue::TakeAll() {
  std::lock_guard lock(mutex_);
  return std::exchange(pushed_, {});
}

void RequestQueue::ReleasePlace(int64_t num_prompt_tokens) {
  std::lock_guard lock(mutex_);
  CADRE_CHECK_GT(totals_.num_places, static_cast<int64_t>(pushed_.size()));
  CADRE_CHECK_GE(totals_.num_place_tokens, num_prompt_tokens);
  --totals_.num_places;
  totals_.num_place_tokens -= num_prompt_tokens;
}

void RequestQueue::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

bool RequestQueue::closed() const {
  std::lock_guard lock(mutex_);
  return closed_;
}

void RequestQueue::Wait() {
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [this] { return woken_ || !pushed_.empty(); });
  woken_ = false;
}

void RequestQueue::Wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  ready_.notify_one();
}

RequestQueue::Totals RequestQueue::totals() const {
  std::lock_guard lock(mutex_);
  Totals totals = totals_;
  for (const Request& request : pushed_) totals.oldest_arrival = std::min(totals.oldest_arrival, request.arrival);
  return totals;
}

}  // namespace cadre
