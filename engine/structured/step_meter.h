#ifndef CADRE_ENGINE_STRUCTURED_STEP_METER_H_
#define CADRE_ENGINE_STRUCTURED_STEP_METER_H_

#include <cstdint>

namespace cadre {

// The steps that the automata of one constraint take together, and how many they may. A step is a look at a place, an
// edge, a frame of a stack or a node of the vocabulary: about 10 ns. Not thread-safe.
class StepMeter {
 public:
  void Add(int64_t steps) { steps_ += steps; }
  int64_t steps() const { return steps_; }

  // From here on.
  void Limit(int64_t max_steps) {
    max_steps_ = max_steps;
    last_step_ = steps_ + max_steps;
  }
  int64_t max_steps() const { return max_steps_; }
  bool is_exhausted() const { return steps_ > last_step_; }

 private:
  int64_t steps_ = 0;
  int64_t max_steps_ = INT64_MAX;
  int64_t last_step_ = INT64_MAX;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_STEP_METER_H_
