// Moves memory between expert slots and KV blocks while the engine runs, to where it saves more time.
#ifndef CADRE_ENGINE_JOINT_BUDGET_H_
#define CADRE_ENGINE_JOINT_BUDGET_H_

#include <cstdint>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/experts/memory_split.h"
#include "engine/model/model_runner.h"

namespace cadre {

class ExpertPins;
class Scheduler;

struct JointBudgetReport {
  MemorySplitOptions limits;
  MemoryShares shares;          // a move counts when it has ended
  MemoryEffects effects;        // of one step of memory, in the latest stretch that was judged
  absl::Duration stretch;       // how long the engine was at work in it; zero before the first one
  int64_t moves_to_slots = 0;   // since the start; those that brought them nothing are not counted
  int64_t moves_to_blocks = 0;  // likewise
  bool is_moving = false;
};

// A move that has ended.
struct MemoryMove {
  MemoryShares from;
  MemoryShares to;  // the shares as they are now
  // RESOURCE_EXHAUSTED: who was to get memory could not, and the other side has taken back what it gave, as far as it
  // could. FAILED_PRECONDITION: pinned experts need the slots, and nothing has moved.
  absl::Status status;
};

// What a step tells.
struct BudgetStep {
  absl::Duration duration;
  int32_t rows = 0;
  int32_t recomputed_rows = 0;   // after preemptions
  int32_t num_running = 0;       // sequences
  int32_t num_kept_waiting = 0;  // sequences that nothing but blocks kept from running
  int32_t missing_blocks = 0;    // that those lacked
  int32_t available_blocks = 0;  // that nobody held
  int64_t found_tokens = 0;      // since the start, in the prefix cache
  double row_seconds = 0.0;      // what a row costs, as far as is known
};

// Who gives gives first: slots are left, or blocks released, before their memory goes back to the system, and only then
// the other side takes as much. So there is never more memory in use than the budget, and nothing that anybody computes
// depends on it. One thread calls everything, unless said otherwise.
class JointBudget {
 public:
  // A stretch ends when the engine was at work for so long, and the shadow caches have seen it.
  static constexpr absl::Duration kStretch = absl::Seconds(5);

  // Everything outlives this. REQUIRES: the runner has a memory_room, and the scheduler's pool as many blocks as that
  // may ever have.
  JointBudget(ModelRunner* runner, Scheduler* scheduler, ExpertPins* pins);

  // Between steps: begins a move that is wanted, or goes on with it. `may_begin`: whether one may begin now. The move
  // that has ended by it, if one has.
  std::optional<MemoryMove> Advance(bool may_begin);
  void ObserveStep(const BudgetStep& step);

  // Wants other shares than observations ask for. INVALID_ARGUMENT names the limit that they break. Any thread.
  absl::Status Ask(const MemoryShares& shares);
  bool is_moving() const { return move_.has_value(); }
  JointBudgetReport Report() const;

 private:
  struct Move {
    MemoryShares from;
    MemoryShares to;
    bool has_left_slots = false;
    bool are_blocks_withdrawn = false;
    bool has_left_blocks = false;
  };
  // What was summed up since the last judgment.
  struct Stretch {
    absl::Duration at_work = absl::ZeroDuration();
    double recompute_seconds = 0.0;
    double waiting_seconds = 0.0;   // summed over sequences
    double running_seconds = 0.0;   // summed over sequences
    double shortage_seconds = 0.0;  // in which somebody waited for blocks
    double missing_seconds = 0.0;   // blocks times seconds
    int32_t least_available = 0;
    int64_t found_tokens = 0;  // at its end
    double row_seconds = 0.0;  // at its end
    int64_t num_steps = 0;
  };

  std::optional<MemoryShares> NextWanted();
  // Whether what is to be given has been given.
  bool Give();
  bool GiveSlots();
  bool GiveBlocks();
  // The shares that came of it, and whether all that was wanted was there to be taken.
  MemoryMove Take();
  // Up to `wanted` from `have`, which says what there is in the end.
  absl::Status TakeUpTo(const MemoryShares& wanted, MemoryShares* have);
  MemoryMove Refusal(const MemoryShares& wanted);
  void BeginStretch(int64_t found_tokens);
  // Once the shadow caches have seen the stretch.
  void Judge(const SlotMargin& margin);
  MemoryObservation Observation(const SlotMargin& margin, const ExpertCacheReport& cache) const;

  ModelRunner* const runner_;
  Scheduler* const scheduler_;
  ExpertPins* const pins_;
  const MemorySplitOptions limits_;
  MemorySplit split_;
  std::optional<Move> move_;
  std::optional<MemoryShares> proposed_;  // by the last judgment
  int64_t num_pinned_at_refusal_ = 0;     // when pins were what last stood in the way of a move
  Stretch stretch_;
  ExpertCacheReport cache_before_;                      // when the stretch began
  std::optional<int64_t> num_simulations_before_ = {};  // when the simulation of this stretch was asked for
  MemoryEffects effects_;
  absl::Duration judged_stretch_;
  int64_t moves_to_slots_ = 0;
  int64_t moves_to_blocks_ = 0;
  mutable std::mutex mutex_;
  std::optional<MemoryShares> asked_;  // guarded by mutex_
};

}  // namespace cadre

#endif  // CADRE_ENGINE_JOINT_BUDGET_H_
