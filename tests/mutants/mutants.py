"""The seeded bugs: each is a change of one place in the code, and the tests that have to notice it.

`old` stands exactly once in its file; tidy_test sees to that, so that code which moves takes its mutant along.
"""

from expert_cache_mutants import EXPERT_CACHE_MUTANTS
from gateway_mutants import GATEWAY_MUTANTS
from mutant import Mutant
from quantization_mutants import QUANTIZATION_MUTANTS
from routing_mutants import ROUTING_MUTANTS
from scheduling_mutants import SCHEDULING_MUTANTS
from security_mutants import SECURITY_MUTANTS

MUTANTS = [
    # ---- experts that are not all in memory ----
    Mutant(
        "an expert whose bytes have changed is taken",
        "engine/experts/expert_loader.cc",
        "  if (*first == checksum) return absl::OkStatus();\n",
        "  if (first.has_value()) return absl::OkStatus();\n",
        "expert_cache_test", "ExpertCacheTest.OtherBytesThanTheFirstTimeAreAnError"),
    Mutant(
        "an expert that could not be read is tried again at once",
        "engine/experts/expert_cache.cc",
        "{.until = clock_->Now() + length,",
        "{.until = clock_->Now(),",
        "expert_cache_test", "ExpertCacheTest.AQuarantined*"),
    Mutant(
        "a step waits for a stuck read each time",
        "engine/experts/expert_cache.cc",
        "  return stalled_.contains(id) || clock_->Now() < quarantine.until;\n",
        "  return !stalled_.contains(id) && clock_->Now() < quarantine.until;\n",
        "expert_cache_test", "ExpertCacheTest.AReadThatDoesNotEndIsWaitedForOnce"),
    Mutant(
        "what an expert that is missing left behind is mixed in",
        "engine/model/cached_experts.cc",
        "    weights[a] = 0.0f;\n",
        "    weights[a] *= 1.0f;\n",
        "cached_experts_test", "CachedExpertsFaultTest.WhatIsMissingIsNotMixedIn"),
    Mutant(
        "a lost assignment stays counted as processed",
        "engine/model/step_faults.cc",
        "    --routing->states[(layer * kStates + was) * num_experts + expert];\n",
        "",
        "cached_experts_test", "CachedExpertsFaultTest.WhoDoesNotNeedTheExpertSeesNothing"),
    # ---- what experts do ----
    Mutant(
        "a collapse is over as soon as it would not begin",
        "engine/experts/collapse_detector.cc",
        "  if (freedom > kRecoverAbove) collapsed_[layer] = 0;\n",
        "  if (freedom > kCollapseBelow) collapsed_[layer] = 0;\n",
        "router_health_test", "CollapseDetector.RemembersBetweenItsThresholds"),
    Mutant(
        "a collapse hides behind limits on experts",
        "engine/experts/expert_stats.cc",
        "    collapse.Observe(i, chosen.subspan(i * experts, experts), closed_sum.tokens);\n",
        "    const std::vector<int64_t> computed = ComputedLoads(closed_sum.PerLayer()[i]);\n"
        "    collapse.Observe(i, std::span(computed).first(experts), closed_sum.tokens);\n",
        "router_health_test", "Shapes/LimitedCollapseTest.*"),
    Mutant(
        "drift is measured against the load itself",
        "engine/experts/load_distribution.cc",
        "x * std::log2(2.0 * x / (x + y))",
        "x * std::log2(x / (x + y))",
        "router_health_test", "JensenShannonDivergence.*"),
    Mutant(
        "transitions lead from a layer to itself",
        "engine/experts/routing_profile.cc",
        "    if (layer > 0) before = expert_ids.subspan(((layer - 1) * num_tokens",
        "    if (layer > 0) before = expert_ids.subspan((layer * num_tokens",
        "router_health_test", "RoutingProfile.CountsAsAPlainCountDoes"),
    Mutant(
        "one watcher more than the limit is served",
        "server/call_place.h",
        "places_->count.fetch_add(1) < limit",
        "places_->count.fetch_add(1) <= limit",
        "services_test", "WatchersTest.AreAtMostAsManyAsTheLimit"),
    Mutant(
        "a watcher that has gone keeps its place",
        "server/call_place.h",
        "  ~CallPlace() { places_->count.fetch_sub(1); }\n",
        "  ~CallPlace() = default;\n",
        "services_test", "WatchersTest.AreAtMostAsManyAsTheLimit"),
    Mutant(
        "a profile of another model is taken over",
        "server/translate_profile.cc",
        "  if (wire.num_experts() != card.limits.num_experts) {\n",
        "  if (wire.num_experts() < 0) {\n",
        "server_units_test", "TranslateProfile.RefusesOtherModelsByName"),
    Mutant(
        "a watcher's first delta does not know of resets",
        "server/stats_stream.cc",
        "      fill(last_ == nullptr ? now->experts.total :",
        "      fill(last_ == nullptr ? now->experts.lifetime :",
        "services_test", "WatchersTest.DeltasBeginWithTheLastReset"),
    Mutant(
        "statistics do not know of an answer that was just given",
        "server/model_host.cc",
        "  if (experts_num_ended_ >= num_ended) return experts_;\n",
        "  if (experts_num_ended_ <= num_ended) return experts_;\n",
        "services_test", "SharedStatsTest.KnowEveryAnswer"),
    Mutant(
        "whoever asks for statistics holds the engine up as often as they like",
        "server/model_host.cc",
        "IsYounger(experts_time_, kMinExpertsAge) ? nullptr : CopyExperts()",
        "CopyExperts()",
        "services_test", "SharedStatsTest.ACopyForNewAnswers*"),
    Mutant(
        "a property that one part of allOf does not list is free of its additionalProperties",
        "engine/structured/schema_merge.cc",
        "    if (!listed.contains(name)) property = Both(",
        "    if (listed.contains(name)) property = Both(",
        "structured_test", "JsonSchemaTest.*"),
    Mutant(
        "bounds beside an enum are forgotten",
        "engine/structured/schema_values.cc",
        "  if (value.is_number()) return IsWithinBounds(keywords.bounds, value);\n",
        "  if (value.is_number()) return value != 0 || IsWithinBounds(keywords.bounds, value);\n",
        "structured_test", "JsonSchemaTest.*"),
    Mutant(
        "a long string is copied to every property for the price of a short one",
        "engine/structured/schema_merge.cc",
        "  if (json.is_string()) return kStepsPerValue + kStepsPerByte * ",
        "  if (json.is_string()) return kStepsPerValue + 0 * ",
        "structured_test", "SchemaMergeTest.*"),
    Mutant(
        "an empty list of patterns frees the properties of other parts",
        "engine/structured/schema_merge.cc",
        "  return schema.contains(\"patternProperties\") && !schema[\"patternProperties\"].empty();\n",
        "  return schema.contains(\"patternProperties\");\n",
        "structured_test", "SchemaMergeTest.*"),
    # ---- limited experts ----
    Mutant(
        "an expert takes one more than it has places",
        "kernels/cpu/capacity.cc",
        "    const bool has_place = count < capacity.places;\n",
        "    const bool has_place = count <= capacity.places;\n",
        "capacity_test", "*RandomWorldsAreAsTheReferenceSays*"),
    Mutant(
        "a group begins with the places that the one before has taken",
        "kernels/cpu/capacity.cc",
        "    if (call_.positions[t] % capacity.group == 0) std::fill_n(taken, call_.num_experts, 0);\n",
        "    if (call_.positions[t] == 0) std::fill_n(taken, call_.num_experts, 0);\n",
        "capacity_test", "*RandomWorldsAreAsTheReferenceSays*"),
    Mutant(
        "a cached prompt is resumed in the middle of a group",
        "engine/schedule/scheduler.cc",
        "  while (num_found() > shareable || num_found() % group != 0) found.pop_back();\n",
        "  while (num_found() > shareable && group > 0) found.pop_back();\n",
        "engine_capacity_test", "*AHitIsAMiss*:*ChunksAndPreemptionChangeNothing*"),
    Mutant(
        "cached prompts are shared under any limits",
        "engine/cache_domain.cc",
        "  if (domain.empty() || !policy.is_on()) return domain;\n",
        "  if (domain.size() < 100000 || !policy.is_on()) return domain;\n",
        "engine_capacity_test", "*AHitIsAMiss*"),
    Mutant(
        "a preempted sequence keeps its slot",
        "engine/engine_loop.cc",
        "  for (SequenceId id : plan.preempted) capacity_slots_.Release(id);\n",
        "",
        "engine_capacity_test", "*ChunksAndPreemptionChangeNothing*"),
    Mutant(
        "lost assignments are added with what was in memory",
        "kernels/cpu/capacity.cc",
        "      std::fill_n(call_.outputs.data<float>() + a * d, d, 0.0f);\n",
        "      std::fill_n(call_.outputs.data<float>() + a * d, d - 1, 0.0f);\n",
        "capacity_test", "*RandomWorldsAreAsTheReferenceSays*"),
    Mutant(
        "a sequence goes on with places that others have taken",
        "engine/capacity_slots.cc",
        "    CADRE_CHECK_EQ(chunk.begin % group, 0);\n",
        "    CADRE_CHECK_GE(group, 1);\n",
        "engine_capacity_test", "CapacitySlotsDeathTest.*"),
    Mutant(
        "the account of whoever does most gives way",
        "engine/tenant_ledger.cc",
        "std::tie(one.recent, one.last_use) < std::tie(other.recent, other.last_use)",
        "std::tie(one.recent, one.last_use) > std::tie(other.recent, other.last_use)",
        "engine_capacity_test", "TenantLedgerTest.*"),
    Mutant(
        "who wants to know all choices finds a prompt computed",
        "engine/cache_domain.cc",
        "  if (request.wants_routed_experts) return \"\";\n",
        "",
        "engine_routed_experts_test", "*NothingIsFoundAndNothingIsLeft*"),
    Mutant(
        "a choice that was not made is told as devices mark it",
        "engine/routing_record.cc",
        "return std::max(id, kNoExpert); ",
        "return id; ",
        "engine_routing_test", "*ToldExpertsAreThoseThatAreCounted*"),
    Mutant(
        "what a nudged router computed is found after its reset",
        "engine/router_bias.cc",
        "  ++epoch_;\n",
        "",
        "engine_routing_test", "*AResetLeavesNothingInTheCache*"),
    Mutant(
        "rows that no group fits into count as seats",
        "engine/engine_loop.cc",
        "std::max(limits_.prompt_group, 1);\n",
        "1;\n",
        "engine_admission_test", "*RowsThatNoGroupFitsIntoAreNoSeats*"),
    # ---- blocks of the KV cache ----
    Mutant(
        "one block of a thousand is never given back",
        "engine/schedule/block_pool.cc",
        "  } else {\n    SetFree(block);\n",
        "  } else if (static int32_t num_released = 0; ++num_released % 1000 != 0) {\n    SetFree(block);\n",
        "scheduler_simulation_test", "*EveryArrivalEndsAndEveryAuditIsClean*"),
    Mutant(
        "a block that is taken away is given out again by its last holder",
        "engine/schedule/block_pool.cc",
        "  if (is_usable(block)) {\n    free_.push_back(block);\n",
        "  if (is_usable(block) || num_withdrawn_ >= 0) {\n    free_.push_back(block);\n",
        "scheduler_simulation_test", "*EveryArrivalEndsAndEveryAuditIsClean*"),
    Mutant(
        "a preempted sequence is thought to give blocks that are taken away",
        "engine/schedule/scheduler_plan.cc",
        "if (is_last && scheduler_.pool_->is_usable(block)) ++free_blocks_;",
        "if (is_last) ++free_blocks_;",
        "scheduler_simulation_test", "*EveryArrivalEndsAndEveryAuditIsClean*"),
    Mutant(
        "a request is promised blocks that may be taken away",
        "engine/schedule/scheduler.cc",
        "static_cast<int64_t>(options_.max_sequence_blocks) * options_.block_size",
        "static_cast<int64_t>(pool_->num_total()) * options_.block_size",
        "scheduler_test", "SchedulerTest.NoSequenceIsPromisedMoreBlocksThanThereAlwaysAre"),
    Mutant(
        "blocks of a request with NaN logits are reused as they are",
        "engine/engine_loop.cc",
        "  if (!blocks.empty()) ScrubBlocks(blocks);\n",
        "",
        "engine_prefix_test", "EnginePrefixTest.ARequestWithNanLogitsFailsAloneAndIsScrubbed"),
    Mutant(
        "blocks are found by their hash alone",
        "engine/schedule/prefix_cache.cc",
        "candidate.parent == parent && std::ranges::equal(TokensOf(block), tokens) &&",
        "candidate.parent == parent && TokensOf(block).size() == tokens.size() &&",
        "scheduler_test", "PrefixCacheTest.*"),
    Mutant(
        "one tenant finds the blocks of another",
        "engine/schedule/prefix_cache.cc",
        "(parent != kNone || *candidate.domain == domain)",
        "(parent != kNone || candidate.domain != nullptr || domain.empty())",
        "scheduler_test", "PrefixCacheTest.*"),
    Mutant(
        "the last token of a prompt is taken from the cache too",
        "engine/schedule/prefix_cache.cc",
        "static_cast<size_t>(sequence.num_tokens() - 1) / block_size",
        "static_cast<size_t>(sequence.num_tokens()) / block_size",
        "engine_prefix_test", "EnginePrefix*"),
    Mutant(
        "prompt log probabilities are asked of rows that come from the cache",
        "engine/schedule/scheduler.cc",
        "  if (entry.sequence->wants_all_logits()) return {};\n",
        "",
        "scheduler_test", "SchedulerPolicyTest.APromptWhoseLogitsAreWantedIsComputedInFull"),
    # ---- memory of the host ----
    Mutant(
        "at the last level of memory pressure everybody runs on",
        "engine/schedule/scheduler_plan.cc",
        "    if (limit == RunningLimit::kFewer && num_kept_ > 1 &&",
        "    if (limit == RunningLimit::kNone && num_kept_ > scheduler.entries_.size() &&",
        "engine_memory_test", "EngineMemoryTest.*"),
    Mutant(
        "memory behind blocks in use is given back",
        "engine/engine_loop.cc",
        "  const std::vector<int32_t> released = pool_.TakeUsedFree();\n",
        "  const std::vector<int32_t> released = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};\n",
        "engine_memory_test", "EngineMemoryTest.*"),
    # ---- scheduling ----
    Mutant(
        "tenants are not charged for what they are served",
        "engine/schedule/fair_queue.cc",
        "  tenant.service += tokens;\n",
        "  tenant.service += 0 * tokens;\n",
        "scheduler_test", "SchedulerFairnessTest.*"),
    Mutant(
        "a new tenant begins with no service at all",
        "engine/schedule/fair_queue.cc",
        "tenant.service = std::max(tenant.service, FirstService(priority));\n",
        "tenant.service += 0 * FirstService(priority);\n",
        "scheduler_test", "FairQueueTest.*:SchedulerFairnessTest.*:SchedulerPolicyTest.*"),
    Mutant(
        "a request of low priority is a ticket for the next ones",
        "engine/schedule/fair_queue.cc",
        "level->second.lift = std::max(int64_t{0}, FirstService(priority) - tenant.service);\n",
        "level->second.lift = 0;\n",
        "scheduler_test", "FairQueueTest.*:SchedulerFairnessTest.*:SchedulerPolicyTest.*"),
    Mutant(
        "the head start of one priority pushes back who has none",
        "engine/schedule/fair_queue.cc",
        "    if (level > priority) break;\n",
        "    if (level > priority + 1000) break;\n",
        "scheduler_test", "FairQueueTest.TheHeadStartOfOnePushesNobodyElseBack"),
    Mutant(
        "the queue takes one request more than its limit",
        "engine/request/request_queue.cc",
        "!Fits(held.requests, 1, limits.max_requests)",
        "!Fits(held.requests, 0, limits.max_requests)",
        "request_test", "RequestQueueTest.*"),
    Mutant(
        "recomputed tokens are not counted",
        "engine/loop_steps.cc",
        "    report.recomputed_tokens += Find(chunk.sequence).sequence.CountRecomputed(chunk.count);\n",
        "",
        "engine_stress_test", "EngineStressTest.*"),
    # ---- the life of a request ----
    Mutant(
        "cancels are not heard",
        "engine/response.cc",
        "if (request.cancel->cancelled()) return",
        "if (request.cancel->cancelled() && false) return",
        "engine_test", "EngineTest.Cancel*"),
    Mutant(
        "deadlines are not kept",
        "engine/response.cc",
        "  if (now >= request.deadline) {\n",
        "  if (now >= request.deadline + absl::Hours(1)) {\n",
        "engine_test", "EngineTest.Deadlines*"),
    Mutant(
        "tokens of a step go to the wrong sequences",
        "engine/loop_steps.cc",
        "      PublishToken(id, *std::move(results[i].token), now);\n",
        "      PublishToken(id, results[results.size() - 1 - i].token.value_or(*results[i].token), now);\n",
        "engine_test", "EngineTest.RequestsJoinAndLeaveTheBatchBetweenSteps"),
    Mutant(
        "a failed sequence leaves its siblings running",
        "engine/engine_loop.cc",
        "  if (status.ok()) return;\n  for (SequenceId sibling",
        "  if (!status.ok()) return;\n  for (SequenceId sibling",
        "engine_test", "EngineGroupTest.*"),
    # ---- sampling ----
    Mutant(
        "every token of a sequence is the same draw",
        "engine/sample/token_chooser.cc",
        ".index = static_cast<uint64_t>(num_tokens_)",
        ".index = 0",
        "engine_stress_test", "EngineStressTest.TheIthTokenIsTheIthDraw"),
    Mutant(
        "the sequences of a request share one stream of draws",
        "engine/sample/token_chooser.cc",
        ".sequence = static_cast<uint32_t>(index_)",
        ".sequence = 0",
        "sampler_test", "TokenChooserTest.SequencesOfARequestDrawFromStreamsOfTheirOwn"),
    Mutant(
        "logits that are not numbers are passed over",
        "engine/sample/arg_max.cc",
        "num_nans[lane] += logit != logit;",
        "num_nans[lane] += 0;",
        "engine_test", "EngineTest.NanLogitsFailTheirRequestAlone"),
    Mutant(
        "ties at the k-th logit are all kept",
        "engine/sample/sampler.cc",
        "      if (num_ties == 0) continue;\n",
        "",
        "sampler_test", "SamplerTest.*"),
    Mutant(
        "the presence penalty is taken for every occurrence",
        "engine/sample/token_history.cc",
        "    logit -= penalties_.presence;\n",
        "    logit -= static_cast<float>(count) * penalties_.presence;\n",
        "sampler_test", "TokenChooserTest.PenaltiesByHand"),
    Mutant(
        "a sequence may end before min_tokens",
        "engine/sample/token_chooser.cc",
        "index >= rules_->params().min_tokens",
        "index + 1 >= rules_->params().min_tokens",
        "sampler_test", "TokenChooserTest.NoEndingTokenBeforeMinTokens"),
    Mutant(
        "log probabilities are those of the edited logits",
        "engine/sample/token_chooser.cc",
        "DescribeToken(raw, chosen.token_id",
        "DescribeToken(logits, chosen.token_id",
        "sampler_test", "TokenChooserTest.LogprobsAreOfTheRowBeforeAnyOption"),
    Mutant(
        "a device is not told of the tokens that would end a sequence too early",
        "engine/sample/token_chooser.cc",
        "Union(permission->forbidden, permission->too_early)",
        "Union(permission->forbidden, permission->forbidden)",
        "emulated_cuda_model_test", "*DeviceSamplingTest.ChoosesAsTheReferenceDoes*"),
    Mutant(
        "a device's top_p keeps the token that is too much",
        "kernels/cuda/sample.cu",
        "return share < 1 ? Mass{1} : share > total ? total : share;",
        "return share + 1 > total ? total : share + 1;",
        "emulated_cuda_model_test", "*DeviceSamplingTest.CutsThroughTies*"),
    Mutant(
        "many rows sum the depth in one part, few in four",
        "kernels/cuda/mma_tile.cuh",
        "  const auto part_chunks = static_cast<int>(ChunksOfPart(depth));\n",
        "  const int part_chunks = num_chunks;\n",
        "emulated_cuda_test", "*InvarianceTest.LinearOfManyRowsAndColumns*"),
    Mutant(
        "a prompt's attention runs on through its splits",
        "kernels/cuda/attention_mma.cu",
        "if (next >= end || next / kTilesPerSplit != split) {",
        "if (next >= end || (kBySplit && next / kTilesPerSplit != split)) {",
        "emulated_cuda_test", "*InvarianceTest.PagedAttention/*"),
    Mutant(
        "rows of padding are counted",
        "kernels/cuda/group.cu",
        "      if (in.row_sequence[t] == kPadding) continue;\n      const double lse",
        "      const double lse",
        "emulated_cuda_test", "*PaddingTest*"),
    # ---- text ----
    Mutant(
        "the begin of a stop string is sent before it is known to be none",
        "engine/text/stop_matcher.cc",
        "std::max(num_in_match, IncompleteSuffixSize(held_))",
        "std::max(num_in_match / 2, IncompleteSuffixSize(held_))",
        "text_test", "StopMatcherTest.*"),
    Mutant(
        "text of users may contain special tokens",
        "engine/text/added_tokens.cc",
        "client->begin < match_end) {",
        "client->end < position) {",
        "chat_template_test", "EncodeMarkedTest.SpecialTokensOfClientsStayText"),
    # ---- experts ----
    Mutant(
        "one assignment of a step is dropped without being counted",
        "engine/experts/expert_stats.cc",
        "  state_->total.Add(step, step.num_tokens);\n",
        "  state_->total.Add(step, step.num_tokens);\n  --state_->total.assignments.back();\n",
        "expert_stats_test", "*"),
] + (ROUTING_MUTANTS + EXPERT_CACHE_MUTANTS + SCHEDULING_MUTANTS + GATEWAY_MUTANTS + SECURITY_MUTANTS +
     QUANTIZATION_MUTANTS)
