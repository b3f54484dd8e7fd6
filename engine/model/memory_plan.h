// Sizes that the plan counts and the runner allocates: computed in one place, so that the two agree.
#ifndef CADRE_ENGINE_MODEL_MEMORY_PLAN_H_
#define CADRE_ENGINE_MODEL_MEMORY_PLAN_H_

#include <cstdint>

#include "engine/model/model_config.h"
#include "engine/model/step_arena.h"
#include "engine/model/transformer_runner.h"
#include "kernels/ops.h"

namespace cadre {

OpsLimits MakeOpsLimits(const ModelConfig& config, const RunnerOptions& options, int32_t max_model_len);
StepLimits MakeStepLimits(const ModelConfig& config, const RunnerOptions& options, int32_t max_model_len,
                          const Ops& ops);
// Rows whose logits are computed at once: a step wants at most one row of each sequence.
int64_t HeadRows(const RunnerOptions& options);
// Places of experts that sequences have taken, [MoE layers, slots, E] i32: where the device limits capacity.
int64_t CapacityCountBytes(const ModelConfig& config, const StepLimits& limits);
// What the engine's sampler keeps for each token of the vocabulary. engine_loop.cc checks that the sampler agrees, as
// the model does not know it.
inline constexpr int64_t kSamplerBytesPerLogit = 40;

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_MEMORY_PLAN_H_
