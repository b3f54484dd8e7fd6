// Weights of any size without a checkpoint: random values, made as fast as they can be sent to the device.
#ifndef CADRE_TESTS_BENCH_RANDOM_WEIGHTS_H_
#define CADRE_TESTS_BENCH_RANDOM_WEIGHTS_H_

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "kernels/device.h"

namespace cadre {

// What RandomWeights(config) will take.
CheckpointSummary RandomWeightsSummary(const ModelConfig& config);

// bfloat16. Matrices are normal with a variance of 1 / inputs, the router's of 4 / inputs (clear choices); norms lie
// around 1 and biases around 0. They are cut from one run of random values, each at another place: equal on every
// device. RESOURCE_EXHAUSTED when they do not fit. REQUIRES: `experts` are in one of the memories.
absl::StatusOr<Weights> RandomWeights(const ModelConfig& config, Device& device,
                                      ExpertPlace experts = ExpertPlace::kDevice);

}  // namespace cadre

#endif  // CADRE_TESTS_BENCH_RANDOM_WEIGHTS_H_
