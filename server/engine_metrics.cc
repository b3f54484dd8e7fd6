#include "server/engine_metrics.h"

#include <array>
#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace cadre {
namespace {

constexpr std::array<const char*, kNumPriorityClasses> kPriorityClassNames = {"low", "normal", "high"};

void WriteRequests(const EngineSnapshot& snapshot, MetricPage& page) {
  page.Single(metric::kRequestsAdmitted, snapshot.admitted_requests);
  page.Begin(metric::kRequestsFinished);
  page.Sample({{"outcome", "ok"}}, snapshot.finished_ok);
  page.Sample({{"outcome", "cancelled"}}, snapshot.finished_cancelled);
  page.Sample({{"outcome", "deadline"}}, snapshot.finished_deadline);
  page.Sample({{"outcome", "failed"}}, snapshot.finished_failed);
  page.Single(metric::kRequestsWaiting, snapshot.waiting_requests);
  page.Single(metric::kRequestsRunning, snapshot.running_requests);
  page.Begin(metric::kQueueRequests);
  for (int i = 0; i < kNumPriorityClasses; ++i) {
    const auto index = static_cast<size_t>(i);
    page.Sample({{"priority", kPriorityClassNames[index]}}, snapshot.queued_requests[index]);
  }
  page.Single(metric::kPreemptions, snapshot.preemptions);
  page.Single(metric::kMemoryPreemptions, snapshot.memory_preemptions);
  page.Single(metric::kQueueTokens, snapshot.waiting_tokens);
  page.Single(metric::kQueueOldestWait, absl::ToDoubleSeconds(snapshot.oldest_wait));
}

void WriteTokens(const EngineSnapshot& snapshot, MetricPage& page) {
  page.Single(metric::kPromptTokens, snapshot.prompt_tokens);
  page.Single(metric::kPrefixCacheLookupTokens, snapshot.prefix_lookup_tokens);
  page.Single(metric::kPrefixCacheHitTokens, snapshot.prefix_hit_tokens);
  page.Single(metric::kGeneratedTokens, snapshot.generated_tokens);
  page.Begin(metric::kEngineTokens);
  page.Sample({{"phase", "prefill"}}, snapshot.prefill_tokens);
  page.Sample({{"phase", "decode"}}, snapshot.decode_tokens);
  page.Single(metric::kRecomputedTokens, snapshot.recomputed_tokens);
}

void WriteKvCache(const EngineSnapshot& snapshot, MetricPage& page) {
  page.Begin(metric::kKvBlocks);
  page.Sample({{"state", "free"}}, snapshot.kv_blocks_free);
  page.Sample({{"state", "in_use"}}, snapshot.kv_blocks_in_use);
  page.Sample({{"state", "cached"}}, snapshot.kv_blocks_cached);
  page.Single(metric::kKvBlockEvictions, snapshot.kv_block_evictions);
  const double total = snapshot.kv_blocks_total;
  page.Single(metric::kKvCacheUsage, total > 0.0 ? snapshot.kv_blocks_in_use / total : 0.0);
}

}  // namespace

void WriteEngine(const EngineSnapshot& snapshot, MetricPage& page) {
  WriteRequests(snapshot, page);
  WriteTokens(snapshot, page);
  WriteKvCache(snapshot, page);
}

void WriteServedModel(const ServedModel& model, MetricPage& page) {
  const std::string layers = std::to_string(model.moe_layers.size());
  const std::string experts = std::to_string(model.num_experts);
  const std::string top_k = std::to_string(model.top_k);
  const std::string block_size = std::to_string(model.kv_block_size);
  const std::string num_blocks = std::to_string(model.num_kv_blocks);
  page.Begin(metric::kModelInfo);
  page.Sample({{"model", model.name},
               {"family", model.family},
               {"dtype", model.dtype},
               {"layers", layers},
               {"experts", experts},
               {"experts_per_token", top_k},
               {"device", model.device},
               {"kernels", model.kernels}},
              1);
  page.Begin(metric::kKvCacheInfo);
  page.Sample({{"block_size", block_size}, {"num_blocks", num_blocks}, {"dtype", model.kv_dtype}}, 1);
  page.Begin(metric::kMemoryBytes);
  page.Sample({{"pool", "dense_weights"}}, model.dense_weight_bytes);
  page.Sample({{"pool", "expert_weights"}}, model.expert_weight_bytes);
  page.Sample({{"pool", "kv_cache"}}, model.kv_cache_bytes);
  page.Sample({{"pool", "workspace"}}, model.workspace_bytes);
  page.Single(metric::kQueueRequestLimit, model.max_queue_requests);
  page.Single(metric::kRunningRequestLimit, model.max_running_requests);
}

}  // namespace cadre
