// Decides which tokens of which sequences run in the next step, within budgets of rows, sequences and KV blocks.
#ifndef CADRE_ENGINE_SCHEDULE_SCHEDULER_H_
#define CADRE_ENGINE_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "engine/request/sequence.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/step_plan.h"

namespace cadre {

struct SchedulerOptions {
  int32_t max_num_seqs = 64;              // sequences that hold blocks; at most one per row of a step is used
  int32_t max_num_batched_tokens = 2048;  // rows in a step
  int32_t block_size = 16;                // tokens in a KV block
  int32_t max_model_len = 4096;           // tokens a sequence may have
  int32_t max_logit_rows = 0;             // rows in a step whose logits are wanted; 0: max_num_seqs, which is the least
};

// First come, first served, with the step as the unit of decision. The rules:
//
//   order       Sequences stand in order of arrival; every running one arrived before every waiting one.
//   rows        Each decode gets its row first; prefill chunks share the rows that are left, so a long prompt is
//               cut and never starves a decode.
//   blocks      Go to the earliest arrival first. A running sequence that cannot advance takes the blocks of the
//               latest arrival behind it, which waits again at the front, in its old place, and recomputes. The latest
//               itself keeps its blocks and skips the step. So the earliest sequence advances in every step.
//   admission   The first waiting sequence enters when there are blocks for all its known tokens and a spare one for
//               every sequence, and rows that no running sequence wants; nobody overtakes it. Not in a step that
//               preempts.
//
// A pure single-threaded state machine: no clock, no threads, no randomness. Plan decides and changes nothing; Commit
// carries a decision out.
class Scheduler {
 public:
  // `pool` must outlive the scheduler; nobody else allocates from it. REQUIRES: every option >= 1.
  Scheduler(const SchedulerOptions& options, BlockPool* pool);

  // Whether a request of this size can ever run: INVALID_ARGUMENT names the limit it breaks. Any thread. A sequence of
  // P prompt tokens and M generated ones computes P + M - 1 rows, because the last token is never fed back.
  absl::Status CheckFits(int64_t num_prompt_tokens, int64_t max_tokens) const;

  // Queues a new sequence, which must outlive its time here. REQUIRES: kWaiting, an id above all earlier ones, and that
  // CheckFits held for it.
  void Add(Sequence* sequence);
  // Ends a sequence in whatever state it is: the one place where blocks of ended sequences are released.
  void Finish(Sequence* sequence);

  // The next step. Empty only when nothing waits or runs.
  StepPlan Plan() const;
  // Carries out a plan made from the present state: preempts, allocates, schedules.
  void Commit(const StepPlan& plan);

  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  const SchedulerOptions& options() const { return options_; }

  // Checks, between steps: blocks are conserved and belong to one sequence each, block tables cover exactly what is
  // computed or scheduled, every sequence is in the one list its state names, and both lists are in order of arrival.
  // INTERNAL names the first broken rule.
  absl::Status Audit() const;

 private:
  class Draft;

  int32_t BlocksFor(int64_t num_tokens) const;
  absl::Status AuditSequence(const Sequence& sequence, std::vector<int32_t>* holders) const;

  const SchedulerOptions options_;
  BlockPool* const pool_;
  std::deque<Sequence*> waiting_;   // in order of arrival
  std::vector<Sequence*> running_;  // in order of arrival; each holds at least one block
  SequenceId last_id_ = -1;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_SCHEDULER_H_
