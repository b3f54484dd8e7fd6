#include "engine/engine_loop.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/batch_builder.h"
#include "engine/model/memory_plan.h"

namespace cadre {
namespace {

// A step's failure as the caller may hear it: the codes that TokenSink promises, whatever the device said.
absl::Status AsForwardError(const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsInternal(status)) return status;
  return absl::InternalError(absl::StrCat("the model could not run the step: ", status.message()));
}

SampleOptions ToSampleOptions(const SamplingParams& params, int64_t token_index) {
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .seed = params.seed,
          .index = static_cast<uint64_t>(token_index)};
}

}  // namespace

EngineLoop::EngineLoop(const EngineOptions& options, const LoopParts& parts)
    : options_(options),
      parts_(parts),
      limits_(parts.runner->limits()),
      pool_(limits_.num_kv_blocks),
      scheduler_({.max_num_seqs = options.max_num_seqs,
                  .max_num_batched_tokens = options.max_num_batched_tokens,
                  .block_size = limits_.kv_block_size,
                  .max_model_len = limits_.max_model_len,
                  .max_prefill_chunk = options.max_prefill_chunk,
                  .fair_queue = {.priority_tokens = options.priority_tokens},
                  .prefix_cache = {.keeps_idle = options.prefix_cache != PrefixCacheScope::kOff,
                                   .key_seed = options.prefix_cache_seed}},
                 &pool_) {
  static_assert(Sampler::kScratchBytesPerLogit == kSamplerBytesPerLogit, "the memory plan counts another sampler");
  sampler_.Reserve(static_cast<size_t>(limits_.vocab_size));
  notice_.snapshot.last_step_end = absl::InfinitePast();
  CloseBooks();
}

absl::Status EngineLoop::CheckFits(int64_t num_prompt_tokens, int64_t max_tokens) const {
  return scheduler_.CheckFits(num_prompt_tokens, max_tokens);
}

bool EngineLoop::Step() {
  const absl::Time begin = parts_.clock->Now();
  const int64_t num_ended = notice_.snapshot.num_finished();
  report_ = {};
  Admit(begin);
  const StepPlan plan = Plan(begin);
  CloseBooks();
  SayFarewells();
  if (plan.empty()) {
    CADRE_CHECK(active_.empty());  // whoever waits or runs is always part of some step
    return notice_.snapshot.num_finished() != num_ended;
  }
  if (absl::Status status = Forward(plan); status.ok()) {
    Publish(plan, Sample(plan));
  } else {
    for (const ScheduledChunk& chunk : plan.chunks) End(chunk.sequence, AsForwardError(status));
  }
  const absl::Time end = parts_.clock->Now();
  report_.duration = end - begin;
  notice_.snapshot.last_step_end = end;
  ++notice_.snapshot.steps;
  CloseBooks();
  if (parts_.observer != nullptr) parts_.observer->OnStep(report_);
  SayFarewells();
  return true;
}

void EngineLoop::Admit(absl::Time now) {
  for (Request& request : parts_.queue->TakeAll()) {
    ++notice_.taken_requests;
    notice_.taken_prompt_tokens += static_cast<int64_t>(request.prompt.size());
    Response response(request, parts_.tokenizer, options_.eos_token_ids);
    const SequenceId id = next_id_++;
    SequenceTraits traits{.max_tokens = request.sampling.max_tokens,
                          .priority = request.priority,
                          .tenant = request.tenant,
                          .cache_domain = CacheDomain(options_.prefix_cache, request, id)};
    Active active{Sequence(id, std::move(request.prompt), std::move(traits)), std::move(response)};
    const auto it = active_.try_emplace(id, std::move(active)).first;
    scheduler_.Add(&it->second.sequence);
  }
  for (auto it = active_.begin(); it != active_.end();) {
    const auto& [id, active] = *it++;
    if (absl::Status status = active.response.Interruption(now); !status.ok()) End(id, std::move(status));
  }
}

