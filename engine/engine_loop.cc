#include "engine/engine_loop.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/failpoint.h"
#include "engine/base/status_macros.h"
#include "engine/batch_builder.h"
#include "engine/deadline_admission.h"
#include "engine/model/memory_plan.h"
#include "engine/request/refusal.h"

namespace cadre {
namespace {

// Where a sequence may begin, beside its first token.
int32_t GroupTokens(const CapacityPolicy& policy) {
  return policy.scope == CapacityScope::kRequest ? policy.group_tokens : 1;
}

QueuePlace PlaceOf(const RequestGroup& group) {
  QueuePlace place = PlaceOf(group.request());
  place.cost.prompt_tokens = group.num_prompt_tokens();  // the request's own prompt is gone
  return place;
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
                  .max_sequence_blocks = limits_.max_sequence_blocks,
                  .fair_queue = {.priority_tokens = options.priority_tokens},
                  .prefix_cache = {.keeps_idle = options.prefix_cache != PrefixCacheScope::kOff,
                                   .key_seed = options.prefix_cache_seed}},
                 &pool_),
      capacity_slots_(limits_.max_capacity_slots),
      meter_(scheduler_.options().max_num_seqs, scheduler_.options().max_prefill_chunk),
      may_order_ahead_(limits_.can_order_ahead && options.overlap_steps && !options.bias_balancing.is_on() &&
                       !options.expert_aware_scheduling && limits_.prompt_group == 0) {
  static_assert(Sampler::kScratchBytesPerLogit == kSamplerBytesPerLogit, "the memory plan counts another sampler");
  CADRE_CHECK(!options.tolerate_missing_experts || options.prefix_cache == PrefixCacheScope::kOff);
  if (parts.runner->memory_room()) budget_.emplace(parts.runner, &scheduler_, parts.expert_pins);
  sampler_.Reserve(static_cast<size_t>(limits_.vocab_size));
  if (options.expert_aware_scheduling && parts.runner->expert_placement() != nullptr) {
    token_experts_.emplace(TokenExpertsShape{.vocab_size = limits_.vocab_size,
                                             .num_layers = limits_.num_moe_layers,
                                             .num_experts = limits_.num_experts,
                                             .top_k = limits_.top_k});
  }
  notice_.snapshot.last_step_end = absl::InfinitePast();
  notice_.snapshot.orders_ahead = may_order_ahead_;
  NoteExperts();
  CloseBooks();
}

absl::Status EngineLoop::CheckFits(int64_t num_prompt_tokens, int64_t max_tokens) const {
  return scheduler_.CheckFits(num_prompt_tokens, max_tokens);
}

void EngineLoop::Admit(absl::Time now) {
  CADRE_FAILPOINT("engine.admit");
  std::vector<Request> requests = parts_.queue->TakeAll();
  // Behind TakeAll: who was submitted after a reset was asked for belongs to the new epoch.
  parts_.router_bias->ApplyReset();
  parts_.expert_pins->Apply();
  notice_.snapshot.router_bias_largest = parts_.router_bias->largest_nudge();
  for (Request& request : requests) {
    ++notice_.taken_requests;
    notice_.taken_prompt_tokens += static_cast<int64_t>(request.prompt.size());
    AddRequest(std::move(request));
  }
  EndInterrupted(now);
}

void EngineLoop::AddRequest(Request request) {
  const std::vector<int32_t> prompt = request.prompt;
  const auto group = std::make_shared<RequestGroup>(std::move(request), options_.eos_token_ids, limits_.vocab_size);
  const CapacityPolicy capacity = group->request().capacity.value_or(CapacityPolicy());
  const SequenceId leader = next_id_;
  for (int32_t index = 0; index < group->request().num_sequences; ++index) {
    const SequenceId id = next_id_++;
    SequenceTraits traits{.max_tokens = group->rules().params().max_tokens,
                          .priority = group->request().priority,
                          .tenant = group->request().tenant,
                          .cache_domain = CacheDomain(options_.prefix_cache, group->request(), leader,
                                                      limits_.needs_seeds, parts_.router_bias->epoch()),
                          .leader = index == 0 ? kNoSequence : leader,
                          .group_tokens = GroupTokens(capacity),
                          .prompt_group = limits_.prompt_group,
                          .needs_prompt_logits = index == 0 && group->request().prompt_logprobs.has_value()};
    Active active{.sequence = Sequence(id, prompt, std::move(traits)),
                  .chooser = TokenChooser(&group->rules(), prompt, index),
                  .response = Response(group, index, parts_.tokenizer),
                  .tenant = parts_.tenants->Open(group->request().tenant)};
    if (group->request().wants_routed_experts) active.record.emplace(limits_.num_moe_layers, limits_.top_k);
    const auto it = active_.try_emplace(id, std::move(active)).first;
    scheduler_.Add(&it->second.sequence);
  }
}

void EngineLoop::EndInterrupted(absl::Time now) {
  std::vector<std::pair<SequenceId, absl::Status>> ends;
  // When nothing runs, whoever may be done sooner than expected may try.
  const RequestGroup* trial = nullptr;
  const bool is_idle = scheduler_.num_running() == 0;
  for (auto& [id, active] : active_) {
    if (const auto interruption = active.response.Interruption(now)) {
      if (interruption->ok()) active.response.Interrupt(FinishReason::kTimeLimit);
      ends.emplace_back(id, *interruption);
    } else if (active.chooser.done()) {
      // Its language has no other sentence than the empty one.
      active.response.Interrupt(FinishReason::kConstraintEnd);
      ends.emplace_back(id, absl::OkStatus());
    } else if (const RequestGroup& group = active.response.group(); IsHopeless(group, now)) {
      if (is_idle && trial == nullptr && group.request().may_end_early) trial = &group;
      if (trial == &group) continue;
      ends.emplace_back(id,
                        MakeRefusal(Refusal::kDeadlineUnreachable, absl::StatusCode::kDeadlineExceeded,
                                    "the request has waited too long: it could not be answered before its deadline"));
    }
  }
  for (const auto& [id, status] : ends) End(id, status);
}

Preference EngineLoop::PreferenceOf(const Sequence& sequence, absl::Time now) const {
  const Active& active = Find(sequence.id());
  const ExpertPlacement& placement = *notice_.snapshot.expert_placement;
  return {.share = token_experts_->ResidentShare(sequence.tokens(), placement.tiers, placement.slowest_cached),
          .may_be_passed_over = MayBePassedOver(active.response.group(), now)};
}

bool EngineLoop::MayBePassedOver(const RequestGroup& group, absl::Time now) const {
  const Request& request = group.request();
  // Who has begun should end, and what a time limit cuts off should not be less.
  if (group.has_started() || request.time_limit != absl::InfiniteDuration()) return false;
  const bool has_deadline = request.deadline != absl::InfiniteFuture();
  const bool has_max_wait = options_.max_queue_wait != absl::InfiniteDuration();
  if (!has_deadline && !has_max_wait) return true;
  const QueuePlace place = PlaceOf(group);
  const QueueCost ahead = parts_.queue->CostAhead(place);
  const absl::Duration max_wait = options_.max_queue_wait - (now - request.arrival);
  return (!has_deadline || CheckDeadline(meter_.state(), ahead, place.cost, request.deadline - now).ok()) &&
         (!has_max_wait || CheckWait(meter_.state(), ahead, place.cost, max_wait).ok());
}

bool EngineLoop::IsHopeless(const RequestGroup& group, absl::Time now) const {
  if (!options_.deadline_admission || group.has_started() || !IsLimitedByDeadline(group.request())) return false;
  return ExpectedServiceTime(meter_.state(), PlaceOf(group).cost) > group.request().deadline - now;
}

void EngineLoop::Plan(absl::Time now, OrderedStep* step) {
  CADRE_FAILPOINT("engine.plan");
  const RunningLimit limit = YieldMemory();
  const Preferences preferences = [&](const Sequence& sequence) { return PreferenceOf(sequence, now); };
  step->plan = scheduler_.Plan(limit, token_experts_ ? &preferences : nullptr);
  const StepPlan& plan = step->plan;
  scheduler_.Commit(plan);
  num_kept_waiting_ = 0;
  if (limit == RunningLimit::kNone) ObserveSeats(plan);
  step->report.num_sequences = static_cast<int32_t>(plan.chunks.size());
  step->report.preemptions = static_cast<int32_t>(plan.preempted.size());
  notice_.snapshot.preemptions += step->report.preemptions;
  notice_.snapshot.memory_preemptions += plan.num_yielded;
  for (SequenceId id : plan.started) {
    Active& active = Find(id);
    if (!active.response.group().has_started()) {
      parts_.queue->ReleasePlace(PlaceOf(active.response.group()));
      notice_.snapshot.prompt_tokens += active.response.num_prompt_tokens();
    }
    // The others find what the first one has computed: that tells nothing of what prompts cost.
    if (active.response.index() == 0) meter_.ObserveStart(active.sequence);
    if (!active.sequence.traits().cache_domain.empty()) {
      notice_.snapshot.prefix_lookup_tokens += active.sequence.num_prompt_tokens();
      notice_.snapshot.prefix_hit_tokens += active.sequence.num_found_tokens();
    }
    active.response.Start(now, active.sequence.num_found_tokens());
  }
  for (SequenceId id : plan.preempted) capacity_slots_.Release(id);
}

RunningLimit EngineLoop::YieldMemory() {
  const MemoryPressure pressure = pressure_.load();
  if (pressure < MemoryPressure::kEvict) return RunningLimit::kNone;
  scheduler_.EvictIdle();
  const std::vector<int32_t> released = pool_.TakeUsedFree();
  if (!released.empty()) parts_.runner->ReleaseMemory(released);
  if (pressure < MemoryPressure::kPreempt) return RunningLimit::kNone;
  return must_preempt_.exchange(false) ? RunningLimit::kFewer : RunningLimit::kNoNew;
}

void EngineLoop::SetMemoryPressure(MemoryPressure pressure) {
  pressure_.store(pressure);
  must_preempt_.store(pressure == MemoryPressure::kPreempt);
}

void EngineLoop::ObserveSeats(const StepPlan& plan) {
  int32_t prompt_rows = 0;
  for (size_t i = static_cast<size_t>(plan.num_decodes); i < plan.chunks.size(); ++i) {
    prompt_rows += plan.chunks[i].count;
  }
  const SchedulerOptions& limits = scheduler_.options();
  const int32_t max_prompt_rows =
      std::min(limits.max_num_batched_tokens - plan.num_decodes,
               plan.num_decodes > 0 ? limits.max_prefill_chunk : limits.max_num_batched_tokens);
  // Where experts choose, fewer rows than a group of theirs are nobody's.
  const int32_t fewest_rows = std::max(limits_.prompt_group, 1);
  const bool has_seats = scheduler_.num_running() < limits.max_num_seqs && max_prompt_rows - prompt_rows >= fewest_rows;
  if (has_seats) {
    num_kept_waiting_ = std::min(scheduler_.num_in_line(), limits.max_num_seqs - scheduler_.num_running());
  }
  meter_.ObserveSeats(scheduler_.num_running(), num_kept_waiting_ > 0);
}

void EngineLoop::End(SequenceId id, const absl::Status& status) {
  const auto it = active_.find(id);
  if (it == active_.end()) return;
  const int32_t num_sequences = it->second.response.group().request().num_sequences;
  const SequenceId first = id - it->second.response.index();
  EndSequence(id, status);
  if (status.ok()) return;
  for (SequenceId sibling = first; sibling < first + num_sequences; ++sibling) {
    if (active_.contains(sibling)) EndSequence(sibling, status);
  }
}

void EngineLoop::EndSequence(SequenceId id, const absl::Status& status) {
  CADRE_FAILPOINT("engine.end");
  auto node = active_.extract(id);
  CADRE_CHECK(!node.empty());
  Active& active = node.mapped();
  RequestGroup& group = active.response.group();
  const bool may_end_early = group.request().may_end_early;
  capacity_slots_.Release(id);
  parts_.tenants->Close(active.tenant);
  ReleaseBlocks(&active.sequence, status);
  ended_rows_ += active.sequence.peak_computed_tokens() - active.sequence.num_found_tokens();
  ended_assignments_ += active.response.num_assignments();
  FinishSummary summary = active.response.Summarize(status, parts_.clock->Now(), active.sequence.num_preemptions());
  const bool is_cut_off = summary.reason == FinishReason::kLength || summary.reason == FinishReason::kTimeLimit;
  if (may_end_early) meter_.ObserveEnd(active.sequence, status.ok() && !is_cut_off);
  if (active.record) summary.routed_experts = std::move(*active.record).Take();
  summary.is_last = group.EndSequence(status);
  if (summary.is_last) CountEnd(group);
  farewells_.push_back({std::move(node), std::move(summary)});
}

void EngineLoop::CountEnd(const RequestGroup& group) {
  if (!group.has_started()) parts_.queue->ReleasePlace(PlaceOf(group));
  EngineSnapshot& counters = notice_.snapshot;
  if (group.status().ok()) {
    ++counters.finished_ok;
  } else if (absl::IsCancelled(group.status())) {
    ++counters.finished_cancelled;
  } else if (absl::IsDeadlineExceeded(group.status())) {
    ++counters.finished_deadline;
  } else {
    ++counters.finished_failed;
  }
}

void EngineLoop::ReleaseBlocks(Sequence* sequence, const absl::Status& status) {
  const bool is_sound = status.ok() || absl::IsCancelled(status) || absl::IsDeadlineExceeded(status) ||
                        absl::IsResourceExhausted(status) ||
                        // Numbers all the same; and what the step computed has not been shared with anybody yet.
                        RefusalOf(status) == Refusal::kExpertUnavailable;
  if (is_sound) {
    const bool is_in_flight = !in_flight_.empty() && sequence->num_scheduled_tokens() > 0;
    is_in_flight ? scheduler_.Retire(sequence) : scheduler_.Finish(sequence);
    return;
  }
  const std::vector<int32_t> blocks = scheduler_.Discard(sequence);
  if (!blocks.empty()) ScrubBlocks(blocks);
}

void EngineLoop::EndAll(const absl::Status& status) {
  while (!in_flight_.empty()) FinishStep();
  Admit(parts_.clock->Now());
  while (!active_.empty()) End(active_.begin()->first, status);
  CloseBooks();
  SayFarewells();
}

void EngineLoop::SayFarewells() {
  if (farewells_.empty()) return;
  for (Farewell& farewell : std::exchange(farewells_, {})) {
    CADRE_FAILPOINT("engine.farewell");
    if (parts_.observer != nullptr) parts_.observer->OnFinish(farewell.summary);
    farewell.node.mapped().response.Finish(std::move(farewell.summary));
  }
  parts_.board->SetFinished(notice_.snapshot.num_finished());
}

void EngineLoop::CloseBooks() {
  EngineSnapshot& snapshot = notice_.snapshot;
  snapshot.admitted_requests = notice_.taken_requests;
  snapshot.waiting_requests = 0;
  snapshot.running_requests = 0;
  snapshot.waiting_tokens = 0;
  notice_.oldest_arrival = absl::InfiniteFuture();
  meter_.ClearRunning();
  for (auto it = active_.begin(); it != active_.end();) {
    const Response& response = it->second.response;
    // A request runs when one of its sequences does.
    bool is_running = false;
    for (; it != active_.end() && &it->second.response.group() == &response.group(); ++it) {
      is_running |= it->second.sequence.state() != SequenceState::kWaiting;
      if (response.group().has_started())
        meter_.AddRunning(it->second.sequence, response.group().request().may_end_early);
    }
    ++(is_running ? snapshot.running_requests : snapshot.waiting_requests);
    if (is_running) continue;
    snapshot.waiting_tokens += response.num_prompt_tokens();
    notice_.oldest_arrival = std::min(notice_.oldest_arrival, response.arrival());
  }
  snapshot.kv_blocks_total = pool_.num_present();
  snapshot.kv_blocks_free = pool_.num_free();
  snapshot.kv_blocks_in_use = pool_.num_in_use();
  snapshot.kv_blocks_cached = pool_.num_idle();
  if (budget_) snapshot.joint_budget = budget_->Report();
  snapshot.kv_block_evictions = scheduler_.prefix_cache().num_evictions();
  snapshot.preferred_sequences = scheduler_.fair_queue().num_preferred();
  snapshot.passed_over = scheduler_.fair_queue().num_passed_over();
  notice_.service = meter_.state();
  parts_.board->Publish(notice_);
}

EngineLoop::Active& EngineLoop::Find(SequenceId id) {
  const auto it = active_.find(id);
  CADRE_CHECK(it != active_.end());
  return it->second;
}

const EngineLoop::Active& EngineLoop::Find(SequenceId id) const {
  const auto it = active_.find(id);
  CADRE_CHECK(it != active_.end());
  return it->second;
}

}  // namespace cadre
