// How long a step takes, learned from the steps that were.
#ifndef CADRE_ENGINE_SCHEDULE_STEP_COST_MODEL_H_
#define CADRE_ENGINE_SCHEDULE_STEP_COST_MODEL_H_

#include <array>
#include <cstdint>

namespace cadre {

// What a step has to do.
struct StepLoad {
  int64_t rows = 0;
  int64_t attended = 0;  // positions that the rows look at, summed over rows
};

// seconds = step + row * rows + position * attended; none is negative.
struct StepCosts {
  double step = 0.0;
  double row = 0.0;
  double position = 0.0;
  bool is_known = false;  // enough steps were seen

  double Predict(const StepLoad& load) const {
    return step + row * static_cast<double>(load.rows) + position * static_cast<double>(load.attended);
  }
  bool operator==(const StepCosts&) const = default;
};

// Non-negative least squares of the relative error, in which old steps fade, faster while they are of no use any more.
// One outlier moves little: an observation counts for at most 4 times, or a quarter of, what was expected. A pure
// single-threaded state machine.
class StepCostModel {
 public:
  static constexpr int64_t kMinSteps = 16;  // before costs().is_known

  void Observe(const StepLoad& load, double seconds);
  const StepCosts& costs() const { return costs_; }

 private:
  static constexpr int kNumTerms = 3;

  void Solve();

  std::array<std::array<double, kNumTerms>, kNumTerms> products_ = {};  // sum of x x^T
  std::array<double, kNumTerms> targets_ = {};                          // sum of x, as each x predicts 1
  int64_t num_steps_ = 0;
  StepCosts costs_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_STEP_COST_MODEL_H_
