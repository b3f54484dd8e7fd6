// Every metric that cadre exports: its name, type and help, declared once. Prefix `cadre_`, base units with the unit
// last, `_total` on counters only; clean under `promtool check metrics`. Labels are closed sets: nothing a client
// chooses ever becomes a label.
#ifndef CADRE_SERVER_METRIC_NAMES_H_
#define CADRE_SERVER_METRIC_NAMES_H_

namespace cadre {

enum class MetricKind { kCounter, kGauge, kHistogram };

struct MetricName {
  MetricKind kind;
  const char* name;
  const char* help;
};

namespace metric {

#define CADRE_COUNTER_(id, name, help) \
  inline constexpr MetricName id { MetricKind::kCounter, name, help }
#define CADRE_GAUGE_(id, name, help) \
  inline constexpr MetricName id { MetricKind::kGauge, name, help }
#define CADRE_HISTOGRAM_(id, name, help) \
  inline constexpr MetricName id { MetricKind::kHistogram, name, help }

// Identity, life cycle, memory.
CADRE_GAUGE_(kBuildInfo, "cadre_build_info", "Build of this server; the value is always 1.");
CADRE_GAUGE_(kModelInfo, "cadre_model_info",
             "Model served, the device and the kernel set in use; the value is always 1.");
CADRE_GAUGE_(kKvCacheInfo, "cadre_kv_cache_info", "Shape of the KV cache; the value is always 1.");
CADRE_GAUGE_(kReady, "cadre_ready", "1 when the model is loaded and new requests are accepted.");
CADRE_GAUGE_(kDraining, "cadre_draining", "1 after a shutdown was asked for.");
CADRE_GAUGE_(kEngineStalled, "cadre_engine_stalled",
             "1 while requests wait or run and no step has finished within the watchdog time.");
CADRE_GAUGE_(kLoadProgress, "cadre_model_load_progress_ratio", "Share of the checkpoint bytes loaded.");
CADRE_GAUGE_(kLoadDuration, "cadre_model_load_duration_seconds", "Time from process start to ready.");
CADRE_GAUGE_(kMemoryBytes, "cadre_memory_bytes", "Memory reserved by each pool.");
CADRE_GAUGE_(kMemoryRoom, "cadre_memory_room_bytes",
             "Host memory that can still be taken before the kernel ends a process, by machine and container.");
CADRE_GAUGE_(kMemoryPressure, "cadre_memory_pressure", "1 while the action is taken for want of host memory.");
CADRE_COUNTER_(kMemoryPressureEntries, "cadre_memory_pressure_entries_total",
               "Times the action began for want of host memory.");

// Requests. received = rejected + admitted once none is being checked; admitted = finished + waiting + running.
CADRE_COUNTER_(kRequestsReceived, "cadre_requests_received_total", "Generation requests that reached the service.");
CADRE_COUNTER_(kRequestsRejected, "cadre_requests_rejected_total", "Requests refused before the engine took them.");
CADRE_COUNTER_(kRequestsAdmitted, "cadre_requests_admitted_total",
               "Requests the engine took; each ends exactly once in cadre_requests_finished_total.");
CADRE_COUNTER_(kRequestsFinished, "cadre_requests_finished_total", "Admitted requests that ended, by outcome.");
CADRE_GAUGE_(kRequestsWaiting, "cadre_requests_waiting",
             "Admitted requests that hold no place in the batch, preempted ones included.");
CADRE_GAUGE_(kRequestsRunning, "cadre_requests_running", "Admitted requests in the batch.");
CADRE_COUNTER_(kCompletions, "cadre_completions_total",
               "Sequences that ended normally, by the reason told to the client.");
CADRE_GAUGE_(kQueueRequests, "cadre_queue_requests", "Requests that wait for their first step, by class of priority.");
CADRE_COUNTER_(kPreemptions, "cadre_preemptions_total", "Sequences put back to waiting, to free KV blocks or memory.");
CADRE_COUNTER_(kMemoryPreemptions, "cadre_memory_preemptions_total",
               "Of these, sequences put back for want of host memory.");
CADRE_COUNTER_(kCallsCutOff, "cadre_calls_cut_off_total",
               "Calls of any method that were cancelled because their clients did not take what was sent to them.");
CADRE_GAUGE_(kOutboxBytes, "cadre_stream_outbox_bytes", "Bytes waiting in all response streams for slow readers.");

// Security.
CADRE_COUNTER_(kCallsRefused, "cadre_calls_refused_total", "Calls of any method that were refused at the door.");
CADRE_COUNTER_(kTenantLimited, "cadre_tenant_limit_refusals_total",
               "Generation requests refused because their tenant sends too many, by limit.");
CADRE_COUNTER_(kFileReloads, "cadre_file_reloads_total",
               "Times a changed file was read again; after a failed one its content of before goes on.");

CADRE_GAUGE_(kFileWrong, "cadre_file_wrong",
             "1 while a file that may change says what cannot be taken; its content of before goes on.");
CADRE_GAUGE_(kCertificateExpiry, "cadre_tls_certificate_expiry_timestamp_seconds",
             "When the first certificate of the chain in use expires, in seconds since 1970.");

// Tokens.
CADRE_COUNTER_(kPromptTokens, "cadre_prompt_tokens_total", "Prompt tokens of requests that reached their first step.");
CADRE_COUNTER_(kPrefixCacheLookupTokens, "cadre_prefix_cache_lookup_tokens_total",
               "Prompt tokens looked up in the prefix cache, once for each sequence.");
CADRE_COUNTER_(kPrefixCacheHitTokens, "cadre_prefix_cache_hit_tokens_total",
               "Prompt tokens found in the prefix cache: they were not computed again.");
CADRE_COUNTER_(kGeneratedTokens, "cadre_generated_tokens_total", "Tokens delivered to clients.");
CADRE_COUNTER_(kEngineTokens, "cadre_engine_tokens_total", "Token rows run through the model, recomputation included.");
CADRE_COUNTER_(kRecomputedTokens, "cadre_recomputed_tokens_total", "Token rows run again after a preemption.");
CADRE_COUNTER_(kDiscardedTokens, "cadre_discarded_tokens_total",
               "Token rows of sequences that ended while the rows were run; in no other count of rows.");
CADRE_COUNTER_(kDiscardedAssignments, "cadre_discarded_assignments_total",
               "Assignments of those rows: counted for experts, and for no request or tenant.");
CADRE_COUNTER_(kStepsAhead, "cadre_steps_ahead_total", "Steps that were ordered before the step in front had ended.");

// Latency.
CADRE_HISTOGRAM_(kTimeToFirstToken, "cadre_time_to_first_token_seconds",
                 "From arrival to the first token handed to the stream.");
CADRE_HISTOGRAM_(kInterTokenLatency, "cadre_inter_token_latency_seconds",
                 "Gap between two deliveries of one sequence, divided by the tokens in the later one.");
CADRE_HISTOGRAM_(kRequestDuration, "cadre_request_duration_seconds",
                 "From arrival to the end of an admitted request, any outcome.");
CADRE_HISTOGRAM_(kQueueWait, "cadre_queue_wait_seconds", "From arrival to the first step that contains the request.");
CADRE_HISTOGRAM_(kTimePerOutputToken, "cadre_time_per_output_token_seconds",
                 "Mean time per token after the first, one value per finished sequence.");
CADRE_HISTOGRAM_(kPrefillDuration, "cadre_prefill_duration_seconds",
                 "From the first step of a request to its first token.");
CADRE_HISTOGRAM_(kDecodeDuration, "cadre_decode_duration_seconds", "From the first token to the end.");

// Scheduler, steps and KV cache.
CADRE_COUNTER_(kSteps, "cadre_steps_total", "Engine steps, by what they held.");
CADRE_HISTOGRAM_(kStepDuration, "cadre_step_duration_seconds", "Duration of an engine step.");
CADRE_HISTOGRAM_(kStepTokens, "cadre_step_tokens", "Token rows of a step.");
CADRE_HISTOGRAM_(kStepSequences, "cadre_step_sequences", "Sequences of a step: the batch size.");
CADRE_HISTOGRAM_(kRequestPromptTokens, "cadre_request_prompt_tokens", "Prompt length of finished requests.");
CADRE_HISTOGRAM_(kRequestGeneratedTokens, "cadre_request_generated_tokens", "Tokens generated per finished sequence.");
CADRE_GAUGE_(kQueueTokens, "cadre_queue_tokens", "Prompt tokens of waiting requests.");
CADRE_GAUGE_(kQueueOldestWait, "cadre_queue_oldest_wait_seconds", "Age of the oldest waiting request.");
CADRE_GAUGE_(kQueueRequestLimit, "cadre_queue_request_limit", "Waiting requests allowed before new ones are refused.");
CADRE_GAUGE_(kRunningRequestLimit, "cadre_running_request_limit", "Largest batch the engine will run.");
CADRE_GAUGE_(kKvBlocks, "cadre_kv_blocks", "KV blocks by state; the sum is the pool.");
CADRE_COUNTER_(kKvBlockEvictions, "cadre_kv_block_evictions_total", "Cached KV blocks given to another sequence.");
CADRE_GAUGE_(kKvCacheUsage, "cadre_kv_cache_usage_ratio", "KV blocks in use divided by all blocks.");

CADRE_COUNTER_(kTraceSpans, "cadre_trace_spans_total", "Spans of calls that were traced, by what became of them.");

// The expert cache; absent where all experts are in memory. lookups = hits + misses.
CADRE_COUNTER_(kExpertLookups, "cadre_expert_lookups_total",
               "Experts that a layer of a step needed, by whether they were in memory.");
CADRE_COUNTER_(kExpertLoads, "cadre_expert_loads_total", "Reads of experts that were begun, by cause.");
CADRE_COUNTER_(kExpertPrefetches, "cadre_expert_prefetches_total",
               "Experts read ahead: there when first needed, still travelling then, or put out before.");
CADRE_COUNTER_(kExpertDirectBytes, "cadre_expert_direct_bytes_total",
               "Bytes of the experts that the device computed with where they lie in the host's memory.");
CADRE_COUNTER_(kExpertLoadBytes, "cadre_expert_load_bytes_total", "Bytes of the experts that were read.");
CADRE_COUNTER_(kExpertLoadSeconds, "cadre_expert_load_seconds_total", "Time spent reading, summed over reads.");
CADRE_COUNTER_(kExpertWaitSeconds, "cadre_expert_wait_seconds_total", "Time that steps stood still for experts.");
CADRE_COUNTER_(kExpertEvictions, "cadre_expert_evictions_total", "Experts that gave way to others.");
CADRE_COUNTER_(kExpertLoadErrors, "cadre_expert_load_errors_total",
               "Reads of experts that failed or gave other bytes than the first time, repeated ones included.");
CADRE_COUNTER_(kExpertsMissing, "cadre_experts_missing_total",
               "Experts that a layer of a step needed and that could not be read.");
CADRE_GAUGE_(kExpertsQuarantined, "cadre_experts_quarantined",
             "Experts that could not be read and are not tried again yet.");
CADRE_GAUGE_(kExpertsKept, "cadre_experts_kept", "Experts that do not give way once they are in memory.");
CADRE_GAUGE_(kExpertsAwaited, "cadre_experts_awaited",
             "Experts of the profile or kept ones that are to be read before anybody needs them.");
CADRE_COUNTER_(kExpertAwarePreferred, "cadre_expert_aware_preferred_total",
               "Sequences that started before earlier ones because more of their experts were in memory.");
CADRE_COUNTER_(kExpertAwarePassedOver, "cadre_expert_aware_passed_over_total",
               "Times that a sequence was passed over by one of these.");
CADRE_GAUGE_(kExpertSlots, "cadre_expert_slots", "Places of experts in memory by state; the sum is the cache.");

// The same by layer, on the page of experts.
CADRE_COUNTER_(kLayerExpertLookups, "cadre_layer_expert_lookups_total",
               "Experts that the layer needed, by whether they were in memory.");
CADRE_COUNTER_(kLayerExpertLoads, "cadre_layer_expert_loads_total", "Experts of the layer that were brought in.");
CADRE_COUNTER_(kLayerExpertEvictions, "cadre_layer_expert_evictions_total",
               "Experts of the layer that gave way to others, of any layer.");
CADRE_COUNTER_(kLayerExpertPrefetches, "cadre_layer_expert_prefetches_total",
               "Experts of the layer that were read ahead, by what became of it.");
CADRE_COUNTER_(kLayerExpertWaitSeconds, "cadre_layer_expert_wait_seconds_total",
               "Time that steps stood still in the layer for experts.");
CADRE_GAUGE_(kLayerExperts, "cadre_layer_experts", "Experts of the layer by where they are; the sum is all of them.");

// One budget of experts and KV blocks; absent where it is not split anew while the server runs.
CADRE_GAUGE_(kMemorySplitBytes, "cadre_memory_split_bytes", "What either side has of the memory that both share.");
CADRE_GAUGE_(kMemorySplitGain, "cadre_memory_split_gain_ratio",
             "Share of the engine's time that one step of memory more would have saved of late, by side.");
CADRE_GAUGE_(kMemorySplitLoss, "cadre_memory_split_loss_ratio",
             "Share of the engine's time that one step of memory fewer would have cost of late, by side.");
CADRE_COUNTER_(kMemorySplitMoves, "cadre_memory_split_moves_total", "Moves of a step of memory, by who got it.");

// What other caches would have made of the latest steps; absent with the cache.
CADRE_GAUGE_(kWhatIfHitRatio, "cadre_expert_what_if_hit_ratio",
             "Hits per lookup of a simulated expert cache of another policy or size; belady is the best possible.");
CADRE_GAUGE_(kWhatIfSlots, "cadre_expert_what_if_slots", "Places of the simulated expert cache.");
CADRE_GAUGE_(kWhatIfLookups, "cadre_expert_what_if_lookups", "Lookups of the latest steps that were simulated.");
CADRE_COUNTER_(kWhatIfSimulations, "cadre_expert_what_if_simulations_total",
               "Simulations of the latest steps that have ended.");
CADRE_COUNTER_(kWhatIfCpuSeconds, "cadre_expert_what_if_cpu_seconds_total",
               "Processor time that simulations have taken.");

// Routing, summed over MoE layers. Assignments over all states = choices of the routers, within every page: experts per
// token x tokens, or less where their number varies.
CADRE_COUNTER_(kRoutingTokens, "cadre_routing_tokens_total", "Tokens routed, summed over MoE layers.");
CADRE_COUNTER_(kRoutingAssignments, "cadre_routing_assignments_total",
               "Routed assignments (token x chosen expert) by final state.");
CADRE_COUNTER_(kRoutingLostGateWeight, "cadre_routing_lost_gate_weight_total",
               "Sum of the routing weights of assignments that were reweighted or dropped.");

CADRE_COUNTER_(kRouterBiasUpdates, "cadre_router_bias_updates_total",
               "Windows after which the routers' selection bias was nudged.");
CADRE_GAUGE_(kRouterBiasLargest, "cadre_router_bias_largest_nudge",
             "How far the farthest selection bias is from the checkpoint's.");
CADRE_GAUGE_(kRoutingUnaccounted, "cadre_routing_unaccounted_assignments",
             "Assignments that are in none of the four states, or in two; 0 unless the server counts wrongly.");

// Router health over layers, in the sliding window.
CADRE_GAUGE_(kRouterLoadEntropy, "cadre_router_load_entropy_ratio", "Entropy of expert load divided by log E.");
CADRE_GAUGE_(kRouterGateEntropy, "cadre_router_gate_entropy_ratio",
             "Entropy of mean gate probabilities divided by log E.");
CADRE_GAUGE_(kRouterLoadImbalance, "cadre_router_load_imbalance_ratio",
             "Busiest expert's load divided by the mean load; 1 is perfect.");
CADRE_GAUGE_(kRouterUnusedExperts, "cadre_router_unused_experts", "Experts without a token in the window.");
CADRE_GAUGE_(kRouterEffectiveExperts, "cadre_router_effective_experts",
             "Experts that would have the same entropy with equal loads.");
CADRE_GAUGE_(kRouterConcentration, "cadre_router_concentration_ratio",
             "Share of the load that the busiest experts carry, mean over layers.");
CADRE_GAUGE_(kRouterDeadExperts, "cadre_router_dead_experts",
             "Experts without load where ten assignments were to be expected, all layers.");
CADRE_GAUGE_(kRouterHotExperts, "cadre_router_hot_experts",
             "Experts with more than three times the mean load of their layer, all layers.");
CADRE_GAUGE_(kRouterCollapsedLayers, "cadre_router_collapsed_layers",
             "Layers whose router sends everything to a few experts.");
CADRE_GAUGE_(kRouterDrift, "cadre_router_drift_ratio",
             "Jensen-Shannon divergence of the load from the imported profile's; 0 without one.");
CADRE_GAUGE_(kRouterHasBaseline, "cadre_router_has_baseline",
             "1 when a profile was imported to measure drift against.");
CADRE_GAUGE_(kRouterLoadVariation, "cadre_router_load_variation_ratio", "Coefficient of variation of expert load.");
CADRE_GAUGE_(kRouterBalanceLoss, "cadre_router_balance_loss",
             "E times the sum of load share times mean probability; 1 at uniform.");
CADRE_GAUGE_(kRouterZLoss, "cadre_router_z_loss", "Mean squared logsumexp of the router logits.");
CADRE_GAUGE_(kRouterWorstLayer, "cadre_router_worst_layer", "MoE layer with the highest load imbalance.");
CADRE_GAUGE_(kRouterWindowTokens, "cadre_router_window_tokens", "Tokens in the sliding window.");

// Hottest and coldest experts, in the sliding window. Layer and expert are values, so that series never churn.
CADRE_GAUGE_(kExtremeLoad, "cadre_expert_extreme_load_ratio",
             "Load of the ranked expert divided by the mean load of its layer.");
CADRE_GAUGE_(kExtremeLayer, "cadre_expert_extreme_layer", "Layer of the ranked expert; ties by layer, then expert.");
CADRE_GAUGE_(kExtremeId, "cadre_expert_extreme_id", "Number of the ranked expert in its layer.");

// One layer each. Gauges over the sliding window, counters in total.
CADRE_GAUGE_(kLayerLoadEntropy, "cadre_layer_load_entropy_ratio",
             "Entropy of the layer's expert load divided by log E.");
CADRE_GAUGE_(kLayerGateEntropy, "cadre_layer_gate_entropy_ratio",
             "Entropy of the layer's mean gate probabilities divided by log E.");
CADRE_GAUGE_(kLayerLoadImbalance, "cadre_layer_load_imbalance_ratio",
             "Busiest expert's load divided by the layer's mean.");
CADRE_GAUGE_(kLayerLoadVariation, "cadre_layer_load_variation_ratio",
             "Coefficient of variation of the layer's expert load.");
CADRE_GAUGE_(kLayerBalanceLoss, "cadre_layer_balance_loss", "Balance loss of the layer.");
CADRE_GAUGE_(kLayerZLoss, "cadre_layer_z_loss", "z-loss of the layer.");
CADRE_GAUGE_(kLayerUnusedExperts, "cadre_layer_unused_experts", "Experts of the layer without a token in the window.");
CADRE_GAUGE_(kLayerEffectiveExperts, "cadre_layer_effective_experts",
             "Experts of the layer that would have the same entropy with equal loads.");
CADRE_GAUGE_(kLayerDeadExperts, "cadre_layer_dead_experts",
             "Experts of the layer without load where ten assignments were to be expected.");
CADRE_GAUGE_(kLayerHotExperts, "cadre_layer_hot_experts",
             "Experts of the layer with more than three times its mean load.");
CADRE_GAUGE_(kLayerDrift, "cadre_layer_drift_ratio",
             "Jensen-Shannon divergence of the layer's load from the imported profile's; 0 without one.");
CADRE_GAUGE_(kLayerCollapsed, "cadre_layer_collapsed", "1 while the layer's router sends everything to a few experts.");
CADRE_COUNTER_(kLayerTokens, "cadre_layer_tokens_total", "Tokens routed in the layer.");
CADRE_COUNTER_(kLayerAssignments, "cadre_layer_assignments_total", "Assignments of the layer by final state.");

// The matrix: one layer and expert each, in total.
CADRE_COUNTER_(kExpertAssignments, "cadre_expert_assignments_total", "Assignments of the expert by final state.");
CADRE_COUNTER_(kExpertGateWeight, "cadre_expert_gate_weight_total",
               "Sum of the routing weights of the expert's assignments.");
CADRE_COUNTER_(kExpertLostGateWeight, "cadre_expert_lost_gate_weight_total",
               "Of it, the weights of assignments that were reweighted or dropped.");

// By tenant.
CADRE_COUNTER_(kTenantAssignments, "cadre_tenant_assignments_total",
               "Assignments of the tenant's requests by final state.");
CADRE_COUNTER_(kTenantGateWeight, "cadre_tenant_gate_weight_total",
               "Sum of the routing weights of the tenant's assignments.");
CADRE_COUNTER_(kTenantLostGateWeight, "cadre_tenant_lost_gate_weight_total",
               "Of it, the weights of assignments that were reweighted or dropped.");

// The server itself.
CADRE_GAUGE_(kRenderDuration, "cadre_metrics_render_duration_seconds", "Time to render the previous page.");
CADRE_COUNTER_(kProcessCpu, "process_cpu_seconds_total", "User and system CPU time.");
CADRE_GAUGE_(kProcessResidentMemory, "process_resident_memory_bytes", "Resident memory.");
CADRE_GAUGE_(kProcessOpenFds, "process_open_fds", "Open file descriptors.");
CADRE_GAUGE_(kProcessMaxFds, "process_max_fds", "Limit of open file descriptors.");
CADRE_GAUGE_(kProcessStartTime, "process_start_time_seconds", "Start time since the Unix epoch.");

#undef CADRE_COUNTER_
#undef CADRE_GAUGE_
#undef CADRE_HISTOGRAM_

}  // namespace metric
}  // namespace cadre

#endif  // CADRE_SERVER_METRIC_NAMES_H_
