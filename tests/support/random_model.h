// Small models with random weights, built by hand: no checkpoint is involved.
#ifndef CADRE_TESTS_SUPPORT_RANDOM_MODEL_H_
#define CADRE_TESTS_SUPPORT_RANDOM_MODEL_H_

#include <cstdint>
#include <memory>

#include "engine/model/model_config.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "kernels/device.h"
#include "tests/support/memory_experts.h"

namespace cadre {

// Two layers of a family, with its traits turned on and sizes that are no multiples of any tile: D 40, d 10 or 16,
// E 6, F 20, V 101, 256 positions.
ModelConfig SmallConfig(ModelFamily family);

// The same of Qwen3-MoE, wide enough for the tensor cores in bfloat16: D 64, F 32.
ModelConfig WideConfig();

// Normal values scaled so that the residual stream stays near 1 and router choices are clear.
Weights MakeRandomWeights(const ModelConfig& config, DType dtype, uint64_t seed, Device& device);

// What a checkpoint with these sizes would say of itself.
CheckpointSummary SummaryOf(const ModelConfig& config, DType dtype);

// A runner over random weights; ends the process when it cannot be created. With options.expert_cache_bytes below what
// all experts take, they lie in memory of the host that the device reads; where it shares the host's, or
// options.expert_host_bytes does not hold them all, `experts` becomes where they are read from, which is the runner's.
std::unique_ptr<ModelRunner> MakeRandomRunner(const ModelConfig& config, DType dtype, uint64_t seed,
                                              const RunnerOptions& options, Device* device,
                                              MemoryExperts** experts = nullptr);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_RANDOM_MODEL_H_
