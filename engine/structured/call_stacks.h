#ifndef CADRE_ENGINE_STRUCTURED_CALL_STACKS_H_
#define CADRE_ENGINE_STRUCTURED_CALL_STACKS_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/structured/step_meter.h"

namespace cadre {

// Sets of call stacks, each stored once and named by an id, as graphs that share their tails (Tomita 1987). A frame is
// the grammar state to go on in when the called rule returns. At the bottom of a stack is a mark. Not thread-safe.
//
// What Union and KeepShallow return is only true while is_stuck() is false: they give up when the meter is exhausted,
// or when the sets have become larger than their limit.
class CallStacks {
 public:
  // A set is a list of (frame, set of stacks below it), ascending, each frame once.
  using Frame = std::pair<int32_t, int32_t>;
  static constexpr int32_t kNone = -1;  // the empty set
  static constexpr int32_t kRoot = 0;   // the one stack that is empty but for the mark kRootMark
  static constexpr int32_t kRootMark = -1;

  // `meter`, which counts the frames that are looked at, must outlive this object.
  explicit CallStacks(StepMeter* meter);

  // The stacks with nothing but mark `index`: they stand for stacks that are not known.
  int32_t Unknown(int32_t index) { return Intern({{kRootMark - 1 - index, kNone}}); }
  static bool IsMark(int32_t frame) { return frame < 0; }
  static int32_t UnknownIndex(int32_t mark) { return kRootMark - 1 - mark; }

  // Every stack of `below` with `frame` on top.
  int32_t Push(int32_t frame, int32_t below) { return Intern({{frame, below}}); }
  int32_t Union(int32_t a, int32_t b);
  // Those of at most `max_depth` frames; kNone when there are none.
  int32_t KeepShallow(int32_t stacks, int32_t max_depth);

  // Valid until the next set is made.
  std::span<const Frame> frames(int32_t stacks) const { return sets_[static_cast<size_t>(stacks)].frames; }
  // Frames of the deepest stack.
  int32_t max_depth(int32_t stacks) const { return sets_[static_cast<size_t>(stacks)].max_depth; }
  int64_t memory_bytes() const { return memory_bytes_; }
  void LimitMemory(int64_t max_bytes) { max_bytes_ = max_bytes; }
  bool is_stuck() const { return meter_.is_exhausted() || memory_bytes_ > max_bytes_; }

  // The id here of a set of `other`. `ids` remembers the sets that were copied before.
  int32_t Import(const CallStacks& other, int32_t stacks, absl::flat_hash_map<int32_t, int32_t>* ids);

 private:
  struct Set {
    std::vector<Frame> frames;
    int32_t min_depth;
    int32_t max_depth;
  };

  int32_t Intern(std::vector<Frame> frames);

  StepMeter& meter_;
  int64_t max_bytes_ = INT64_MAX;
  std::vector<Set> sets_;
  absl::flat_hash_map<std::vector<Frame>, int32_t> ids_;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> unions_;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> shallow_;
  int64_t memory_bytes_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_CALL_STACKS_H_