StepPlan EngineLoop::Plan(absl::Time now) {
  StepPlan plan = scheduler_.Plan();
  scheduler_.Commit(plan);
  report_.num_sequences = static_cast<int32_t>(plan.chunks.size());
  report_.preemptions = static_cast<int32_t>(plan.preempted.size());
  notice_.snapshot.preemptions += report_.preemptions;
  for (SequenceId id : plan.started) {
    Active& active = Find(id);
    parts_.queue->ReleasePlace(active.response.num_prompt_tokens());
    notice_.snapshot.prompt_tokens += active.response.num_prompt_tokens();
    if (!active.sequence.traits().cache_domain.empty()) {
      notice_.snapshot.prefix_lookup_tokens += active.sequence.num_prompt_tokens();
      notice_.snapshot.prefix_hit_tokens += active.sequence.num_found_tokens();
    }
    active.response.Start(now);
  }
  return plan;
}

absl::Status EngineLoop::Forward(const StepPlan& plan) {
  std::vector<const Sequence*> sequences;
  sequences.reserve(plan.chunks.size());
  for (const ScheduledChunk& chunk : plan.chunks) sequences.push_back(&Find(chunk.sequence).sequence);
  BuildForwardBatch(plan, sequences, limits_.kv_block_size, &batch_);
  return parts_.runner->Forward(batch_, &result_);
}

std::vector<absl::StatusOr<int32_t>> EngineLoop::Sample(const StepPlan& plan) {
  const auto vocab_size = static_cast<size_t>(limits_.vocab_size);
  CADRE_CHECK_EQ(result_.logits.size(), batch_.logit_rows.size() * vocab_size);
  std::vector<absl::StatusOr<int32_t>> tokens;
  for (const ScheduledChunk& chunk : plan.chunks) {
    if (!chunk.samples) continue;
    const Response& response = Find(chunk.sequence).response;
    const std::span<const float> row(result_.logits.data() + tokens.size() * vocab_size, vocab_size);
    tokens.push_back(sampler_.Sample(row, ToSampleOptions(response.sampling(), response.num_generated_tokens())));
  }
  return tokens;
}

void EngineLoop::Publish(const StepPlan& plan, const std::vector<absl::StatusOr<int32_t>>& tokens) {
  CountStep(plan);
  CountRouting(plan);
  const absl::Time now = parts_.clock->Now();
  size_t num_sampled = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    Active& active = Find(chunk.sequence);
    active.sequence.Advance();
    if (!chunk.samples) continue;
    const absl::StatusOr<int32_t>& token = tokens[num_sampled++];
    if (!token.ok()) {
      End(chunk.sequence, token.status());
      continue;
    }
    active.sequence.AppendToken(*token);
    scheduler_.Confirm(&active.sequence);
    ++notice_.snapshot.generated_tokens;
    if (active.response.Append(*token, now) != FinishReason::kNone) End(chunk.sequence, absl::OkStatus());
  }
}

void EngineLoop::CountStep(const StepPlan& plan) {
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const ScheduledChunk& chunk = plan.chunks[i];
    const bool decodes = i < static_cast<size_t>(plan.num_decodes);
    (decodes ? report_.decode_tokens : report_.prefill_tokens) += chunk.count;
    report_.recomputed_tokens += Find(chunk.sequence).sequence.CountRecomputed(chunk.count);
  }
  notice_.snapshot.prefill_tokens += report_.prefill_tokens;
  notice_.snapshot.decode_tokens += report_.decode_tokens;
  notice_.snapshot.recomputed_tokens += report_.recomputed_tokens;
}

