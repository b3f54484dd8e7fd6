// Who is next among those that have not run yet: fair between tenants, by priority and arrival within one.
#ifndef CADRE_ENGINE_SCHEDULE_FAIR_QUEUE_H_
#define CADRE_ENGINE_SCHEDULE_FAIR_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
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
  // Who goes out of turn, as Preferences have it: one of the first `window` of a tenant, whose share is larger by at
  // least `min_advantage`; and each sequence is passed over `max_passed_over` times at most.
  int32_t window = 16;
  int32_t max_passed_over = 8;
  double min_advantage = 0.05;
};

// What speaks for running a sequence now, before others of its tenant and priority that came earlier.
struct Preference {
  double share = 0.0;  // [0, 1]; the larger, the better
  bool may_be_passed_over = true;
};
// Of a sequence that waits. Says the same of it for as long as one Cursor lives; asked once by each, of few sequences.
using Preferences = std::function<Preference(const Sequence&)>;

// Two rules, both in tokens of service, both without a clock:
//
//   within a tenant   by D = service of the tenant when the sequence arrived - A * priority, the smallest first. So a
//                     sequence is overtaken by sequences of higher priority only, and only until its tenant has been
//                     served A tokens for each level of the difference.
//                     With Preferences: of the first sequences that have the priority of the first one, the earliest
//                     whose share is nearly the largest. Who was passed over often enough is not passed over again,
//                     and neither is who must not be: so a sequence is delayed by max_passed_over others at most.
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
  struct Waiting {
    const Sequence* sequence = nullptr;
    int32_t num_passed_over = 0;
  };
  using Line = std::map<Order, Waiting>;
  struct Level {
    int32_t num_waiting = 0;
    int64_t lift = 0;  // tokens of service
  };
  struct Tenant {
    int64_t service = 0;
    int32_t num_present = 0;  // sequences between Arrive and Leave
    Line waiting = {};
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
  // It starts: as Remove, and those of its tenant that are before it are passed over.
  void Start(const Sequence& sequence, int64_t order);
  // Its tenant was served; in a first run, before the sequence has started.
  void Charge(const Sequence& sequence, int64_t tokens);

  int32_t size() const { return size_; }
  int64_t service(const std::string& tenant) const;
  int32_t num_tenants() const { return static_cast<int32_t>(tenants_.size()); }
  int64_t num_preferred() const { return num_preferred_; }      // sequences that started out of turn
  int64_t num_passed_over() const { return num_passed_over_; }  // times that somebody was passed over by one of these

  // Takes one after the other out of a copy of the queue: what the queue would do if each had started and been charged.
  class Cursor {
   public:
    // `preferences` may be null, and everybody's turn then is what the order says.
    explicit Cursor(const FairQueue* queue, const Preferences* preferences = nullptr)
        : queue_(queue), preferences_(preferences) {}
    const Sequence* Next();     // null: nobody is left
    void Take(int64_t tokens);  // the one that Next returned, which is charged

   private:
    struct Candidate {
      Waiting waiting;
      std::optional<Preference> preference = std::nullopt;  // once it was asked for
    };
    struct Draft {
      std::vector<Candidate> candidates = {};  // the first ones of those that are left, as far as they were looked at
      Line::const_iterator next;               // behind them
      int64_t charge = 0;
    };
    // Null if nobody of the tenant is left.
    const Sequence* First(const Tenant& tenant, const Draft* draft) const;
    // Which of the candidates is next.
    size_t Choose(Draft* draft) const;

    const FairQueue* queue_;
    const Preferences* preferences_;
    const Tenant* best_ = nullptr;
    size_t chosen_ = 0;                                 // of the candidates of best_
    absl::flat_hash_map<const Tenant*, Draft> drafts_;  // of tenants that were best
  };

  // INTERNAL unless sizes agree, everybody who waits is present and nobody was passed over too often.
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
  int64_t num_preferred_ = 0;
  int64_t num_passed_over_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_FAIR_QUEUE_H_
