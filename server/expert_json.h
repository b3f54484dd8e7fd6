// The counters of all experts as JSON, for the page /experts.
#ifndef CADRE_SERVER_EXPERT_JSON_H_
#define CADRE_SERVER_EXPERT_JSON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/experts/expert_cache.h"
#include "engine/experts/expert_stats.h"
#include "engine/experts/routing_profile.h"

namespace cadre {

// Cells, layers x experts, that are told at most; whole layers beyond that are left out, and it says how many. A cell
// takes about 20 bytes, so that no answer is longer than a few megabytes.
inline constexpr int64_t kMaxExpertJsonCells = 65536;

// {"model", "time", "num_experts", "top_k", "omitted_layers", "layers": [...]}, of the window or of the totals. A list
// that would hold nothing but zeros is left out. `moe_layers` are the indices in the model of the snapshot's layers,
// `seconds` is the time of a clock that is never set. "cache", since the start, is there where not all experts are in
// device memory: {"slots", "hits", "misses", "loaded_bytes", "wait_seconds", "evictions", "prefetches_used",
// "prefetches_late", "prefetches_wasted", "quarantined"}.
std::string ExpertJson(std::string_view model, const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers,
                       bool window, double seconds, const std::optional<ExpertCacheReport>& cache = std::nullopt);
// {"classes": [names], "layers": [{"layer", "kinds": [[class, percent, class, percent, ...] of each expert]}]}: of
// which kinds the tokens are that went to each expert, the most frequent kinds first, at most kKindsOfExpert; empty for
// one that none of the tokens that were looked at went to. Layers as above.
inline constexpr size_t kKindsOfExpert = 3;
std::string ExpertKindsJson(const ProfileCounts& counts, const std::vector<int32_t>& moe_layers);
// The same as ExpertJson before there is a model.
std::string EmptyExpertJson(double seconds);

}  // namespace cadre

#endif  // CADRE_SERVER_EXPERT_JSON_H_
