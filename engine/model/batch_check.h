// A batch that contradicts itself would write into another sequence's memory: it ends the process instead.
#ifndef CADRE_ENGINE_MODEL_BATCH_CHECK_H_
#define CADRE_ENGINE_MODEL_BATCH_CHECK_H_

#include "engine/model/forward_batch.h"
#include "engine/model/model_runner.h"

namespace cadre {

// CADRE_CHECKs everything that ForwardBatch promises: sizes, ranges, the order of rows, and that each row's slot is the
// one that its sequence's block table gives for its position. O(T + S * max_blocks).
void CheckBatch(const ForwardBatch& batch, const RunnerLimits& limits);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_BATCH_CHECK_H_
