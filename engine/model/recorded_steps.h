// Steps of fixed shapes that were recorded at the start, so that ordering one costs the host a single call.
#ifndef CADRE_ENGINE_MODEL_RECORDED_STEPS_H_
#define CADRE_ENGINE_MODEL_RECORDED_STEPS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model/forward_batch.h"
#include "engine/model/step_arena.h"
#include "kernels/device.h"

namespace cadre {

struct RecordedStep {
  StepShape shape;
  std::unique_ptr<RecordedWork> work;
};

class RecordedSteps {
 public:
  // Larger decode steps are rare, and so long that what the host does for them does not show.
  static constexpr int64_t kMostRows = 512;

  // The numbers of rows for which steps are recorded, rising, when steps have up to `max_rows` rows of logits: close
  // enough together that padding costs little, and few enough that recording them does not delay the start.
  static std::vector<int64_t> Sizes(int64_t max_rows);

  // In rising order of rows.
  void Add(RecordedStep step);

  // The smallest into which `batch` fits; null when it must be ordered op by op: a step that computes more rows than it
  // wants logits of, which is to say one with a prompt in it, one that limits experts, or one that returns what is
  // overwritten on the way.
  const RecordedStep* Find(const ForwardBatch& batch) const;

 private:
  std::vector<RecordedStep> steps_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_RECORDED_STEPS_H_
