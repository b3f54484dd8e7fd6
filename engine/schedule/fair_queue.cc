#include "engine/schedule/fair_queue.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {

FairQueue::FairQueue(const FairQueueOptions& options) : options_(options) {
  CADRE_CHECK_GE(options.priority_tokens, 0);
  CADRE_CHECK_GE(options.max_idle_tenants, 0);
  CADRE_CHECK_GE(options.window, 1);
  CADRE_CHECK_GE(options.max_passed_over, 0);
}

int64_t FairQueue::Arrive(const Sequence& sequence) {
  const auto [it, is_new] = tenants_.try_emplace(sequence.traits().tenant);
  Tenant& tenant = it->second;
  if (tenant.num_present++ == 0 && !is_new) --num_idle_;
  const int32_t priority = sequence.traits().priority;
  if (tenant.waiting.empty()) tenant.service = std::max(tenant.service, FirstService(priority));
  return tenant.service - options_.priority_tokens * priority;
}

void FairQueue::Leave(const Sequence& sequence) {
  Tenant& tenant = Find(sequence);
  CADRE_CHECK_GT(tenant.num_present, 0);
  if (--tenant.num_present > 0) return;
  if (++num_idle_ > num_idle_to_look_) ForgetIdleTenants();
}

void FairQueue::Push(const Sequence* sequence, int64_t order) {
  Tenant& tenant = Find(*sequence);
  const int32_t priority = sequence->traits().priority;
  const auto [level, is_new] = tenant.levels.try_emplace(priority);
  if (is_new) level->second.lift = std::max(int64_t{0}, FirstService(priority) - tenant.service);
  ++level->second.num_waiting;
  if (tenant.waiting.empty()) backlogged_.push_back(&tenant);
  CADRE_CHECK(tenant.waiting.try_emplace(Order(order, sequence->id()), Waiting{.sequence = sequence}).second);
  ++size_;
}

void FairQueue::Remove(const Sequence& sequence, int64_t order) {
  Tenant& tenant = Find(sequence);
  CADRE_CHECK_EQ(tenant.waiting.erase(Order(order, sequence.id())), 1u);
  if (tenant.waiting.empty()) std::erase(backlogged_, &tenant);
  const auto level = tenant.levels.find(sequence.traits().priority);
  CADRE_CHECK(level != tenant.levels.end());
  if (--level->second.num_waiting == 0) tenant.levels.erase(level);
  --size_;
}

void FairQueue::Start(const Sequence& sequence, int64_t order) {
  Tenant& tenant = Find(sequence);
  int64_t num_passed_over = 0;
  for (auto& [place, waiting] : tenant.waiting) {
    if (place == Order(order, sequence.id())) break;
    ++waiting.num_passed_over;
    ++num_passed_over;
  }
  num_preferred_ += num_passed_over > 0 ? 1 : 0;
  num_passed_over_ += num_passed_over;
  Remove(sequence, order);
}

void FairQueue::Charge(const Sequence& sequence, int64_t tokens) {
  Tenant& tenant = Find(sequence);
  tenant.service += tokens;
  most_service_ = std::max(most_service_, tenant.service);
  if (sequence.started()) return;
  int64_t& latest = latest_runs_[sequence.traits().priority];
  latest = std::max(latest, tenant.service);
}

int64_t FairQueue::service(const std::string& tenant) const {
  const auto it = tenants_.find(tenant);
  return it == tenants_.end() ? 0 : it->second.service;
}

FairQueue::Tenant& FairQueue::Find(const Sequence& sequence) {
  const auto it = tenants_.find(sequence.traits().tenant);
  CADRE_CHECK(it != tenants_.end());
  return it->second;
}

int64_t FairQueue::FirstService(int32_t priority) {
  UpdateLeastService();
  int64_t latest = least_service_;
  for (const auto& [level, service] : latest_runs_) {
    if (level > priority) break;
    latest = std::max(latest, service);
  }
  return latest;
}

void FairQueue::UpdateLeastService() {
  int64_t least = most_service_;
  for (const Tenant* tenant : backlogged_) least = std::min(least, tenant->service);
  least_service_ = std::max(least_service_, least);
}

void FairQueue::ForgetIdleTenants() {
  UpdateLeastService();
  // Who would start from the least service anyway has nothing to be remembered.
  std::erase_if(tenants_, [this](const auto& entry) {
    const bool is_plain = entry.second.num_present == 0 && entry.second.service <= least_service_;
    num_idle_ -= is_plain ? 1 : 0;
    return is_plain;
  });
  if (num_idle_ > options_.max_idle_tenants) ForgetLeastServed();
  // Not for each one that leaves: there may be thousands.
  num_idle_to_look_ = std::min(options_.max_idle_tenants, 2 * num_idle_);
}

// A quarter of those that may be remembered, so that the next ones find room.
void FairQueue::ForgetLeastServed() {
  std::vector<int64_t> services;
  for (const auto& [name, tenant] : tenants_) {
    if (tenant.num_present == 0) services.push_back(tenant.service);
  }
  const int32_t num_forgotten = num_idle_ - options_.max_idle_tenants * 3 / 4;
  const auto last = services.begin() + num_forgotten - 1;
  std::ranges::nth_element(services, last);
  std::erase_if(tenants_, [&](const auto& entry) {
    const bool is_forgotten = entry.second.num_present == 0 && entry.second.service <= *last;
    num_idle_ -= is_forgotten ? 1 : 0;
    return is_forgotten;
  });
}

