"""The seeded bugs: each is a change of one place in the code, and the tests that have to notice it.

`old` stands exactly once in its file; tidy_test sees to that, so that code which moves takes its mutant along.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    program: str  # the test program
    tests: str  # a GoogleTest filter; every test that it names is expected to pass without the mutant


MUTANTS = [
    # ---- blocks of the KV cache ----
    Mutant(
        "one block of a thousand is never given back",
        "engine/schedule/block_pool.cc",
        "  } else {\n    free_.push_back(block);\n",
        "  } else if (static int32_t num_released = 0; ++num_released % 1000 != 0) {\n    free_.push_back(block);\n",
        "scheduler_simulation_test", "*EveryArrivalEndsAndEveryAuditIsClean*"),
    Mutant(
        "blocks of a request with NaN logits are reused as they are",
        "engine/engine_loop.cc",
        "  if (!blocks.empty()) parts_.runner->ScrubBlocks(blocks);\n",
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
        "engine/engine_loop.cc",
        "    report_.recomputed_tokens += Find(chunk.sequence).sequence.CountRecomputed(chunk.count);\n",
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
        "engine/engine_loop.cc",
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
        "num_tokens_ >= rules_->params().min_tokens",
        "num_tokens_ + 1 >= rules_->params().min_tokens",
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
]
