#include "engine/model/recorded_steps.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace cadre {

std::vector<int64_t> RecordedSteps::Sizes(int64_t max_rows) {
  const int64_t largest = std::min(max_rows, kMostRows);
  std::vector<int64_t> sizes;
  for (int64_t rows = 1; rows < largest;) {
    sizes.push_back(rows);
    // Doubling up to 8, then a quarter to a half more each time.
    rows += rows < 8 ? rows : rows < 32 ? 8 : rows < 64 ? 16 : rows < 128 ? 32 : 64;
  }
  if (largest > 0) sizes.push_back(largest);
  return sizes;
}

void RecordedSteps::Add(RecordedStep step) {
  CADRE_CHECK(steps_.empty() || steps_.back().shape.num_tokens < step.shape.num_tokens);
  steps_.push_back(std::move(step));
}

const RecordedStep* RecordedSteps::Find(const ForwardBatch& batch) const {
  const StepShape wanted = ShapeOf(batch);
  if (wanted.num_logit_rows != wanted.num_tokens || wanted.is_limited || wanted.is_replayed) return nullptr;
  if (batch.keep_expert_ids || batch.keep_choices) return nullptr;
  const auto fits = [&](const RecordedStep& step) {
    return wanted.num_tokens <= step.shape.num_tokens && wanted.num_sequences <= step.shape.num_sequences &&
           wanted.max_blocks <= step.shape.max_blocks;
  };
  const auto found = std::find_if(steps_.begin(), steps_.end(), fits);
  return found == steps_.end() ? nullptr : &*found;
}

}  // namespace cadre
