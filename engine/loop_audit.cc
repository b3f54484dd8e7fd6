// The identities between sequences, blocks, queue and counters: EngineLoop::Audit.
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/engine_loop.h"

namespace cadre {
namespace {

absl::Status CheckEqual(const char* left_name, int64_t left, const char* right_name, int64_t right) {
  if (left == right) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(left_name, " is ", left, ", but ", right_name, " is ", right));
}

}  // namespace

absl::Status EngineLoop::Audit() const {
  CADRE_RETURN_IF_ERROR(scheduler_.Audit());
  return AuditCounters();
}

absl::Status EngineLoop::AuditCounters() const {
  const EngineSnapshot& counters = notice_.snapshot;
  int64_t live_rows = 0;
  int64_t live_assignments = 0;
  int64_t in_flight = 0;
  int64_t slots = 0;
  int64_t unstarted = 0;
  int64_t unstarted_tokens = 0;
  const RequestGroup* group = nullptr;
  for (const auto& [id, active] : active_) {
    live_rows += active.sequence.peak_computed_tokens() - active.sequence.num_found_tokens();
    live_assignments += active.response.num_assignments();
    if (active.sequence.state() != SequenceState::kWaiting && capacity_slots_.Has(id)) ++slots;
    CADRE_RETURN_IF_ERROR(CheckEqual("generated tokens of a sequence", active.sequence.num_generated_tokens(),
                                     "tokens told to its sink", active.response.num_generated_tokens()));
    if (std::exchange(group, &active.response.group()) == &active.response.group()) continue;
    ++in_flight;
    if (group->has_started()) continue;
    ++unstarted;
    unstarted_tokens += group->num_prompt_tokens();
  }
  CADRE_RETURN_IF_ERROR(CheckEqual("sequences in the scheduler", scheduler_.num_waiting() + scheduler_.num_running(),
                                   "sequences in flight", static_cast<int64_t>(active_.size())));
  CADRE_RETURN_IF_ERROR(CheckEqual("admitted requests", counters.admitted_requests, "finished plus in flight",
                                   counters.num_finished() + in_flight));
  const RequestQueue::Totals queue = parts_.queue->totals();
  CADRE_RETURN_IF_ERROR(CheckEqual("places in the queue", queue.places.requests, "requests that have not started",
                                   queue.pushed_requests - notice_.taken_requests + unstarted));
  CADRE_RETURN_IF_ERROR(CheckEqual("prompt tokens in the queue", queue.places.prompt_tokens, "those of its requests",
                                   queue.pushed_prompt_tokens - notice_.taken_prompt_tokens + unstarted_tokens));
  CADRE_RETURN_IF_ERROR(CheckEqual("slots of running sequences", slots, "slots that count places",
                                   int64_t{capacity_slots_.num_in_use()}));
  CADRE_RETURN_IF_ERROR(CheckEqual("free, used and cached KV blocks",
                                   pool_.num_free() + pool_.num_in_use() + pool_.num_idle(), "the pool",
                                   pool_.num_present()));
  CADRE_RETURN_IF_ERROR(CheckEqual("rows computed, less recomputed",
                                   counters.prefill_tokens + counters.decode_tokens - counters.recomputed_tokens,
                                   "rows of all sequences", ended_rows_ + live_rows));
  CADRE_RETURN_IF_ERROR(CheckEqual("assignments routed", counters.routed_assignments,
                                   "assignments of all requests, and discarded ones",
                                   ended_assignments_ + live_assignments + counters.discarded_assignments));
  CADRE_RETURN_IF_ERROR(CheckEqual("assignments routed", counters.routed_assignments,
                                   "assignments of all tenants, and discarded ones",
                                   parts_.tenants->num_assignments() + counters.discarded_assignments));
  const int64_t routed =
      (counters.prefill_tokens + counters.decode_tokens + counters.discarded_tokens) * limits_.num_moe_layers;
  CADRE_RETURN_IF_ERROR(CheckEqual("rows routed", counters.routed_tokens, "rows x MoE layers", routed));
  const int64_t most = routed * limits_.top_k;
  if (limits_.min_k == kAlwaysTopK) {
    return CheckEqual("assignments routed", counters.routed_assignments, "rows x MoE layers x K", most);
  }
  // Each step was checked against what its rows chose.
  const int64_t fewest = routed * limits_.min_k;
  const int64_t within = std::clamp(counters.routed_assignments, fewest, most);
  return CheckEqual("assignments routed", counters.routed_assignments, "what rows may choose", within);
}

}  // namespace cadre
