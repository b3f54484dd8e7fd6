// The decision itself: Scheduler::Plan.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "engine/base/check.h"
#include "engine/schedule/scheduler.h"

namespace cadre {

// A plan in the making: what is left of each budget after the decisions so far.
class Scheduler::Draft {
 public:
  Draft(const Scheduler& scheduler, RunningLimit limit)
      : scheduler_(scheduler),
        max_running_(limit == RunningLimit::kNone ? scheduler.options_.max_num_seqs : 1),
        num_kept_(scheduler.running_.size()),
        free_blocks_(scheduler.pool_->num_available()),
        spare_logits_(scheduler.options_.max_logit_rows - scheduler.num_running()) {
    const auto num_decodes = static_cast<int32_t>(std::ranges::count_if(
        scheduler.running_, [](const Entry* entry) { return entry->sequence->state() == SequenceState::kDecode; }));
    prefill_rows_ = scheduler.options_.max_num_batched_tokens - num_decodes;
    if (num_decodes > 0) prefill_rows_ = std::min(prefill_rows_, scheduler.options_.max_prefill_chunk);
    if (limit == RunningLimit::kFewer && num_kept_ > 1 &&
        scheduler.running_.back()->sequence->num_preemptions() < kMaxPreemptions) {
      PreemptLeastSenior();
      plan_.num_yielded = 1;
    }
  }

  void ScheduleRunning() {
    for (size_t i = 0; i < num_kept_; ++i) {
      const Sequence& sequence = *scheduler_.running_[i]->sequence;
      if (sequence.num_scheduled_tokens() > 0) continue;  // PlanAhead: ends with the step that is computed
      const bool decodes = sequence.state() == SequenceState::kDecode;
      const int32_t wanted = decodes ? 1 : PrefillRows(sequence, sequence.num_computed_tokens());
      if (wanted > 0) {
        while (Fitting(sequence, wanted) == 0 && num_kept_ > i + 1) PreemptLeastSenior();
        // Alone with the usable blocks and its own, a sequence that passed CheckFits fits.
        CADRE_CHECK(i > 0 || Fitting(sequence, wanted) > 0);
      }
      const int32_t count = Fitting(sequence, wanted);
      if (count > 0) {
        AddChunk(sequence, sequence.num_computed_tokens(), count, static_cast<int32_t>(sequence.block_table().size()),
                 decodes ? &plan_.chunks : &prefills_);
      }
      if (!decodes) prefill_rows_ -= count;
    }
    plan_.num_decodes = static_cast<int32_t>(plan_.chunks.size());
  }

  void AdmitWaiting(const Preferences* preferences) {
    if (!plan_.preempted.empty()) return;
    num_running_ = static_cast<int32_t>(num_kept_);
    for (const Entry* entry : scheduler_.preempted_) {
      if (!Admit(*entry)) return;
    }
    FairQueue::Cursor cursor(&scheduler_.fair_queue_, preferences);
    while (HasPlace()) {
      const Sequence* next = cursor.Next();
      const int32_t rows_before = prefill_rows_;
      if (next == nullptr || !Admit(scheduler_.entries_.at(next->id()))) return;
      cursor.Take(rows_before - prefill_rows_);
    }
  }

  StepPlan Take() {
    plan_.chunks.insert(plan_.chunks.end(), prefills_.begin(), prefills_.end());
    return std::move(plan_);
  }

 private:
  // Rows of the step that a prefill may take. A prompt whose logits are wanted has one row of logits to itself, as any
  // running sequence, and leaves half of the spare ones to who comes next.
  int32_t PrefillRows(const Sequence& sequence, int32_t begin) const {
    const int32_t rows = std::min(sequence.num_tokens() - begin, prefill_rows_);
    return sequence.WholeGroups(begin, sequence.wants_all_logits() ? std::min(rows, 1 + spare_logits_ / 2) : rows);
  }

  // Of `wanted` rows, those that there is room for.
  int32_t Fitting(const Sequence& sequence, int32_t wanted) const {
    return sequence.WholeGroups(sequence.num_computed_tokens(), std::min(wanted, Room(sequence)));
  }

  // Rows that `sequence` could add with its own blocks and all free ones.
  int32_t Room(const Sequence& sequence) const {
    const int64_t blocks = static_cast<int64_t>(sequence.block_table().size()) + free_blocks_;
    const int64_t room = blocks * scheduler_.options_.block_size - sequence.num_computed_tokens();
    return static_cast<int32_t>(std::min<int64_t>(room, sequence.num_uncomputed_tokens()));
  }

  void PreemptLeastSenior() {
    const Sequence& victim = *scheduler_.running_[--num_kept_]->sequence;
    for (int32_t block : victim.block_table()) {
      // A shared block is free once the last of its holders is preempted.
      const bool is_last = ++given_up_[block] == scheduler_.pool_->ref_count(block);
      if (is_last && scheduler_.pool_->is_usable(block)) ++free_blocks_;
    }
    ++spare_logits_;
    plan_.preempted.push_back(victim.id());
  }