void EngineLoop::CountRouting(const StepPlan& plan) {
  const StepRouting& routing = result_.routing;
  const int64_t routed_tokens = static_cast<int64_t>(batch_.num_tokens()) * limits_.num_moe_layers;
  const int64_t assignments = routed_tokens * limits_.top_k;
  CADRE_CHECK_EQ(routing.num_tokens, int64_t{batch_.num_tokens()});
  CADRE_CHECK_EQ(routing.sequence_assignments.size(), plan.chunks.size());
  // Checked in every build: no assignment is lost without being counted.
  CADRE_CHECK_EQ(std::reduce(routing.assignments.begin(), routing.assignments.end()), assignments);
  CADRE_CHECK_EQ(std::reduce(routing.sequence_assignments.begin(), routing.sequence_assignments.end()), assignments);
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    Find(plan.chunks[i].sequence).response.AddRouting(routing.sequence_assignments[i]);
  }
  parts_.expert_stats->Record(routing);
  notice_.snapshot.routed_tokens += routed_tokens;
  notice_.snapshot.routed_assignments += assignments;
}

void EngineLoop::End(SequenceId id, absl::Status status) {
  auto node = active_.extract(id);
  CADRE_CHECK(!node.empty());
  Active& active = node.mapped();
  ReleaseBlocks(&active.sequence, status);
  if (!active.sequence.started()) parts_.queue->ReleasePlace(active.response.num_prompt_tokens());
  ended_rows_ += active.sequence.peak_computed_tokens() - active.sequence.num_found_tokens();
  ended_assignments_ += active.response.num_assignments();
  EngineSnapshot& counters = notice_.snapshot;
  if (status.ok()) {
    ++counters.finished_ok;
  } else if (absl::IsCancelled(status)) {
    ++counters.finished_cancelled;
  } else if (absl::IsDeadlineExceeded(status)) {
    ++counters.finished_deadline;
  } else {
    ++counters.finished_failed;
  }
  FinishSummary summary =
      active.response.Summarize(std::move(status), parts_.clock->Now(), active.sequence.num_preemptions());
  farewells_.push_back({std::move(node), std::move(summary)});
}

void EngineLoop::ReleaseBlocks(Sequence* sequence, const absl::Status& status) {
  if (status.ok() || absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) {
    scheduler_.Finish(sequence);
    return;
  }
  const std::vector<int32_t> blocks = scheduler_.Discard(sequence);
  if (!blocks.empty()) parts_.runner->ScrubBlocks(blocks);
}

void EngineLoop::EndAll(const absl::Status& status) {
  Admit(parts_.clock->Now());
  while (!active_.empty()) End(active_.begin()->first, status);
  CloseBooks();
  SayFarewells();
}

void EngineLoop::SayFarewells() {
  if (farewells_.empty()) return;
  for (Farewell& farewell : std::exchange(farewells_, {})) {
    if (parts_.observer != nullptr) parts_.observer->OnFinish(farewell.summary);
    farewell.node.mapped().response.Finish(std::move(farewell.summary));
  }
  parts_.board->SetFinished(notice_.snapshot.num_finished());
}

void EngineLoop::CloseBooks() {
  EngineSnapshot& snapshot = notice_.snapshot;
  snapshot.admitted_requests = notice_.taken_requests;
  snapshot.waiting_requests = scheduler_.num_waiting();
  snapshot.running_requests = scheduler_.num_running();
  snapshot.waiting_tokens = 0;
  notice_.oldest_arrival = absl::InfiniteFuture();
  for (const auto& [id, active] : active_) {
    if (active.sequence.state() != SequenceState::kWaiting) continue;
    snapshot.waiting_tokens += active.response.num_prompt_tokens();
    notice_.oldest_arrival = std::min(notice_.oldest_arrival, active.response.arrival());
  }
  snapshot.kv_blocks_total = pool_.num_total();
  snapshot.kv_blocks_free = pool_.num_free();
  snapshot.kv_blocks_in_use = pool_.num_in_use();
  snapshot.kv_blocks_cached = pool_.num_idle();
  snapshot.kv_block_evictions = scheduler_.prefix_cache().num_evictions();
  parts_.board->Publish(notice_);
}

EngineLoop::Active& EngineLoop::Find(SequenceId id) {
  const auto it = active_.find(id);
  CADRE_CHECK(it != active_.end());
  return it->second;
}

}  // namespace cadre
