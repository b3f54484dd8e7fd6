#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

SchedulerOptions Checked(SchedulerOptions options) {
  CADRE_CHECK_GE(options.max_num_seqs, 1);
  CADRE_CHECK_GE(options.max_num_batched_tokens, 1);
  CADRE_CHECK_GE(options.block_size, 1);
  CADRE_CHECK_GE(options.max_model_len, 1);
  // With at least one row for each running sequence, decodes can never use up the rows of an earlier prefill.
  options.max_num_seqs = std::min(options.max_num_seqs, options.max_num_batched_tokens);
  options.max_logit_rows = std::max(options.max_logit_rows, options.max_num_seqs);
  return options;
}

template <typename List>
bool EraseById(List* list, SequenceId id) {
  const auto it = std::lower_bound(list->begin(), list->end(), id,
                                   [](const Sequence* sequence, SequenceId value) { return sequence->id() < value; });
  if (it == list->end() || (*it)->id() != id) return false;
  list->erase(it);
  return true;
}

}  // namespace

// A plan in the making: what is left of each budget after the decisions so far.
class Scheduler::Draft {
 public:
  explicit Draft(const Scheduler& scheduler)
      : scheduler_(scheduler),
        num_kept_(scheduler.running_.size()),
        free_blocks_(scheduler.pool_->num_free()),
        prefill_rows_(scheduler.options_.max_num_batched_tokens),
        spare_logits_(scheduler.options_.max_logit_rows - scheduler.num_running()) {
    for (const Sequence* sequence : scheduler.running_) {
      if (sequence->state() == SequenceState::kDecode) --prefill_rows_;
    }
  }

  void ScheduleRunning() {
    for (size_t i = 0; i < num_kept_; ++i) {
      const Sequence& sequence = *scheduler_.running_[i];
      const bool decodes = sequence.state() == SequenceState::kDecode;
      const int32_t wanted = decodes ? 1 : PrefillRows(sequence);
      if (wanted > 0) {
        while (Room(sequence) == 0 && num_kept_ > i + 1) PreemptLatest();
        CADRE_CHECK(i > 0 || Room(sequence) > 0);  // alone with the whole pool, a sequence that passed CheckFits fits
      }
      const int32_t count = std::min(wanted, Room(sequence));
      if (count > 0) AddChunk(sequence, count, decodes ? &plan_.chunks : &prefills_);
      if (!decodes) prefill_rows_ -= count;
    }
    plan_.num_decodes = static_cast<int32_t>(plan_.chunks.size());
  }

  void AdmitWaiting() {
    if (!plan_.preempted.empty()) return;
    size_t num_running = num_kept_;
    for (const Sequence* sequence : scheduler_.waiting_) {
      if (prefill_rows_ == 0 || spare_logits_ == 0 ||
          num_running == static_cast<size_t>(scheduler_.options_.max_num_seqs))
        return;
      const int32_t needed = scheduler_.BlocksFor(sequence->num_tokens());
      const auto spare = static_cast<int32_t>(num_running == 0 ? 0 : num_running + 1);
      if (free_blocks_ < needed + spare) return;
      --spare_logits_;
      const int32_t count = PrefillRows(*sequence);
      AddChunk(*sequence, count, &prefills_);
      prefill_rows_ -= count;
      ++num_running;
    }
  }

  StepPlan Take() {
    plan_.chunks.insert(plan_.chunks.end(), prefills_.begin(), prefills_.end());
    return std::move(plan_);
  }

 private:
  // Rows of the step that a prefill may take. A prompt whose logits are wanted has one row of logits to itself, as any
  // running sequence, and leaves half of the spare ones to who comes next.
  int32_t PrefillRows(const Sequence& sequence) const {
    const int32_t rows = std::min(sequence.num_uncomputed_tokens(), prefill_rows_);
    return sequence.wants_all_logits() ? std::min(rows, 1 + spare_logits_ / 2) : rows;
  }

  // Rows that `sequence` could add with its own blocks and all free ones.
  int32_t Room(const Sequence& sequence) const {
    const int64_t blocks = static_cast<int64_t>(sequence.block_table().size()) + free_blocks_;
    const int64_t room = blocks * scheduler_.options_.block_size - sequence.num_computed_tokens();
    return static_cast<int32_t>(std::min<int64_t>(room, sequence.num_uncomputed_tokens()));
  }

  void PreemptLatest() {
    const Sequence& victim = *scheduler_.running_[--num_kept_];
    free_blocks_ += static_cast<int32_t>(victim.block_table().size());
    plan_.preempted.push_back(victim.id());
  }

  void AddChunk(const Sequence& sequence, int32_t count, std::vector<ScheduledChunk>* chunks) {
    const int32_t begin = sequence.num_computed_tokens();
    free_blocks_ -= scheduler_.BlocksFor(begin + count) - static_cast<int32_t>(sequence.block_table().size());
    if (sequence.wants_all_logits()) spare_logits_ -= count - 1;
    chunks->push_back({.sequence = sequence.id(),
                       .begin = begin,
                       .count = count,
                       .samples = begin + count == sequence.num_tokens(),
                       .all_logits = sequence.wants_all_logits()});
    if (!sequence.started()) plan_.started.push_back(sequence.id());
  }

  const Scheduler& scheduler_;
  size_t num_kept_;  // running_[0, num_kept_) keep their blocks
  int32_t free_blocks_;
  int32_t prefill_rows_;  // rows of the step that no decode has a claim on
  int32_t spare_logits_;  // rows of logits that no running sequence has a claim on
  std::vector<ScheduledChunk> prefills_;
  StepPlan plan_;
};

Scheduler::Scheduler(const SchedulerOptions& options, BlockPool* pool) : options_(Checked(options)), pool_(pool) {
  CADRE_CHECK(pool != nullptr);
}

