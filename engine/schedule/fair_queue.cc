#include "engine/schedule/fair_queue.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {

FairQueue::FairQueue(const FairQueueOptions& options) : options_(options) {
  CADRE_CHECK_GE(options.priority_tokens, 0);
  CADRE_CHECK_GE(options.max_idle_tenants, 0);
}

int64_t FairQueue::Arrive(const Sequence& sequence) {
  const auto [it, is_new] = tenants_.try_emplace(sequence.traits().tenant);
  Tenant& tenant = it->second;
  if (tenant.num_present == 0) {
    if (!is_new) --num_idle_;
    least_service_ = LeastService();
    tenant.service = std::max(tenant.service, least_service_);
  }
  ++tenant.num_present;
  return tenant.service - options_.priority_tokens * sequence.traits().priority;
}

void FairQueue::Leave(const Sequence& sequence) {
  Tenant& tenant = Find(sequence);
  CADRE_CHECK_GT(tenant.num_present, 0);
  if (--tenant.num_present > 0) return;
  ++num_idle_;
  const bool was_last = std::ranges::none_of(tenants_, [](const auto& entry) { return entry.second.num_present > 0; });
  least_service_ = was_last ? std::max(least_service_, tenant.service) : LeastService();
  ForgetIdleTenants();
}

void FairQueue::Push(const Sequence* sequence, int64_t order) {
  Tenant& tenant = Find(*sequence);
  if (tenant.waiting.empty()) backlogged_.push_back(&tenant);
  CADRE_CHECK(tenant.waiting.try_emplace(Order(order, sequence->id()), sequence).second);
  ++size_;
}

void FairQueue::Remove(const Sequence& sequence, int64_t order) {
  Tenant& tenant = Find(sequence);
  CADRE_CHECK_EQ(tenant.waiting.erase(Order(order, sequence.id())), 1u);
  if (tenant.waiting.empty()) std::erase(backlogged_, &tenant);
  --size_;
}

void FairQueue::Charge(const Sequence& sequence, int64_t tokens) { Find(sequence).service += tokens; }

int64_t FairQueue::service(const std::string& tenant) const {
  const auto it = tenants_.find(tenant);
  return it == tenants_.end() ? 0 : it->second.service;
}

FairQueue::Tenant& FairQueue::Find(const Sequence& sequence) {
  const auto it = tenants_.find(sequence.traits().tenant);
  CADRE_CHECK(it != tenants_.end());
  return it->second;
}

int64_t FairQueue::LeastService() const {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const auto& [name, tenant] : tenants_) {
    if (tenant.num_present > 0) least = std::min(least, tenant.service);
  }
  return least == std::numeric_limits<int64_t>::max() ? least_service_ : std::max(least_service_, least);
}

void FairQueue::ForgetIdleTenants() {
  // Who would start from the least service anyway has nothing to be remembered.
  std::erase_if(tenants_, [this](const auto& entry) {
    const bool is_plain = entry.second.num_present == 0 && entry.second.service <= least_service_;
    num_idle_ -= is_plain ? 1 : 0;
    return is_plain;
  });
  while (num_idle_ > options_.max_idle_tenants) {
    auto least = tenants_.end();
    for (auto it = tenants_.begin(); it != tenants_.end(); ++it) {
      if (it->second.num_present > 0) continue;
      if (least == tenants_.end() || it->second.service < least->second.service) least = it;
    }
    tenants_.erase(least);
    --num_idle_;
  }
}

const Sequence* FairQueue::Cursor::Next() {
  best_ = nullptr;
  const Sequence* best = nullptr;
  int64_t best_rank = 0;
  for (const Tenant* tenant : queue_->backlogged_) {
    const auto draft = drafts_.find(tenant);
    const auto next = draft == drafts_.end() ? tenant->waiting.begin() : draft->second.next;
    if (next == tenant->waiting.end()) continue;
    const Sequence* first = next->second;
    const int64_t charge = draft == drafts_.end() ? 0 : draft->second.charge;
    const int64_t rank = tenant->service + charge - queue_->options_.priority_tokens * first->traits().priority;
    if (best == nullptr || std::pair(rank, first->id()) < std::pair(best_rank, best->id())) {
      best_ = tenant;
      best = first;
      best_rank = rank;
    }
  }
  return best;
}

void FairQueue::Cursor::Take(int64_t tokens) {
  CADRE_CHECK(best_ != nullptr);
  Draft& draft = drafts_.try_emplace(best_, Draft{.next = best_->waiting.begin()}).first->second;
  ++draft.next;
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