  // Blocks that who enters leaves to the others.
  int32_t SpareBlocks() const { return num_running_ == 0 ? 0 : num_running_ + 1; }

  // Whether anybody could enter, however little it needs.
  bool HasPlace() const {
    if (prefill_rows_ == 0 || spare_logits_ == 0 || num_running_ >= max_running_) return false;
    return free_blocks_ >= 1 + SpareBlocks();  // the last token's block is always a new one
  }

  // Whether `entry`, which waits, enters in this step.
  bool Admit(const Entry& entry) {
    if (!HasPlace()) return false;
    const Sequence& sequence = *entry.sequence;
    const int32_t spare = SpareBlocks();
    const std::vector<int32_t> found = scheduler_.FindPrefix(entry);
    const auto num_found = static_cast<int32_t>(found.size());
    const auto num_idle = static_cast<int32_t>(
        std::ranges::count_if(found, [this](int32_t block) { return scheduler_.pool_->is_idle(block); }));
    const int32_t taken = num_idle - num_found;  // found blocks that others hold cost nothing
    if (free_blocks_ < scheduler_.BlocksFor(sequence.num_tokens()) + taken + spare) return false;
    if (sequence.num_preemptions() >= kMaxPreemptions &&
        free_blocks_ < scheduler_.MostBlocks(sequence) + taken + SeniorGrowth(entry.seniority) + entered_growth_) {
      return false;
    }
    const int32_t begin = num_found * scheduler_.options_.block_size;
    const int32_t count = PrefillRows(sequence, begin);
    if (count == 0) return false;
    --spare_logits_;
    ++num_running_;
    free_blocks_ -= num_idle;
    entered_growth_ += scheduler_.MostBlocks(sequence) - scheduler_.BlocksFor(begin + count);
    AddChunk(sequence, begin, count, num_found, &prefills_);
    prefill_rows_ -= count;
    return true;
  }

  // Blocks that running sequences senior to `seniority` may still want.
  int32_t SeniorGrowth(const Seniority& seniority) const {
    int32_t growth = 0;
    for (const Entry* entry : scheduler_.running_) {
      if (entry->seniority > seniority) break;
      growth += scheduler_.MostBlocks(*entry->sequence) - static_cast<int32_t>(entry->sequence->block_table().size());
    }
    return growth;
  }

  void AddChunk(const Sequence& sequence, int32_t begin, int32_t count, int32_t num_blocks,
                std::vector<ScheduledChunk>* chunks) {
    free_blocks_ -= scheduler_.BlocksFor(begin + count) - num_blocks;
    if (sequence.wants_all_logits()) spare_logits_ -= count - 1;
    chunks->push_back({.sequence = sequence.id(),
                       .begin = begin,
                       .count = count,
                       .samples = begin + count == sequence.num_tokens(),
                       .all_logits = sequence.wants_all_logits()});
    if (!sequence.started()) plan_.started.push_back(sequence.id());
  }

  const Scheduler& scheduler_;
  const int32_t max_running_;  // whoever enters is not above this
  size_t num_kept_;            // running_[0, num_kept_) keep their blocks
  int32_t num_running_ = 0;
  int32_t free_blocks_;
  int32_t entered_growth_ = 0;                      // blocks that who enters in this step may still want
  int32_t prefill_rows_ = 0;                        // rows of the step that no decode has a claim on
  int32_t spare_logits_;                            // rows of logits that no running sequence has a claim on
  absl::flat_hash_map<int32_t, int32_t> given_up_;  // how many of a block's holders are preempted
  std::vector<ScheduledChunk> prefills_;
  StepPlan plan_;
};

std::optional<StepPlan> Scheduler::PlanAhead() const {
  int32_t missing = 0;
  for (const Entry* entry : running_) {
    const Sequence& sequence = *entry->sequence;
    if (sequence.num_scheduled_tokens() > 0) continue;
    if (sequence.state() != SequenceState::kDecode) return std::nullopt;
    missing +=
        BlocksFor(int64_t{sequence.num_computed_tokens()} + 1) - static_cast<int32_t>(sequence.block_table().size());
  }
  if (missing > pool_->num_available()) return std::nullopt;
  StepPlan plan = Plan();
  if (std::ssize(plan.chunks) != plan.num_decodes || plan.empty()) return std::nullopt;
  return plan;
}

StepPlan Scheduler::Plan(RunningLimit limit, const Preferences* preferences) const {
  Draft draft(*this, limit);
  draft.ScheduleRunning();
  draft.AdmitWaiting(preferences);
  return draft.Take();
}

}  // namespace cadre
