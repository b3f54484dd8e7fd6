// Who is next among those that have not run yet: fair between tenants, by priority and arrival within one.
#ifndef CADRE_ENGINE_SCHEDULE_FAIR_QUEUE_H_
#define CADRE_ENGINE_SCHEDULE_FAIR_QUEUE_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "engine/request/sequence.h"

namespace cadre {

struct FairQueueOptions {
  // How far one level of priority reaches, in tokens of service: A below.
  int64_t priority_tokens = 65536;
  // Tenants without a sequence whose service is remembered; who used least is forgotten first.
  int32_t max_idle_tenants = 4096;
};

// Two rules, both in tokens of service, both without a clock:
//
//   within a tenant   by D = service of the tenant when the sequence arrived - A * priority, the smallest first. So a
//                     sequence is overtaken by sequences of higher priority only, and only until its tenant has been
//                     served A tokens for each level of the difference.
//   between tenants   the tenant with the smallest service - A * (priority of its first sequence). This is the virtual
//                     token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024); a
//                     priority is a head start of A tokens per level, and no more.
//
// A tenant of whom nobody waits and then somebody does starts from the least service of the tenants that wait, so that
// nobody saves up service by being away, or by asking for little: whoever else runs is no measure. Nor does it start
// before what the latest first run of its priority or a lower one came to, so that ever new names cannot keep ahead of
// who waits; the head starts of higher priorities are not its own. While nobody waits at all, everybody gets what it
// wants, and all start again as equals. Ties: the earlier sequence.
//
// The same for a tenant of whom nobody of this priority waits, but others do: what is missing is its lift, which counts
// between tenants as service does for as long as anybody of this priority waits. So a request of the lowest priority is
// no ticket for later ones of a higher; and those that wait already lose nothing by it.
//
// A pure single-threaded state machine.
class FairQueue {
 private:
  using Order = std::pair<int64_t, SequenceId>;  // D, arrival
  struct Level {
    int32_t num_waiting = 0;
    int64_t lift = 0;  // tokens of service
  };
  struct Tenant {
    int64_t service = 0;
    int32_t num_present = 0;  // sequences between Arrive and Leave
    std::map<Order, const Sequence*> waiting = {};
    absl::btree_map<int32_t, Level> levels = {};  // of `waiting`, by priority
  };

 public:
  explicit FairQueue(const FairQueueOptions& options);

  // A sequence comes, and goes for good. Returns its D, which is constant.
  int64_t Arrive(const Sequence& sequence);
  void Leave(const Sequence& sequence);
  // It waits for its first run from now on, or no longer.
  void Push(const Sequence* sequence, int64_t order);
  void Remove(const Sequence& sequence, int64_t order);
  // Its tenant was served; in a first run, before the sequence has started.
  void Charge(const Sequence& sequence, int64_t tokens);

  int32_t size() const { return size_; }
  int64_t service(const std::string& tenant) const;
  int32_t num_tenants() const { return static_cast<int32_t>(tenants_.size()); }

  // Takes one after the other out of a copy of the queue: what the queue would do if each had been removed and charged.
  class Cursor {
   public:
    explicit Cursor(const FairQueue* queue) : queue_(queue) {}
    const Sequence* Next();     // null: nobody is left
    void Take(int64_t tokens);  // the one that Next returned, which is charged

   private:
    struct Draft {
      std::map<Order, const Sequence*>::const_iterator next;
      int64_t charge = 0;
    };
    const FairQueue* queue_;
    const Tenant* best_ = nullptr;
    absl::flat_hash_map<const Tenant*, Draft> drafts_;  // of tenants that something was taken from
  };

  // INTERNAL unless sizes agree and everybody who waits is present.
  absl::Status Audit() const;

 private:
  Tenant& Find(const Sequence& sequence);
  void UpdateLeastService();
  // Where a tenant starts of whom nobody of this priority waits.
  int64_t FirstService(int32_t priority);
  void ForgetIdleTenants();
  void ForgetLeastServed();

  const FairQueueOptions options_;
  std::map<std::string, Tenant> tenants_;  // nodes do not move
  std::vector<const Tenant*> backlogged_;  // those with somebody waiting, in no order
  int64_t least_service_ = 0;              // rises only
  int64_t most_service_ = 0;               // of anybody, ever
  // Of each priority: the most service that a tenant had after a first run.
  std::map<int32_t, int64_t> latest_runs_;
  int32_t num_idle_ = 0;
  int32_t num_idle_to_look_ = 0;  // idle tenants are looked through when there are more
  int32_t size_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_FAIR_QUEUE_H_
