// Which experts are kept in memory while the engine runs: set and read by any thread, carried out between steps.
#ifndef CADRE_ENGINE_EXPERT_PINS_H_
#define CADRE_ENGINE_EXPERT_PINS_H_

#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/expert_id.h"
#include "engine/model/model_runner.h"

namespace cadre {

// How many experts were pinned, and are now.
struct PinChange {
  int64_t before = 0;
  int64_t now = 0;
};

// Thread rules: Apply from the engine's thread, the rest from any.
class ExpertPins {
 public:
  // `runner` outlives this.
  explicit ExpertPins(ModelRunner* runner);

  // The whole set from now on, in any order; loaded in this one. An expert that is named twice counts once.
  // FAILED_PRECONDITION where all experts are in the device's memory; INVALID_ARGUMENT, and nothing
  // changes, for more than max_pinned(). REQUIRES: ids of the model.
  absl::StatusOr<PinChange> Set(std::vector<ExpertId> experts);
  // Of experts that need a slot. One stays free for what steps ask for. 0 where there is no cache.
  int64_t max_pinned() const;
  // From now on there are so many slots. False, and nothing changes, if that leaves none free beside what was set.
  bool SetNumSlots(int64_t num_slots);
  // What was last set; at first what the profile at the start chose.
  std::vector<ExpertId> pinned() const;

  // Tells the runner what was set since.
  void Apply();

 private:
  int64_t CountInSlots(const std::vector<ExpertId>& experts) const;

  ModelRunner* const runner_;
  mutable std::mutex mutex_;  // for what follows
  int64_t num_slots_;         // 0 where there is no cache
  std::vector<ExpertId> pinned_;
  bool has_changed_ = false;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERT_PINS_H_
