// What a step of a model cannot do without: bytes to be read and operations to be done. Divided by what a GPU gives at
// best, they bound the time of the step.
#ifndef CADRE_TESTS_BENCH_STEP_WORK_H_
#define CADRE_TESTS_BENCH_STEP_WORK_H_

#include <cstdint>

#include "engine/experts/step_routing.h"
#include "engine/model/model_config.h"

namespace cadre {

struct StepWork {
  double bytes = 0.0;
  double flops = 0.0;
};

// A step of `rows` new positions of each of `sequences` sequences that had `context` positions before, and the logits
// of one row of each. Bytes: every weight that is used, once (of experts, those that `routing` counts), keys and values
// of all sequences once, those of the new rows written; weights and cache in bfloat16. Not counted: activations and the
// embedding's rows, which stay in caches; logits.
StepWork WorkOfStep(const ModelConfig& config, int64_t sequences, int64_t rows, int64_t context,
                    const StepRouting& routing);

}  // namespace cadre

#endif  // CADRE_TESTS_BENCH_STEP_WORK_H_