const Sequence* FairQueue::Cursor::Next() {
  best_ = nullptr;
  const Sequence* best = nullptr;
  int64_t best_rank = 0;
  for (const Tenant* tenant : queue_->backlogged_) {
    const auto found = drafts_.find(tenant);
    const Draft* draft = found == drafts_.end() ? nullptr : &found->second;
    const Sequence* first = First(*tenant, draft);
    if (first == nullptr) continue;
    const int64_t charge = draft == nullptr ? 0 : draft->charge;
    const int32_t priority = first->traits().priority;
    const int64_t lift = tenant->levels.at(priority).lift;
    const int64_t rank = tenant->service + lift + charge - queue_->options_.priority_tokens * priority;
    if (best == nullptr || std::pair(rank, first->id()) < std::pair(best_rank, best->id())) {
      best_ = tenant;
      best = first;
      best_rank = rank;
    }
  }
  if (best == nullptr) return nullptr;
  Draft& draft = drafts_.try_emplace(best_, Draft{.next = best_->waiting.begin()}).first->second;
  const auto wanted = static_cast<size_t>(preferences_ == nullptr ? 1 : queue_->options_.window);
  for (; draft.candidates.size() < wanted && draft.next != best_->waiting.end(); ++draft.next) {
    draft.candidates.push_back({.waiting = draft.next->second});
  }
  chosen_ = preferences_ == nullptr ? 0 : Choose(&draft);
  return draft.candidates[chosen_].waiting.sequence;
}

const Sequence* FairQueue::Cursor::First(const Tenant& tenant, const Draft* draft) const {
  if (draft != nullptr && !draft->candidates.empty()) return draft->candidates.front().waiting.sequence;
  const auto next = draft == nullptr ? tenant.waiting.begin() : draft->next;
  return next == tenant.waiting.end() ? nullptr : next->second.sequence;
}

size_t FairQueue::Cursor::Choose(Draft* draft) const {
  std::vector<Candidate>& candidates = draft->candidates;
  const int32_t priority = candidates.front().waiting.sequence->traits().priority;
  double most = 0.0;
  size_t end = 0;
  for (Candidate& each : candidates) {
    if (each.waiting.sequence->traits().priority != priority) break;
    // Alone, it is next whatever its share.
    const bool is_last = each.waiting.num_passed_over >= queue_->options_.max_passed_over;
    if (is_last && end == 0) return 0;
    if (!each.preference) each.preference = (*preferences_)(*each.waiting.sequence);
    most = std::max(most, each.preference->share);
    ++end;
    if (is_last || !each.preference->may_be_passed_over) break;
  }
  size_t chosen = 0;
  while (chosen + 1 < end && candidates[chosen].preference->share < most &&
         candidates[chosen].preference->share <= most - queue_->options_.min_advantage) {
    ++chosen;
  }
  return chosen;
}

void FairQueue::Cursor::Take(int64_t tokens) {
  CADRE_CHECK(best_ != nullptr);
  Draft& draft = drafts_.at(best_);
  for (size_t i = 0; i < chosen_; ++i) ++draft.candidates[i].waiting.num_passed_over;
  draft.candidates.erase(draft.candidates.begin() + static_cast<std::ptrdiff_t>(chosen_));
  draft.charge += tokens;
}

absl::Status FairQueue::Audit() const {
  int64_t num_waiting = 0;
  int64_t num_backlogged = 0;
  int32_t num_idle = 0;
  for (const auto& [name, tenant] : tenants_) {
    num_waiting += std::ssize(tenant.waiting);
    num_backlogged += tenant.waiting.empty() ? 0 : 1;
    num_idle += tenant.num_present == 0 ? 1 : 0;
    int64_t num_in_levels = 0;
    for (const auto& [priority, level] : tenant.levels) num_in_levels += level.num_waiting;
    for (const auto& [order, waiting] : tenant.waiting) {
      if (waiting.num_passed_over <= options_.max_passed_over) continue;
      return absl::InternalError(absl::StrCat("sequence ", waiting.sequence->id(), " was passed over ",
                                              waiting.num_passed_over, " times, the limit is ",
                                              options_.max_passed_over));
    }
    if (num_in_levels != std::ssize(tenant.waiting)) {
      return absl::InternalError(
          absl::StrCat(tenant.waiting.size(), " sequences of a tenant wait, its levels count ", num_in_levels));
    }
    if (std::ssize(tenant.waiting) > tenant.num_present) {
      return absl::InternalError(
          absl::StrCat("a tenant has ", tenant.num_present, " sequences, but ", tenant.waiting.size(), " wait"));
    }
  }
  if (num_waiting != size_ || num_backlogged != std::ssize(backlogged_) || num_idle != num_idle_) {
    return absl::InternalError(absl::StrCat(num_waiting, " sequences of ", num_backlogged, " tenants wait, ", num_idle,
                                            " tenants are idle; counted are ", size_, ", ", backlogged_.size(), ", ",
                                            num_idle_));
  }
  return absl::OkStatus();
}

}  // namespace cadre
