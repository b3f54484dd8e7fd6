// The selection bias of routers, where a checkpoint stores it: the e_score_correction_bias [E] of each MoE layer, as
// DeepSeek-V3 has it.
#ifndef CADRE_ENGINE_MODEL_STORED_SELECTION_BIAS_H_
#define CADRE_ENGINE_MODEL_STORED_SELECTION_BIAS_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint_files.h"
#include "engine/model/model_config.h"

namespace cadre {

// Whether `name` is the selection bias of a MoE layer of the model.
bool IsSelectionBias(const ModelConfig& config, std::string_view name);
// Whether the routing scheme has a place for one: "sigmoid-bias" and "group-limited".
bool TakesSelectionBias(const ModelConfig& config);

// [MoE layers, E], or empty where none is stored, the scheme takes none, or the setting `selection_bias` gives another:
// then what is stored is not looked at. INVALID_ARGUMENT names file, tensor and
// reason: only some layers have one, another shape, a number that the setting `selection_bias` could not be.
absl::StatusOr<std::vector<float>> ReadSelectionBias(const CheckpointFiles& files, const ModelConfig& config);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_STORED_SELECTION_BIAS_H_
