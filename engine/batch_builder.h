// Turns a step plan into the flat arrays of a forward pass: where `schedule` and `model` meet.
#ifndef CADRE_ENGINE_BATCH_BUILDER_H_
#define CADRE_ENGINE_BATCH_BUILDER_H_

#include <cstdint>
#include <span>

#include "engine/model/forward_batch.h"
#include "engine/model/model_runner.h"
#include "engine/request/routing_replay.h"
#include "engine/request/sequence.h"
#include "engine/schedule/step_plan.h"

namespace cadre {

// Overwrites `batch`; its vectors are reused. `sequences[i]` is the sequence of `plan.chunks[i]` and has the blocks for
// it, so the plan must have been committed. Logits are wanted of the last row of each chunk that samples.
void BuildForwardBatch(const StepPlan& plan, std::span<const Sequence* const> sequences, int32_t block_size,
                       ForwardBatch* batch);

// Overwrites batch->recorded with the choices that the rows of `plan` are to be routed by; `replays[i]`, of the
// sequence of `plan.chunks[i]`, may be null. Empty where no row has any.
void BuildRecordedRows(const StepPlan& plan, std::span<const RoutingReplay* const> replays, const RunnerLimits& limits,
                       ForwardBatch* batch);

}  // namespace cadre

#endif  // CADRE_ENGINE_BATCH_BUILDER_H_
