#include "engine/routing_record.h"

#include <algorithm>

#include "engine/base/check.h"

namespace cadre {

void RoutingRecord::Add(const ForwardResult& step, int64_t num_rows, int64_t first_row, const ScheduledChunk& chunk) {
  const int64_t of_token = int64_t{routed_.num_layers} * routed_.top_k;
  CADRE_CHECK_EQ(static_cast<int64_t>(step.chosen_ids.size()), num_rows * of_token);
  CADRE_CHECK_LE(chunk.begin * of_token, static_cast<int64_t>(routed_.expert_ids.size()));
  const auto size = static_cast<size_t>((chunk.begin + chunk.count) * of_token);
  if (routed_.expert_ids.size() < size) {
    routed_.expert_ids.resize(size);
    routed_.weights.resize(size);
  }
  for (int64_t i = 0; i < chunk.count; ++i) {
    for (int64_t layer = 0; layer < routed_.num_layers; ++layer) {
      const int64_t from = (layer * num_rows + first_row + i) * routed_.top_k;
      const int64_t to = (chunk.begin + i) * of_token + layer * routed_.top_k;
      // The model marks a choice that was not made otherwise than clients are told.
      std::transform(step.chosen_ids.begin() + from, step.chosen_ids.begin() + from + routed_.top_k,
                     routed_.expert_ids.begin() + to, [](int32_t id) { return std::max(id, kNoExpert); });
      std::copy_n(step.chosen_weights.begin() + from, routed_.top_k, routed_.weights.begin() + to);
    }
  }
}

}  // namespace cadre
