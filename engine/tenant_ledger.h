// What became of the assignments of each tenant's requests.
#ifndef CADRE_ENGINE_TENANT_LEDGER_H_
#define CADRE_ENGINE_TENANT_LEDGER_H_

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/request/token_sink.h"

namespace cadre {

struct TenantRouting {
  std::string tenant;     // empty: requests that name none; "other": all who have no account of their own
  RoutingReport routing;  // of the others, since the start; of a tenant, since it has its account
};

// Names come from outside, so there are accounts for a bounded number of them. Requests without a tenant have an
// account from the start, and so have all others together, among whom is a tenant of the name "other". When all
// accounts are taken, a newcomer gets that of the tenant who matters least: of those with nothing in flight and no more
// than a hundredth of what all accounts had lately, who had the fewest assignments lately, and of these who has been
// away longest. What that account held goes to the others, so that no sum is lost. If there is none, the newcomer is
// one of the others until it ends.
//
// Lately: assignments count half as much for each `recent_assignments` that all tenants had since. So whoever has more
// than a hundredth of what tenants had lately keeps its account, however many names somebody makes up: the names must
// share what is left, and displace each other.
//
// Thread rules: Open, Close and Add from one thread (the engine's), everything else from any.
class TenantLedger {
 public:
  static constexpr size_t kMaxTenants = 100;  // beside these two
  static constexpr std::string_view kOtherName = "other";

  // REQUIRES: recent_assignments >= 1.
  explicit TenantLedger(int64_t recent_assignments);

  // The account of a tenant, for something that is in flight until Close. O(accounts) for a newcomer.
  size_t Open(std::string_view tenant);
  void Close(size_t number);
  // One step: `reports[i]` goes to the account `numbers[i]`. REQUIRES: they are open.
  void Add(std::span<const size_t> numbers, std::span<const RoutingReport> reports);
  // A consistent copy, of steps as a whole: without a name, others, then in no order.
  std::vector<TenantRouting> Snapshot() const;
  // Of all accounts.
  int64_t num_assignments() const;

 private:
  // The engine thread's part of an account.
  struct Standing {
    int64_t in_flight = 0;
    int64_t recent = 0;    // assignments, as they count now
    int64_t last_use = 0;  // number of the last Open or Close
  };
  static constexpr size_t kUnnamed = 0;
  static constexpr size_t kOther = 1;

  size_t FindOrTake(std::string_view tenant);
  // Of the account that gives way; kOther if none does.
  size_t LeastOfAll() const;
  void Forget();

  const int64_t recent_assignments_;
  absl::flat_hash_map<std::string, size_t> numbers_;  // the engine thread's, and what follows
  std::vector<Standing> standings_;                   // beside accounts_
  int64_t num_uses_ = 0;
  int64_t since_forgotten_ = 0;  // assignments of named tenants
  mutable std::mutex mutex_;
  std::vector<TenantRouting> accounts_;  // guarded by mutex_
};

}  // namespace cadre

#endif  // CADRE_ENGINE_TENANT_LEDGER_H_
