// What the router chose for each token of a sequence, gathered over the steps that compute it.
#ifndef CADRE_ENGINE_ROUTING_RECORD_H_
#define CADRE_ENGINE_ROUTING_RECORD_H_

#include <cstdint>
#include <utility>

#include "engine/model/forward_batch.h"
#include "engine/request/token_sink.h"
#include "engine/schedule/step_plan.h"

namespace cadre {

class RoutingRecord {
 public:
  RoutingRecord(int32_t num_layers, int32_t top_k) {
    routed_.num_layers = num_layers;
    routed_.top_k = top_k;
  }

  // The rows [first_row, first_row + chunk.count) of a step of `num_rows` are the sequence's. What was told of the same
  // tokens before, in front of a preemption, is replaced. REQUIRES: the step kept its choices; the chunk begins behind
  // the last one, or at the first token.
  void Add(const ForwardResult& step, int64_t num_rows, int64_t first_row, const ScheduledChunk& chunk);

  const RoutedExperts& routed() const { return routed_; }
  RoutedExperts Take() && { return std::move(routed_); }

 private:
  RoutedExperts routed_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_ROUTING_RECORD_H_
