// How fast and how many at a time the requests of one tenant may come: a bucket of tokens and a count for each.
#ifndef CADRE_SERVER_TENANT_LIMITER_H_
#define CADRE_SERVER_TENANT_LIMITER_H_

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/metrics.h"

namespace cadre {

struct TenantLimits {
  double requests_per_second = 0;  // 0: no limit
  double burst = 1;                // requests that may come at once after a pause; at least 1
  int max_concurrent = 0;          // requests that are not answered yet; 0: no limit

  bool is_on() const { return requests_per_second > 0 || max_concurrent > 0; }
};

// Tenants that are kept apart; those beyond share one bucket and one count. Who has nothing open, and a full bucket, is
// forgotten.
inline constexpr size_t kMaxLimitedTenants = 16384;

// Has no clock: time is an argument, and only grows. Thread-safe.
class TenantLimiter : public std::enable_shared_from_this<TenantLimiter> {
 public:
  // A request that counts as open until this goes.
  class Ticket {
   public:
    Ticket(std::shared_ptr<TenantLimiter> limiter, std::string account);
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

   private:
    const std::shared_ptr<TenantLimiter> limiter_;
    const std::string account_;
  };

  // Must be owned by a shared_ptr. `metrics` may be null; else it outlives this.
  TenantLimiter(const TenantLimits& limits, Metrics* metrics);

  // RESOURCE_EXHAUSTED, with RetryInfo: TENANT_RATE_LIMIT, after which the next request of this tenant may come, or
  // TENANT_CONCURRENCY_LIMIT. A request that is refused takes nothing from the bucket.
  absl::StatusOr<std::unique_ptr<Ticket>> Admit(const std::string& tenant, absl::Time now);

  size_t num_tenants() const;

 private:
  struct Account {
    double tokens = 0;
    absl::Time refilled;
    int num_open = 0;
  };

  using Accounts = std::unordered_map<std::string, Account>;

  Accounts::iterator Find(const std::string& tenant, absl::Time now);
  void Refill(Account& account, absl::Time now) const;
  void ForgetIdle(absl::Time now);
  void Close(const std::string& account);

  const TenantLimits limits_;
  Metrics* const metrics_;
  mutable std::mutex mutex_;
  Accounts accounts_;
  absl::Time last_sweep_ = absl::InfinitePast();
};

}  // namespace cadre

#endif  // CADRE_SERVER_TENANT_LIMITER_H_
