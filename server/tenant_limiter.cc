#include "server/tenant_limiter.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors.h"

namespace cadre {
namespace {

// No tenant has a blank in its name.
constexpr char kOthers[] = "all others";
// Looking through all accounts takes about a millisecond.
constexpr absl::Duration kSweepInterval = absl::Seconds(1);
// Nobody knows when a request ends.
constexpr absl::Duration kConcurrencyRetry = absl::Seconds(1);

}  // namespace

TenantLimiter::Ticket::Ticket(std::shared_ptr<TenantLimiter> limiter, std::string account)
    : limiter_(std::move(limiter)), account_(std::move(account)) {}

TenantLimiter::Ticket::~Ticket() { limiter_->Close(account_); }

TenantLimiter::TenantLimiter(const TenantLimits& limits, Metrics* metrics) : limits_(limits), metrics_(metrics) {}

void TenantLimiter::Refill(Account& account, absl::Time now) const {
  const double seconds = std::max(absl::ToDoubleSeconds(now - account.refilled), 0.0);
  account.tokens = std::min(account.tokens + seconds * limits_.requests_per_second, limits_.burst);
  account.refilled = now;
}

void TenantLimiter::ForgetIdle(absl::Time now) {
  if (now - last_sweep_ < kSweepInterval) return;
  last_sweep_ = now;
  for (auto it = accounts_.begin(); it != accounts_.end();) {
    Refill(it->second, now);
    const bool is_idle = it->second.num_open == 0 && it->second.tokens >= limits_.burst;
    it = is_idle ? accounts_.erase(it) : std::next(it);
  }
}

TenantLimiter::Accounts::iterator TenantLimiter::Find(const std::string& tenant, absl::Time now) {
  if (const auto found = accounts_.find(tenant); found != accounts_.end()) return found;
  if (accounts_.size() >= kMaxLimitedTenants) ForgetIdle(now);
  const std::string name = accounts_.size() >= kMaxLimitedTenants ? kOthers : tenant;
  return accounts_.try_emplace(name, Account{.tokens = limits_.burst, .refilled = now}).first;
}

absl::StatusOr<std::unique_ptr<TenantLimiter::Ticket>> TenantLimiter::Admit(const std::string& tenant, absl::Time now) {
  const std::lock_guard lock(mutex_);
  const auto found = Find(tenant, now);
  Account& account = found->second;
  if (limits_.max_concurrent > 0 && account.num_open >= limits_.max_concurrent) {
    if (metrics_ != nullptr) metrics_->OnTenantLimited(TenantLimit::kConcurrency);
    return MakeError({.code = absl::StatusCode::kResourceExhausted,
                      .reason = reason::kTenantConcurrencyLimit,
                      .message = absl::StrCat("the tenant has ", account.num_open,
                                              " requests that are not answered yet, which is the limit"),
                      .metadata = {{"limit", absl::StrCat(limits_.max_concurrent)}},
                      .retry_delay = kConcurrencyRetry});
  }
  if (limits_.requests_per_second > 0) {
    Refill(account, now);
    if (account.tokens < 1) {
      if (metrics_ != nullptr) metrics_->OnTenantLimited(TenantLimit::kRate);
      return MakeError({.code = absl::StatusCode::kResourceExhausted,
                        .reason = reason::kTenantRateLimit,
                        .message = absl::StrCat("the tenant's limit is ", limits_.requests_per_second,
                                                " requests a second, and ", limits_.burst, " at once"),
                        .metadata = {{"limit", absl::StrCat(limits_.requests_per_second)}},
                        .retry_delay = absl::Seconds((1 - account.tokens) / limits_.requests_per_second)});
    }
    account.tokens -= 1;
  }
  ++account.num_open;
  return std::make_unique<Ticket>(shared_from_this(), found->first);
}

void TenantLimiter::Close(const std::string& account) {
  const std::lock_guard lock(mutex_);
  --accounts_.at(account).num_open;
}

size_t TenantLimiter::num_tenants() const {
  const std::lock_guard lock(mutex_);
  return accounts_.size();
}

}  // namespace cadre
