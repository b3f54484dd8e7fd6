// What EngineLoop tells the router of a step, and what it learns of it.
#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

#include "engine/base/check.h"
#include "engine/batch_builder.h"
#include "engine/engine_loop.h"

namespace cadre {
namespace {

// What became of the assignments of the step's sequence number `s`.
RoutingReport RoutingOf(const StepRouting& routing, size_t s) {
  const double total_gate_weight = routing.sequence_gate_weight[s];
  if (!routing.is_limited()) {
    return {.processed = routing.sequence_assignments[s], .total_gate_weight = total_gate_weight};
  }
  const auto count = [&](AssignmentState state) {
    return routing.sequence_states[s * static_cast<size_t>(kNumAssignmentStates) + static_cast<size_t>(state)];
  };
  return {.processed = count(AssignmentState::kProcessed),
          .rerouted = count(AssignmentState::kRerouted),
          .reweighted = count(AssignmentState::kReweighted),
          .dropped = count(AssignmentState::kDropped),
          .lost_gate_weight = routing.sequence_lost_gate_weight[s],
          .total_gate_weight = total_gate_weight};
}

}  // namespace

absl::Duration EngineLoop::Rest() {
  constexpr absl::Duration kMovePause = absl::Milliseconds(100);  // until a read that holds up a move has ended
  const absl::Duration pause = parts_.runner->PlaceExperts();
  MoveMemory();
  NoteExperts();
  CloseBooks();
  TellExpertFaults();
  return budget_ && budget_->is_moving() ? std::min(pause, kMovePause) : pause;
}

void EngineLoop::NoteExperts() {
  notice_.snapshot.expert_cache = parts_.runner->expert_cache();
  notice_.snapshot.expert_placement = parts_.runner->expert_placement();
}

void EngineLoop::TellExpertFaults() {
  const ExpertFaults faults = parts_.runner->TakeExpertFaults();
  if (parts_.observer != nullptr && !faults.told.empty()) parts_.observer->OnExpertFaults(faults);
}

void EngineLoop::LimitCapacity(OrderedStep* step) {
  const StepPlan& plan = step->plan;
  std::vector<CapacityPolicy> policies;
  policies.reserve(plan.chunks.size());
  for (const ScheduledChunk& chunk : plan.chunks) {
    policies.push_back(Find(chunk.sequence).response.group().request().capacity.value_or(CapacityPolicy()));
  }
  BuildCapacity(plan, policies, limits_, &capacity_slots_, &step->batch);
}

void EngineLoop::ReplayRouting(OrderedStep* step) {
  const StepPlan& plan = step->plan;
  std::vector<const RoutingReplay*> replays;
  replays.reserve(plan.chunks.size());
  for (const ScheduledChunk& chunk : plan.chunks) {
    replays.push_back(Find(chunk.sequence).response.group().request().replay.get());
  }
  BuildRecordedRows(plan, replays, limits_, &step->batch);
}

void EngineLoop::DescribeSequences(OrderedStep* step) {
  const StepPlan& plan = step->plan;
  step->batch.seeds.clear();
  step->batch.prompt_lengths.clear();
  for (const ScheduledChunk& chunk : plan.chunks) {
    const Active& active = Find(chunk.sequence);
    if (limits_.needs_seeds) step->batch.seeds.push_back(active.response.group().request().sampling.seed);
    if (limits_.prompt_group > 0) step->batch.prompt_lengths.push_back(active.sequence.num_prompt_tokens());
  }
}

void EngineLoop::CountRouting(const OrderedStep& step) {
  const StepPlan& plan = step.plan;
  const StepRouting& routing = step.result.routing;
  const int64_t routed_tokens = static_cast<int64_t>(step.batch.num_tokens()) * limits_.num_moe_layers;
  const int64_t assignments = std::reduce(routing.assignments.begin(), routing.assignments.end());
  CADRE_CHECK_EQ(routing.num_tokens, int64_t{step.batch.num_tokens()});
  CADRE_CHECK_EQ(routing.sequence_assignments.size(), plan.chunks.size());
  // Checked in every build: no assignment is lost without being counted.
  CADRE_CHECK_LE(assignments, routed_tokens * limits_.top_k);
  CADRE_CHECK_GE(assignments, routed_tokens * (limits_.min_k == kAlwaysTopK ? limits_.top_k : limits_.min_k));
  CADRE_CHECK_EQ(std::reduce(routing.sequence_assignments.begin(), routing.sequence_assignments.end()), assignments);
  CADRE_CHECK_EQ(routing.sequence_gate_weight.size(), plan.chunks.size());
  std::vector<size_t> tenants;
  std::vector<RoutingReport> reports;
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    if (!IsActive(plan.chunks[i].sequence)) {
      notice_.snapshot.discarded_assignments += routing.sequence_assignments[i];
      continue;
    }
    Active& active = Find(plan.chunks[i].sequence);
    tenants.push_back(active.tenant);
    reports.push_back(RoutingOf(routing, i));
    if (!step.result.cache_uses.empty()) {
      reports.back().cache_hits = step.result.cache_uses[i].hits;
      reports.back().cache_misses = step.result.cache_uses[i].misses;
      reports.back().cache_bytes = step.result.cache_uses[i].bytes;
      reports.back().cache_wait = step.result.expert_wait;
    }
    active.response.AddRouting(reports.back());
  }
  parts_.tenants->Add(tenants, reports);
  parts_.expert_stats->Record(routing);
  if (step.batch.keep_expert_ids) ProfileRouting(step);
  if (parts_.router_bias->Observe(routing)) ++notice_.snapshot.router_bias_updates;
  notice_.snapshot.router_bias_largest = parts_.router_bias->largest_nudge();
  notice_.snapshot.routed_tokens += routed_tokens;
  notice_.snapshot.routed_assignments += assignments;
}

void EngineLoop::ProfileRouting(const OrderedStep& step) {
  std::vector<uint8_t> classes;
  classes.reserve(step.batch.token_ids.size());
  for (const int32_t id : step.batch.token_ids) classes.push_back(parts_.token_classes[static_cast<size_t>(id)]);
  parts_.routing_profile->Observe(step.result.expert_ids, classes);
  if (token_experts_) token_experts_->Observe(step.batch.token_ids, step.result.expert_ids);
}

void EngineLoop::RecordRouting(const OrderedStep& step) {
  const StepPlan& plan = step.plan;
  if (!step.batch.keep_choices) return;
  int64_t first_row = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    if (std::optional<RoutingRecord>& record = Find(chunk.sequence).record) {
      record->Add(step.result, step.batch.num_tokens(), first_row, chunk);
    }
    first_row += chunk.count;
  }
}

}  // namespace cadre
