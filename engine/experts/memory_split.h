// One budget of memory, shared by expert slots and KV blocks: it goes where it saves more time.
#ifndef CADRE_ENGINE_EXPERTS_MEMORY_SPLIT_H_
#define CADRE_ENGINE_EXPERTS_MEMORY_SPLIT_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace cadre {

struct MemorySplitOptions {
  int64_t budget_bytes = 0;
  int64_t slot_bytes = 0;   // of one expert
  int64_t block_bytes = 0;  // of the keys and values of one block
  int64_t min_slots = 1;
  int64_t max_slots = 0;
  int64_t min_blocks = 1;
  int64_t max_blocks = 0;
  int64_t step_slots = 1;  // that one move gives or takes; what observations are about
  // What is gained must be more than (1 + margin) times what is lost, and more than `min_gain` of the time observed.
  // Observations that are wrong by factors up to sqrt(1 + margin) either way cannot make it go to and fro.
  double margin = 0.5;
  double min_gain = 0.01;
  int32_t patience = 3;                  // observations in a row that say the same before it moves
  int32_t max_reversal_patience = 1024;  // see MemorySplit
};

struct MemoryShares {
  int64_t slots = 0;
  int64_t blocks = 0;

  bool operator==(const MemoryShares&) const = default;
};

// OK, or INVALID_ARGUMENT that names the limit of `options` which `shares` break.
absl::Status CheckShares(const MemorySplitOptions& options, const MemoryShares& shares);

// What a stretch of time was like, with the shares as they are.
struct MemoryObservation {
  double seconds = 0.0;  // its length
  // Experts: what a shadow of this stretch says of step_slots more, and of step_slots fewer.
  int64_t hits_gained = 0;
  int64_t hits_lost = 0;
  double load_seconds = 0.0;  // that steps waited for a miss, on average
  // KV blocks.
  double recompute_seconds = 0.0;  // of steps that went into rows which preemption had thrown away
  double waiting_seconds = 0.0;    // of requests that nothing but blocks kept from running, summed over them
  double running_requests = 0.0;   // on average: one that waits would add one part in so many to what a second yields
  int64_t blocks_wanted = 0;       // that all of those were short of
  int64_t idle_blocks = 0;         // that served nobody in all the time
  double block_seconds = 0.0;      // to compute the rows of one block
};

// What a move is expected to save and to cost, in seconds of the engine's time in such a stretch.
struct MemoryEffects {
  double slots_gain = 0.0;   // of step_slots more
  double slots_loss = 0.0;   // of step_slots fewer
  double blocks_gain = 0.0;  // of as many bytes of blocks more
  double blocks_loss = 0.0;
};

// A controller without clock and threads, asked once for each stretch. It moves in steps of step_slots, after
// `patience` observations in a row that want the same. To turn back it takes twice as many as the last time that it
// turned back, up to max_reversal_patience: whatever it is told, in n observations it turns back at most log2(n /
// patience + 1) times, and from there on once in max_reversal_patience. To try again what could not be had takes longer
// each time in the same way. Not thread-safe.
class MemorySplit {
 public:
  // REQUIRES: bytes, slots, blocks, patience >= 1, margin and min_gain >= 0, and `initial` is within the limits and the
  // budget.
  MemorySplit(const MemorySplitOptions& options, const MemoryShares& initial);

  // The shares that it wants now, if others than there are. Says so again with each further observation that wants the
  // same, until they are set: nothing has moved before. What is negative, infinite or not a number is no observation.
  std::optional<MemoryShares> Observe(const MemoryObservation& observation);
  // The shares as they are from now on: the proposed ones, or what could be had of them. REQUIRES: as `initial`.
  void SetShares(const MemoryShares& shares);
  // `shares` could not be had, and nothing has moved.
  void Refuse(const MemoryShares& shares);
  // Why it could not be had is gone: it may be tried again as soon as ever.
  void ForgetRefusal();

  const MemoryShares& shares() const { return shares_; }
  MemoryEffects Effects(const MemoryObservation& observation) const;

 private:
  enum class Direction : int8_t { kStay, kToSlots, kToBlocks };

  Direction Wanted(const MemoryObservation& observation) const;
  std::optional<MemoryShares> Moved(Direction direction) const;

  const MemorySplitOptions options_;
  MemoryShares shares_;
  Direction last_move_ = Direction::kStay;
  Direction wanted_ = Direction::kStay;  // by the latest observations
  int64_t streak_ = 0;                   // how many of them
  int64_t reversal_patience_;
  Direction refused_ = Direction::kStay;  // last, and nothing has moved since
  int64_t refusal_patience_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_MEMORY_SPLIT_H_
