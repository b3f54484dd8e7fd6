#include "engine/tenant_ledger.h"

#include <tuple>

#include "engine/base/check.h"
#include "engine/base/strings.h"

namespace cadre {

TenantLedger::TenantLedger(int64_t recent_assignments) : recent_assignments_(recent_assignments) {
  CADRE_CHECK_GE(recent_assignments, int64_t{1});
  accounts_.reserve(kMaxTenants + 2);
  accounts_.resize(2);
  accounts_[kOther].tenant = kOtherName;
  standings_.resize(2);
}

size_t TenantLedger::Open(std::string_view tenant) {
  const size_t number = FindOrTake(tenant);
  Standing& standing = standings_[number];
  ++standing.in_flight;
  standing.last_use = ++num_uses_;
  return number;
}

void TenantLedger::Close(size_t number) {
  Standing& standing = standings_.at(number);
  CADRE_CHECK_GT(standing.in_flight, int64_t{0});
  --standing.in_flight;
  standing.last_use = ++num_uses_;
}

size_t TenantLedger::FindOrTake(std::string_view tenant) {
  if (tenant.empty()) return kUnnamed;
  if (tenant == kOtherName) return kOther;
  if (const auto it = numbers_.find(ToAbsl(tenant)); it != numbers_.end()) return it->second;
  if (numbers_.size() < kMaxTenants) {
    const std::lock_guard lock(mutex_);
    const size_t number = accounts_.size();
    accounts_.push_back({.tenant = std::string(tenant), .routing = {}});
    standings_.emplace_back();
    numbers_.emplace(tenant, number);
    return number;
  }
  const size_t number = LeastOfAll();
  if (number == kOther) return kOther;
  const std::lock_guard lock(mutex_);
  numbers_.erase(accounts_[number].tenant);
  accounts_[kOther].routing += accounts_[number].routing;
  accounts_[number] = {.tenant = std::string(tenant), .routing = {}};
  standings_[number] = {};
  numbers_.emplace(tenant, number);
  return number;
}

size_t TenantLedger::LeastOfAll() const {
  int64_t sum = 0;
  for (const Standing& standing : standings_) sum += standing.recent;
  const int64_t most = sum / int64_t{kMaxTenants};
  size_t least = kOther;
  for (size_t i = kOther + 1; i < standings_.size(); ++i) {
    const Standing& one = standings_[i];
    if (one.in_flight > 0 || one.recent > most) continue;
    const Standing& other = standings_[least];
    if (least == kOther || std::tie(one.recent, one.last_use) < std::tie(other.recent, other.last_use)) least = i;
  }
  return least;
}

void TenantLedger::Add(std::span<const size_t> numbers, std::span<const RoutingReport> reports) {
  CADRE_CHECK_EQ(numbers.size(), reports.size());
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < reports.size(); ++i) accounts_.at(numbers[i]).routing += reports[i];
  }
  for (size_t i = 0; i < reports.size(); ++i) {
    CADRE_CHECK_GT(standings_[numbers[i]].in_flight, int64_t{0});
    if (numbers[i] <= kOther) continue;
    standings_[numbers[i]].recent += reports[i].total();
    since_forgotten_ += reports[i].total();
  }
  if (since_forgotten_ >= recent_assignments_) Forget();
}

void TenantLedger::Forget() {
  for (Standing& standing : standings_) standing.recent /= 2;
  since_forgotten_ = 0;
}

std::vector<TenantRouting> TenantLedger::Snapshot() const {
  const std::lock_guard lock(mutex_);
  return accounts_;
}

int64_t TenantLedger::num_assignments() const {
  const std::lock_guard lock(mutex_);
  int64_t sum = 0;
  for (const TenantRouting& account : accounts_) sum += account.routing.total();
  return sum;
}

}  // namespace cadre
