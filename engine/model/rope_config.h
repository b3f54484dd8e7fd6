// Rotary frequencies from the rope fields of a config.json.
#ifndef CADRE_ENGINE_MODEL_ROPE_CONFIG_H_
#define CADRE_ENGINE_MODEL_ROPE_CONFIG_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model/config_reader.h"
#include "engine/model/model_config.h"

namespace cadre {

// Reads `rope_parameters`, or `rope_theta` with `rope_scaling`; knows the types default, linear, llama3 and yarn.
// INVALID_ARGUMENT for values out of range, UNIMPLEMENTED for any other type (dynamic and longrope change their
// frequencies while a sequence grows) and for partial rotation. `head_dim` is even; `default_theta` is the family's.
//
// Formulas: Su et al. 2021 (RoPE), Chen et al. 2023 (linear), Llama 3.1 (llama3), Peng et al. 2023 (YaRN), each in the
// order of float32 roundings of transformers' modeling_rope_utils.py: an error in the last bit of a frequency grows
// with the position.
absl::StatusOr<RopeConfig> ReadRopeConfig(ConfigReader& config, int64_t head_dim, int64_t max_position_embeddings,
                                          double default_theta);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_ROPE_CONFIG_H_