int32_t Scheduler::BlocksFor(int64_t num_tokens) const {
  return static_cast<int32_t>((num_tokens + options_.block_size - 1) / options_.block_size);
}

absl::Status Scheduler::CheckFits(int64_t num_prompt_tokens, int64_t max_tokens) const {
  const std::string request = absl::StrCat("prompt has ", num_prompt_tokens, " tokens and max_tokens is ", max_tokens);
  // Compared by subtraction: the sum of two numbers from outside may overflow.
  if (num_prompt_tokens > options_.max_model_len || max_tokens > options_.max_model_len - num_prompt_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(request, ", together more than the model's limit of ", options_.max_model_len, " tokens"));
  }
  const int64_t num_rows = num_prompt_tokens + max_tokens - 1;
  const int64_t capacity = static_cast<int64_t>(pool_->num_total()) * options_.block_size;
  if (num_rows > capacity) {
    return absl::InvalidArgumentError(
        absl::StrCat(request, ", together ", num_rows, " tokens to keep, but the KV cache holds ", capacity));
  }
  return absl::OkStatus();
}

void Scheduler::Add(Sequence* sequence) {
  CADRE_CHECK(sequence->state() == SequenceState::kWaiting);
  CADRE_CHECK_GT(sequence->id(), last_id_);
  last_id_ = sequence->id();
  waiting_.push_back(sequence);
}

void Scheduler::Finish(Sequence* sequence) {
  const bool was_waiting = sequence->state() == SequenceState::kWaiting;
  pool_->Release(sequence->Finish());
  CADRE_CHECK(was_waiting ? EraseById(&waiting_, sequence->id()) : EraseById(&running_, sequence->id()));
}

StepPlan Scheduler::Plan() const {
  Draft draft(*this);
  draft.ScheduleRunning();
  draft.AdmitWaiting();
  return draft.Take();
}

void Scheduler::Commit(const StepPlan& plan) {
  for (SequenceId id : plan.preempted) {
    Sequence* victim = running_.back();
    CADRE_CHECK_EQ(victim->id(), id);
    pool_->Release(victim->Preempt());
    running_.pop_back();
    waiting_.push_front(victim);
  }
  for (const ScheduledChunk& chunk : plan.chunks) {
    if (!waiting_.empty() && waiting_.front()->id() == chunk.sequence) {
      running_.push_back(waiting_.front());
      waiting_.pop_front();
    }
    const auto it = std::lower_bound(running_.begin(), running_.end(), chunk.sequence,
                                     [](const Sequence* s, SequenceId id) { return s->id() < id; });
    CADRE_CHECK(it != running_.end() && (*it)->id() == chunk.sequence);
    Sequence* sequence = *it;
    CADRE_CHECK_EQ(sequence->num_computed_tokens(), chunk.begin);
    const int32_t missing = BlocksFor(chunk.begin + chunk.count) - static_cast<int32_t>(sequence->block_table().size());
    sequence->Schedule(chunk.count, pool_->Allocate(missing));
  }
}

absl::Status Scheduler::AuditSequence(const Sequence& sequence, std::vector<int32_t>* holders) const {
  const int64_t covered = sequence.num_computed_tokens() + sequence.num_scheduled_tokens();
  if (static_cast<int32_t>(sequence.block_table().size()) != BlocksFor(covered)) {
    return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " has ", sequence.block_table().size(),
                                            " blocks for ", covered, " tokens"));
  }
  for (int32_t block : sequence.block_table()) {
    if (block < 0 || block >= pool_->num_total()) {
      return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " holds unknown block ", block));
    }
    ++(*holders)[static_cast<size_t>(block)];
  }
  if (covered > sequence.num_tokens() ||
      (sequence.state() == SequenceState::kDecode && sequence.num_uncomputed_tokens() != 1)) {
    return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " in state ",
                                            ToAbsl(SequenceStateName(sequence.state())), " has ", covered, " of ",
                                            sequence.num_tokens(), " tokens computed or scheduled"));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::Audit() const {
  std::vector<int32_t> holders(static_cast<size_t>(pool_->num_total()), 0);
  SequenceId previous = -1;
  const auto audit_list = [&](const auto& list, bool waiting) -> absl::Status {
    for (const Sequence* sequence : list) {
      if (sequence->id() <= previous) {
        return absl::InternalError(absl::StrCat("sequence ", sequence->id(), " stands behind ", previous));
      }
      previous = sequence->id();
      const bool waits = sequence->state() == SequenceState::kWaiting;
      if (waits != waiting || sequence->state() == SequenceState::kFinished) {
        return absl::InternalError(absl::StrCat("sequence ", sequence->id(), " is in the wrong list for state ",
                                                ToAbsl(SequenceStateName(sequence->state()))));
      }
      if (absl::Status status = AuditSequence(*sequence, &holders); !status.ok()) return status;
    }
    return absl::OkStatus();
  };
  if (absl::Status status = audit_list(running_, false); !status.ok()) return status;
  if (absl::Status status = audit_list(waiting_, true); !status.ok()) return status;
  if (num_running() > options_.max_num_seqs) {
    return absl::InternalError(absl::StrCat(num_running(), " sequences run, limit is ", options_.max_num_seqs));
  }
  for (int32_t block = 0; block < pool_->num_total(); ++block) {
    if (pool_->ref_count(block) != holders[static_cast<size_t>(block)]) {
      return absl::InternalError(absl::StrCat("block ", block, " counts ", pool_->ref_count(block), " holders, ",
                                              holders[static_cast<size_t>(block)], " sequences hold it"));
    }
  }
  return pool_->Audit();
}

}  // namespace cadre
