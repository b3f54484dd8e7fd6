// How a model begins whose experts are not all in memory.
#ifndef CADRE_SERVER_EXPERT_STARTUP_H_
#define CADRE_SERVER_EXPERT_STARTUP_H_

#include "absl/status/status.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "server/expert_flags.h"
#include "server/model_card.h"

namespace cadre {

// Says what is in memory and what is not, and which flags mean nothing by that.
void LogExpertCache(const MemoryPlan& plan, const CheckpointSummary& checkpoint, const ExpertCacheConfig& config);

// Has the cache filled from the profile that `config` names, if it names one. `card` tells of the model its shape and
// its memory plan. OUT_OF_RANGE names the flag, the file, the field, the value and the limit.
absl::Status UseExpertProfile(const ExpertCacheConfig& config, const ModelCard& card, RunnerOptions* options);

}  // namespace cadre

#endif  // CADRE_SERVER_EXPERT_STARTUP_H_
