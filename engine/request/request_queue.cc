#include "engine/request/request_queue.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/failpoint.h"
#include "engine/request/refusal.h"

namespace cadre {

namespace {

constexpr absl::StatusCode kNoRoom = absl::StatusCode::kResourceExhausted;

// Whether `more` on top of `held` stays within `limit`. Compared by subtraction: numbers from outside may overflow.
bool Fits(int64_t held, int64_t more, int64_t limit) { return more <= limit && held <= limit - more; }

int64_t ShareOf(int64_t limit, double share) {
  return std::max(int64_t{1}, static_cast<int64_t>(static_cast<double>(limit) * share));
}

// As much of `cost` as is served with `service`, in whole requests.
QueueCost PartOf(const QueueCost& cost, double service) {
  const double total = static_cast<double>(std::max(int64_t{1}, cost.service()));
  const double part = std::min(1.0, service / total);
  const auto part_of = [part](int64_t count) {
    return static_cast<int64_t>(std::ceil(static_cast<double>(count) * part));
  };
  return {.requests = part_of(cost.requests),
          .sequences = part_of(cost.sequences),
          .prompt_tokens = part_of(cost.prompt_tokens),
          .output_tokens = part_of(cost.output_tokens),
          .expected_tokens = part_of(cost.expected_tokens)};
}

absl::Status AboveLimit(absl::string_view what, int64_t value, int64_t limit) {
  return absl::InvalidArgumentError(absl::StrCat(what, " ", value, " tokens, the queue's limit is ", limit));
}

}  // namespace

QueueCost& QueueCost::operator+=(const QueueCost& other) {
  requests += other.requests;
  sequences += other.sequences;
  prompt_tokens += other.prompt_tokens;
  output_tokens += other.output_tokens;
  expected_tokens += other.expected_tokens;
  return *this;
}

QueueCost& QueueCost::operator-=(const QueueCost& other) {
  requests -= other.requests;
  sequences -= other.sequences;
  prompt_tokens -= other.prompt_tokens;
  output_tokens -= other.output_tokens;
  expected_tokens -= other.expected_tokens;
  return *this;
}

QueuePlace PlaceOf(const Request& request) {
  return {.tenant = request.tenant,
          .priority = request.priority,
          .cost = {.requests = 1,
                   .sequences = request.num_sequences,
                   .prompt_tokens = std::ssize(request.prompt),
                   .output_tokens = int64_t{request.num_sequences} * request.sampling.max_tokens,
                   .expected_tokens = request.expected_tokens}};
}

RequestQueueLimits RequestQueue::CurrentLimits() const {
  if (pressure_ == MemoryPressure::kNone) return limits_;
  constexpr int kShortened = 4;
  RequestQueueLimits limits = limits_;
  limits.max_requests = std::max(limits.max_requests / kShortened, 1);
  limits.max_prompt_tokens /= kShortened;
  limits.max_total_tokens /= kShortened;
  return limits;
}

absl::Status RequestQueue::CheckRoom(const QueuePlace& place) const {
  if (pressure_ >= MemoryPressure::kRefuse) {
    return MakeRefusal(Refusal::kMemoryPressure, kNoRoom, "the server is short of memory and takes no new requests");
  }
  const RequestQueueLimits limits = CurrentLimits();
  const QueueCost& cost = place.cost;
  const QueueCost& held = totals_.places;
  if (!Fits(held.requests, 1, limits.max_requests)) {
    return MakeRefusal(Refusal::kQueueFull, kNoRoom,
                       absl::StrCat(held.requests, " requests are waiting, the limit is ", limits.max_requests));
  }
  // A shortened queue is no reason to refuse what fits into the whole one for ever: alone, it may wait.
  const bool is_alone = held.requests == 0;
  if (!is_alone && !Fits(held.prompt_tokens, cost.prompt_tokens, limits.max_prompt_tokens)) {
    return MakeRefusal(Refusal::kQueueFull, kNoRoom,
                       absl::StrCat("requests with ", held.prompt_tokens, " prompt tokens are waiting, and ",
                                    cost.prompt_tokens, " more exceed the limit of ", limits.max_prompt_tokens));
  }
  if (!is_alone && !Fits(held.total_tokens(), cost.total_tokens(), limits.max_total_tokens)) {
    return MakeRefusal(Refusal::kQueueFull, kNoRoom,
                       absl::StrCat("waiting requests may take ", held.total_tokens(), " tokens, and ",
                                    cost.total_tokens(), " more exceed the limit of ", limits.max_total_tokens));
  }
  return CheckTenantShare(place, limits);
}

absl::Status RequestQueue::CheckTenantShare(const QueuePlace& place, const RequestQueueLimits& limits) const {
  if (place.tenant.empty()) return absl::OkStatus();
  const auto it = places_.find(place.tenant);
  if (it == places_.end()) return absl::OkStatus();  // one request is nobody's whole queue
  QueueCost own;
  for (const auto& [priority, held_there] : it->second) own += held_there;
  const auto share_of = [&limits](int64_t limit) { return ShareOf(limit, limits.max_tenant_share); };
  if (Fits(own.requests, 1, share_of(limits.max_requests)) &&
      Fits(own.prompt_tokens, place.cost.prompt_tokens, share_of(limits.max_prompt_tokens)) &&
      Fits(own.total_tokens(), place.cost.total_tokens(), share_of(limits.max_total_tokens))) {
    return absl::OkStatus();
  }
  return MakeRefusal(
      Refusal::kTenantShare, kNoRoom,
      absl::StrCat("the tenant has ", own.requests, " requests with ", own.prompt_tokens, " prompt tokens and at most ",
                   own.output_tokens, " to generate waiting: its share is ", limits.max_tenant_share, " of the queue"));
}

absl::Status RequestQueue::Push(Request&& request) {
  CADRE_FAILPOINT_RETURN("queue.push");
  const QueuePlace place = PlaceOf(request);
  const QueueCost& cost = place.cost;
  if (cost.prompt_tokens > limits_.max_prompt_tokens) {
    return AboveLimit("prompt has", cost.prompt_tokens, limits_.max_prompt_tokens);
  }
  if (cost.total_tokens() > limits_.max_total_tokens) {
    return AboveLimit("prompt and n times max_tokens are", cost.total_tokens(), limits_.max_total_tokens);
  }
  {
    std::lock_guard lock(mutex_);
    if (closed_) return absl::UnavailableError("the server is draining and takes no new requests");
    if (absl::Status status = CheckRoom(place); !status.ok()) return status;
    totals_.places += cost;
    ++totals_.requests_by_class[static_cast<size_t>(place.priority_class())];
    places_[place.tenant][place.priority] += cost;
    ++totals_.pushed_requests;
    totals_.pushed_prompt_tokens += cost.prompt_tokens;
    pushed_.push_back(std::move(request));
  }
  ready_.notify_one();
  return absl::OkStatus();
}

std::vector<Request> RequestQueue::TakeAll() {
  std::lock_guard lock(mutex_);
  return std::exchange(pushed_, {});
}

void RequestQueue::ReleasePlace(const QueuePlace& place) {
  std::lock_guard lock(mutex_);
  CADRE_CHECK_GT(totals_.places.requests, std::ssize(pushed_));
  totals_.places -= place.cost;
  --totals_.requests_by_class[static_cast<size_t>(place.priority_class())];
  const auto tenant = places_.find(place.tenant);
  CADRE_CHECK(tenant != places_.end());
  const auto level = tenant->second.find(place.priority);
  CADRE_CHECK(level != tenant->second.end());
  level->second -= place.cost;
  CADRE_CHECK_GE(level->second.prompt_tokens, 0);
  if (level->second.requests == 0) tenant->second.erase(level);
  if (tenant->second.empty()) places_.erase(tenant);
}

QueueCost RequestQueue::CostAhead(const QueuePlace& place) const {
  std::lock_guard lock(mutex_);
  QueueCost ahead;
  if (const auto mine = places_.find(place.tenant); mine != places_.end()) {
    for (auto level = mine->second.lower_bound(place.priority); level != mine->second.end(); ++level) {
      ahead += level->second;
    }
  }
  const auto turn = static_cast<double>(ahead.service() + place.cost.service());
  for (const auto& [name, levels] : places_) {
    if (name == place.tenant) continue;
    // Whoever comes from above has used up what the level below may lead by.
    double taken = 0;
    for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
      const double head_start = static_cast<double>(limits_.priority_tokens) * (level->first - place.priority);
      const double room = turn + head_start - taken;
      if (room <= 0) break;
      ahead += PartOf(level->second, room);
      taken += std::min(room, static_cast<double>(level->second.service()));
    }
  }
  return ahead;
}

void RequestQueue::SetMemoryPressure(MemoryPressure pressure) {
  std::lock_guard lock(mutex_);
  pressure_ = pressure;
}

void RequestQueue::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

bool RequestQueue::closed() const {
  std::lock_guard lock(mutex_);
  return closed_;
}

void RequestQueue::Wait(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  const auto has_reason = [this] { return woken_ || !pushed_.empty(); };
  if (timeout == absl::InfiniteDuration()) {
    ready_.wait(lock, has_reason);
  } else {
    ready_.wait_for(lock, absl::ToChronoNanoseconds(timeout), has_reason);
  }
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
