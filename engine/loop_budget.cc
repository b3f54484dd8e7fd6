// How the loop shares its memory between expert slots and KV blocks: EngineLoop's part of JointBudget.
#include <algorithm>

#include "engine/engine_loop.h"

namespace cadre {

void EngineLoop::MoveMemory() {
  if (!budget_) return;
  // While memory is short, what is released is worth more than where it goes.
  const bool may_begin = pressure_.load() < MemoryPressure::kEvict;
  const std::optional<MemoryMove> ended = budget_->Advance(may_begin);
  if (!ended) return;
  NoteExperts();
  if (parts_.observer != nullptr) parts_.observer->OnMemoryMove(*ended, budget_->Report());
}

void EngineLoop::ObserveBudget(const OrderedStep& step) {
  if (!budget_) return;
  budget_->ObserveStep({.duration = step.report.duration,
                        .rows = step.report.prefill_tokens + step.report.decode_tokens,
                        .recomputed_rows = step.report.recomputed_tokens,
                        .num_running = static_cast<int32_t>(step.plan.chunks.size()),
                        .num_kept_waiting = num_kept_waiting_,
                        .missing_blocks = num_kept_waiting_ > 0 ? scheduler_.CountMissingBlocks(num_kept_waiting_) : 0,
                        .available_blocks = pool_.num_available(),
                        .found_tokens = notice_.snapshot.prefix_hit_tokens,
                        .row_seconds = meter_.state().costs.row});
}

absl::Status EngineLoop::AskForShares(const MemoryShares& shares) {
  if (budget_) return budget_->Ask(shares);
  return absl::FailedPreconditionError(
      "expert slots and KV blocks of this engine do not live from one budget that can be split anew");
}

}  // namespace cadre
