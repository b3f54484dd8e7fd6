#include "engine/request/routing_replay.h"

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/request/refusal.h"

namespace cadre {
namespace {

std::string At(const char* field, size_t index) { return absl::StrCat(field, "[", index, "]"); }

std::optional<ReplayFault> FindShapeFault(const RoutingReplay& replay, const ReplayBounds& bounds) {
  const RoutedExperts& record = replay.record;
  if (record.num_layers != bounds.num_layers) {
    return ReplayFault{"record.num_layers",
                       absl::StrCat(record.num_layers, ", the model has ", bounds.num_layers, " MoE layers")};
  }
  if (record.top_k != bounds.top_k) {
    return ReplayFault{"record.top_k",
                       absl::StrCat(record.top_k, ", a token has ", bounds.top_k, " places for experts")};
  }
  const auto of_position = static_cast<size_t>(record.num_layers) * static_cast<size_t>(record.top_k);
  if (record.expert_ids.empty() || record.expert_ids.size() % of_position != 0) {
    return ReplayFault{"record.expert_ids",
                       absl::StrCat(record.expert_ids.size(), " ids, must be a positive multiple of ",
                                    record.num_layers, " layers x ", record.top_k, " places: ", of_position)};
  }
  const size_t num_weights = record.weights.size();
  if (num_weights != record.expert_ids.size() && (replay.uses_recorded_weights || num_weights > 0)) {
    return ReplayFault{"record.weights", absl::StrCat(num_weights, " weights for ", record.expert_ids.size(), " ids")};
  }
  if (replay.first_position < 0) {
    return ReplayFault{"record.first_position", absl::StrCat(replay.first_position, " is less than 0")};
  }
  if (replay.first_position + replay.num_positions() > bounds.num_positions) {
    return ReplayFault{
        "record.expert_ids",
        absl::StrCat("positions ", replay.first_position, " to ", replay.first_position + replay.num_positions() - 1,
                     ", the request computes 0 to ", bounds.num_positions - 1,
                     " (its prompt, and what it may generate but for the last token)")};
  }
  return std::nullopt;
}

// Of one token in one layer, whose first choice is number `begin`. `row_of_expert` [E] says which row named an expert
// last.
std::optional<ReplayFault> FindRowFault(const RoutingReplay& replay, const ReplayBounds& bounds, size_t begin,
                                        std::vector<size_t>& row_of_expert) {
  const auto top_k = static_cast<size_t>(bounds.top_k);
  int32_t count = 0;
  for (size_t i = begin; i < begin + top_k; ++i) {
    const int32_t id = replay.record.expert_ids[i];
    if (id == kNoExpert) continue;
    if (id < 0 || id >= bounds.num_experts) {
      return ReplayFault{At("record.expert_ids", i),
                         absl::StrCat(id, " is not in [0, ", bounds.num_experts, ")", " nor ", kNoExpert, " for none")};
    }
    if (i != begin + static_cast<size_t>(count)) {
      return ReplayFault{At("record.expert_ids", i), absl::StrCat("expert ", id, " stands behind ", kNoExpert,
                                                                  ", which stands behind all experts")};
    }
    if (std::exchange(row_of_expert[static_cast<size_t>(id)], begin + 1) == begin + 1) {
      return ReplayFault{At("record.expert_ids", i),
                         absl::StrCat("expert ", id, " twice for one token in one layer, an expert stands once")};
    }
    ++count;
  }
  if (count < bounds.min_k) {
    return ReplayFault{At("record.expert_ids", begin),
                       absl::StrCat(count, " experts for a token in a layer, this model's router chooses ",
                                    bounds.min_k == bounds.top_k ? "" : "at least ", bounds.min_k)};
  }
  for (size_t i = begin; i < begin + top_k && !replay.record.weights.empty(); ++i) {
    const float weight = replay.record.weights[i];
    if (!(weight >= 0.0f && weight <= kMaxReplayWeight)) {  // nor NaN
      return ReplayFault{At("record.weights", i), absl::StrCat(weight, " is not in [0, ", kMaxReplayWeight, "]")};
    }
    if (weight != 0.0f && replay.record.expert_ids[i] == kNoExpert) {
      return ReplayFault{At("record.weights", i), absl::StrCat(weight, " without an expert, must be 0")};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<ReplayFault> FindReplayFault(const RoutingReplay& replay, const ReplayBounds& bounds) {
  if (std::optional<ReplayFault> fault = FindShapeFault(replay, bounds)) return fault;
  if (bounds.experts_choose && !replay.uses_recorded_weights) {
    return ReplayFault{"weights", "where experts choose the tokens of prompts, only recorded weights can be replayed"};
  }
  std::vector<size_t> row_of_expert(static_cast<size_t>(bounds.num_experts), 0);
  for (size_t begin = 0; begin < replay.record.expert_ids.size(); begin += static_cast<size_t>(bounds.top_k)) {
    if (std::optional<ReplayFault> fault = FindRowFault(replay, bounds, begin, row_of_expert)) return fault;
  }
  return std::nullopt;
}

// What is charged, of all and by named tenant. A tenant without records has no entry.
class ReplayMemory::Account {
 public:
  absl::Status Take(int64_t bytes, std::string_view tenant, int64_t max_bytes, double max_tenant_share) {
    const std::lock_guard lock(mutex_);
    if (bytes > max_bytes - in_use_) {
      return MakeRefusal(Refusal::kQueueFull, absl::StatusCode::kResourceExhausted,
                         absl::StrCat("the recorded choices of the request take ", bytes,
                                      " bytes, and those in flight ", in_use_, ", the limit is ", max_bytes));
    }
    if (!tenant.empty()) {
      const auto it = by_tenant_.find(ToAbsl(tenant));
      const int64_t own = it == by_tenant_.end() ? 0 : it->second;
      const auto share = static_cast<int64_t>(static_cast<double>(max_bytes) * max_tenant_share);
      if (own > 0 && bytes > share - own) {
        return MakeRefusal(Refusal::kTenantShare, absl::StatusCode::kResourceExhausted,
                           absl::StrCat("the recorded choices of the request take ", bytes,
                                        " bytes, and the tenant's in flight ", own, ", its share is ", share));
      }
      by_tenant_[ToAbsl(tenant)] = own + bytes;
    }
    in_use_ += bytes;
    return absl::OkStatus();
  }

  void GiveBack(int64_t bytes, const std::string& tenant) {
    const std::lock_guard lock(mutex_);
    in_use_ -= bytes;
    if (tenant.empty()) return;
    const auto it = by_tenant_.find(tenant);
    it->second -= bytes;
    if (it->second == 0) by_tenant_.erase(it);
  }

  int64_t in_use() const {
    const std::lock_guard lock(mutex_);
    return in_use_;
  }

 private:
  mutable std::mutex mutex_;
  int64_t in_use_ = 0;
  absl::flat_hash_map<std::string, int64_t> by_tenant_;
};

ReplayMemory::ReplayMemory(int64_t max_bytes, double max_tenant_share)
    : max_bytes_(max_bytes), max_tenant_share_(max_tenant_share), account_(std::make_shared<Account>()) {}

int64_t ReplayMemory::bytes_in_use() const { return account_->in_use(); }

absl::StatusOr<std::shared_ptr<const RoutingReplay>> ReplayMemory::Charge(std::shared_ptr<const RoutingReplay> replay,
                                                                          std::string_view tenant) {
  // Gives back when the replay is given up.
  struct Charged {
    Charged(std::shared_ptr<const RoutingReplay> charged_replay, std::string_view of,
            std::shared_ptr<Account> charged_account)
        : replay(std::move(charged_replay)), tenant(of), account(std::move(charged_account)) {}
    ~Charged() { account->GiveBack(replay->size_bytes(), tenant); }
    Charged(const Charged&) = delete;
    Charged& operator=(const Charged&) = delete;

    const std::shared_ptr<const RoutingReplay> replay;
    const std::string tenant;
    const std::shared_ptr<Account> account;
  };
  CADRE_RETURN_IF_ERROR(account_->Take(replay->size_bytes(), tenant, max_bytes_, max_tenant_share_));
  const auto charged = std::make_shared<const Charged>(std::move(replay), tenant, account_);
  return std::shared_ptr<const RoutingReplay>(charged, charged->replay.get());
}

}  // namespace cadre
