// How a model begins whose experts are not all in memory.
#ifndef CADRE_SERVER_EXPERT_STARTUP_H_
#define CADRE_SERVER_EXPERT_STARTUP_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "engine/experts/expert_source.h"
#include "engine/model/model_config.h"
#include "engine/model/model_runner.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "server/expert_flags.h"
#include "server/model_card.h"

namespace cadre {

// Says what is in memory and what is not, and which flags mean nothing by that.
void LogExpertCache(const MemoryPlan& plan, const CheckpointSummary& checkpoint, const ExpertCacheConfig& config);

// What a token of one sequence waits for experts, where a hit is as likely as the share of experts that fit.
struct ExpertSpeed {
  int64_t num_experts = 0;    // of all layers
  int64_t num_slots = 0;      // of these fit
  int64_t token_experts = 0;  // that a token needs, at most: K in each MoE layer
  int64_t expert_bytes = 0;
  int64_t num_probed = 0;       // experts that were read, to measure
  int num_threads = 1;          // so many at a time
  double bytes_per_second = 0;  // then
  // The same experts once more, from the page cache; absent where reads go past it.
  std::optional<double> cached_bytes_per_second = std::nullopt;
};
// In one line.
std::string DescribeSpeed(const ExpertSpeed& speed);
// The same where a device reads over its link what it does not hold: bytes_per_second is the link's.
std::string DescribeLinkSpeed(const ExpertSpeed& speed);

// Reads a few experts of `source` and says that of them. Takes half a second, and five where a single expert takes as
// long; memory for as many experts as are read at a time, no more than the plan has slots for, is given back.
void LogExpertSpeed(const ModelConfig& model, const MemoryPlan& plan, const ExpertCacheConfig& config,
                    const ExpertSource& source);
// Says that of experts in the host's memory, by what `runner` has seen of the link when it filled its slots. Nothing
// where there are none.
void LogLinkSpeed(const ModelConfig& model, const MemoryPlan& plan, const ModelRunner& runner);

// Says so where the system allowed no thread to simulate other caches with.
void LogShadows(const ModelRunner& runner);

// Has the cache filled from the profile that `config` names, if it names one. `card` tells of the model its shape and
// its memory plan. OUT_OF_RANGE names the flag, the file, the field, the value and the limit.
absl::Status UseExpertProfile(const ExpertCacheConfig& config, const ModelCard& card, RunnerOptions* options);

}  // namespace cadre

#endif  // CADRE_SERVER_EXPERT_STARTUP_H_
