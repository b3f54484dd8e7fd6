#include "server/engine_metrics.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

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
  if (!snapshot.orders_ahead) return;
  page.Single(metric::kDiscardedTokens, snapshot.discarded_tokens);
  page.Single(metric::kDiscardedAssignments, snapshot.discarded_assignments);
  page.Single(metric::kStepsAhead, snapshot.steps_ahead);
}

void WriteKvCache(const EngineSnapshot& snapshot, MetricPage& page) {
  page.Begin(metric::kKvBlocks);
  page.Sample({{"state", "free"}}, snapshot.kv_blocks_free);
  page.Sample({{"state", "in_use"}}, snapshot.kv_blocks_in_use);
  page.Sample({{"state", "cached"}}, snapshot.kv_blocks_cached);
  page.Single(metric::kKvBlockEvictions, snapshot.kv_block_evictions);
  page.Single(metric::kRouterBiasUpdates, snapshot.router_bias_updates);
  page.Single(metric::kRouterBiasLargest, static_cast<double>(snapshot.router_bias_largest));
  const double total = snapshot.kv_blocks_total;
  page.Single(metric::kKvCacheUsage, total > 0.0 ? snapshot.kv_blocks_in_use / total : 0.0);
}

void WriteExpertCache(const ExpertCacheReport& report, MetricPage& page) {
  page.Begin(metric::kExpertLookups);
  page.Sample({{"result", "hit"}}, report.slots.hits);
  page.Sample({{"result", "miss"}}, report.slots.misses);
  page.Begin(metric::kExpertLoads);
  page.Sample({{"cause", "miss"}}, report.slots.miss_loads);
  page.Sample({{"cause", "prefetch"}}, report.slots.prefetch_loads);
  page.Sample({{"cause", "placed"}}, report.slots.placed_loads);
  page.Begin(metric::kExpertPrefetches);
  page.Sample({{"result", "used"}}, report.slots.prefetches_used);
  page.Sample({{"result", "late"}}, report.slots.prefetches_late);
  page.Sample({{"result", "wasted"}}, report.slots.prefetches_wasted);
  page.Sample({{"result", "failed"}}, report.slots.prefetches_failed);
  page.Single(metric::kExpertLoadBytes, report.loads.bytes);
  page.Single(metric::kExpertDirectBytes, report.direct_bytes);
  page.Single(metric::kExpertLoadSeconds, absl::ToDoubleSeconds(report.loads.read_time));
  page.Single(metric::kExpertWaitSeconds, absl::ToDoubleSeconds(report.wait_time));
  page.Single(metric::kExpertEvictions, report.slots.evictions);
  page.Single(metric::kExpertLoadErrors, report.loads.errors);
  page.Single(metric::kExpertsMissing, report.missing);
  page.Single(metric::kExpertsQuarantined, report.quarantined);
  page.Single(metric::kExpertsKept, report.kept);
  page.Single(metric::kExpertsAwaited, report.awaited);
  page.Begin(metric::kExpertSlots);
  page.Sample({{"state", "empty"}}, report.empty_slots);
  page.Sample({{"state", "loading"}}, report.loading_slots);
  page.Sample({{"state", "idle"}}, report.idle_slots);
  page.Sample({{"state", "pinned"}}, report.pinned_slots);
}

void WriteMemorySplit(const JointBudgetReport& report, MetricPage& page) {
  const double seconds = std::max(absl::ToDoubleSeconds(report.stretch), 1e-9);
  page.Begin(metric::kMemorySplitBytes);
  page.Sample({{"side", "experts"}}, report.shares.slots * report.limits.slot_bytes);
  page.Sample({{"side", "kv_blocks"}}, report.shares.blocks * report.limits.block_bytes);
  page.Begin(metric::kMemorySplitGain);
  page.Sample({{"side", "experts"}}, report.effects.slots_gain / seconds);
  page.Sample({{"side", "kv_blocks"}}, report.effects.blocks_gain / seconds);
  page.Begin(metric::kMemorySplitLoss);
  page.Sample({{"side", "experts"}}, report.effects.slots_loss / seconds);
  page.Sample({{"side", "kv_blocks"}}, report.effects.blocks_loss / seconds);
  page.Begin(metric::kMemorySplitMoves);
  page.Sample({{"to", "experts"}}, report.moves_to_slots);
  page.Sample({{"to", "kv_blocks"}}, report.moves_to_blocks);
}

}  // namespace

void WriteEngine(const EngineSnapshot& snapshot, MetricPage& page) {
  WriteRequests(snapshot, page);
  WriteTokens(snapshot, page);
  WriteKvCache(snapshot, page);
  if (snapshot.joint_budget) WriteMemorySplit(*snapshot.joint_budget, page);
  if (!snapshot.expert_cache) return;
  WriteExpertCache(*snapshot.expert_cache, page);
  page.Single(metric::kExpertAwarePreferred, snapshot.preferred_sequences);
  page.Single(metric::kExpertAwarePassedOver, snapshot.passed_over);
}

void WriteSpans(const SpanCounts& counts, MetricPage& page) {
  page.Begin(metric::kTraceSpans);
  page.Sample({{"result", "exported"}}, counts.exported);
  page.Sample({{"result", "dropped"}}, counts.dropped);
  page.Sample({{"result", "failed"}}, counts.failed);
}

void WriteWhatIf(const WhatIfReport& report, MetricPage& page) {
  constexpr std::array<const char*, 3> kSizeNames = {"half", "same", "twice"};
  const std::array<int64_t, 3> sizes = WhatIfSizes(report.num_slots, report.num_experts);
  page.Begin(metric::kWhatIfHitRatio);
  for (const std::string_view policy : kWhatIfPolicies) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto row = std::ranges::find_if(
          report.rows, [&](const WhatIfRow& each) { return each.policy == policy && each.num_slots == sizes[i]; });
      const double ratio = row == report.rows.end() || row->result.lookups == 0
                               ? 0.0
                               : static_cast<double>(row->result.hits) / static_cast<double>(row->result.lookups);
      page.Sample({{"policy", policy}, {"size", kSizeNames[i]}}, ratio);
    }
  }
  page.Begin(metric::kWhatIfSlots);
  for (size_t i = 0; i < sizes.size(); ++i) page.Sample({{"size", kSizeNames[i]}}, sizes[i]);
  page.Single(metric::kWhatIfLookups, report.num_lookups);
  page.Single(metric::kWhatIfSimulations, report.num_simulations);
  page.Single(metric::kWhatIfCpuSeconds, absl::ToDoubleSeconds(report.cpu_time));
}

void WriteServedModel(const ServedModel& planned, const EngineSnapshot& snapshot, MetricPage& page) {
  ServedModel model = planned;
  if (snapshot.joint_budget) {
    const JointBudgetReport& budget = *snapshot.joint_budget;
    model.expert_weight_bytes = budget.shares.slots * budget.limits.slot_bytes;
    model.kv_cache_bytes = budget.shares.blocks * budget.limits.block_bytes;
  }
  const std::string layers = std::to_string(model.moe_layers.size());
  const std::string experts = std::to_string(model.num_experts);
  const std::string top_k = std::to_string(model.top_k);
  const std::string block_size = std::to_string(model.kv_block_size);
  const std::string num_blocks = std::to_string(model.num_kv_blocks);
  page.Begin(metric::kModelInfo);
  page.Sample({{"model", model.name},
               {"family", model.family},
               {"dtype", model.dtype},
               {"expert_dtype", model.expert_dtype},
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
