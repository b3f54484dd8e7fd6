// Decides which tokens of which sequences run in the next step, within budgets of rows, sequences and KV blocks.
#ifndef CADRE_ENGINE_SCHEDULE_SCHEDULER_H_
#define CADRE_ENGINE_SCHEDULE_SCHEDULER_H_

#include <compare>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "engine/request/sequence.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/fair_queue.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/schedule/step_plan.h"

namespace cadre {

// What a plan may leave running, beside SchedulerOptions.
enum class RunningLimit {
  kNone,
  kNoNew,  // whoever runs goes on; nobody enters while somebody runs
  kFewer,  // and the least senior of several who run waits again, unless it must not be preempted any more
};

struct SchedulerOptions {
  int32_t max_num_seqs = 64;              // sequences that hold blocks; at most one per row of a step is used
  int32_t max_num_batched_tokens = 2048;  // rows in a step
  int32_t block_size = 16;                // tokens in a KV block
  int32_t max_model_len = 4096;           // tokens a sequence may have
  int32_t max_logit_rows = 0;             // rows in a step whose logits are wanted; 0: max_num_seqs, which is the least
  int32_t max_prefill_chunk = 0;          // prompt rows in a step that also decodes; 0: no limit of their own
  // No sequence is promised a place that needs more blocks: the pool never has fewer usable ones. 0: all of the pool's.
  int32_t max_sequence_blocks = 0;
  FairQueueOptions fair_queue = {};
  PrefixCacheOptions prefix_cache = {};  // its block_size is the one above
};

// The step is the unit of decision. The rules, of which README.md proves that they lock nothing up and starve nobody:
//
//   rows        Each decode gets its row first; prefill chunks share what is left, in order of seniority.
//   seniority   Of those that have run: priority, then the order of the first run. Who was preempted kMaxPreemptions
//               times is senior to all who were not.
//   blocks      Go to the senior first. A running sequence that cannot advance takes the blocks of the least senior
//   one,
//               which waits and recomputes what it does not find again. The least senior itself keeps its blocks and
//               skips the step. So the most senior advances in every step.
//   admission   First who was preempted, by seniority, then who is new, as FairQueue says; nobody overtakes who is
//               next. It enters when there are blocks for all its known tokens and a spare one for every sequence,
//               and rows that no running sequence wants. Not in a step that preempts. Who was preempted kMaxPreemptions
//               times enters when there are blocks for all that it and its seniors can ever want: nobody preempts it
//               again.
//   groups      Who has a leader waits until the leader has its first token, to share the prompt's blocks.
//
// A pure single-threaded state machine: no clock, no threads, no randomness. Plan decides and changes nothing; Commit
// carries a decision out.
class Scheduler {
 public:
  static constexpr int32_t kMaxPreemptions = 3;  // of one sequence
  static constexpr int32_t kMostCounted = 64;    // by CountMissingBlocks, which is asked in every step

  // `pool` must outlive the scheduler; nobody else allocates from it. REQUIRES: every size >= 1.
  Scheduler(const SchedulerOptions& options, BlockPool* pool);

  // Whether a request of this size can ever run: INVALID_ARGUMENT names the limit it breaks. Any thread. A sequence of
  // P prompt tokens and M generated ones computes P + M - 1 rows, because the last token is never fed back.
  absl::Status CheckFits(int64_t num_prompt_tokens, int64_t max_tokens) const;

  // Queues a new sequence, which must outlive its time here. REQUIRES: kWaiting, an id above all earlier ones, and that
  // CheckFits held for it.
  void Add(Sequence* sequence);
  // Ends a sequence in whatever state it is.
  void Finish(Sequence* sequence);
  // The same for one with a row in a step that is still computed: nobody gets its blocks before ReleaseRetired.
  void Retire(Sequence* sequence);
  void ReleaseRetired();
  // Instead of it, as Discard: returns the blocks that are nobody's now, in the prefix cache neither.
  std::vector<int32_t> DiscardRetired();
  // The same for a sequence whose keys and values are not to be trusted: nothing of it stays in the prefix cache.
  // Returns the blocks that are free now and should be cleared.
  std::vector<int32_t> Discard(Sequence* sequence);
  // Gives up all that is cached and that nobody uses.
  void EvictIdle() { cache_.EvictIdle(); }
  // As PrefixCache::SetUsableBlocks, between steps. False, and nothing changes, where there would be fewer than now
  // while a sequence runs that must not be preempted any more: it was promised what there is. REQUIRES:
  // max_sequence_blocks <= count <= the pool's num_total().
  bool SetUsableBlocks(int32_t count);
  // Whether nobody holds what is not usable.
  bool has_withdrawn_blocks() const { return pool_->is_drained(); }
  // Blocks that the first `count` of those in line lack, all known tokens and a spare one each; at most
  // kMostCounted of them are looked at.
  int32_t CountMissingBlocks(int32_t count) const;

  // The next step. Empty only when nothing waits or runs.
  StepPlan Plan() const { return Plan(RunningLimit::kNone); }
  // `preferences` may be null; they are asked only when somebody could enter, and of no more sequences than the fair
  // queue's window and those that enter.
  StepPlan Plan(RunningLimit limit, const Preferences* preferences = nullptr) const;
  // The step behind one that is still computed, for sequences whose row in that one is assumed (Sequence::Assume): one
  // row more of each. Those with a row in it that is not assumed have none. Nothing where the plan would be another one
  // than that, because somebody could enter, has more rows of a prompt, or would have to give way.
  std::optional<StepPlan> PlanAhead() const;
  // Carries out a plan made from the present state: preempts, admits, allocates, schedules.
  void Commit(const StepPlan& plan);
  // The same for a plan of PlanAhead. Nobody is charged for its rows: whether they are wanted shows later.
  void CommitAhead(const StepPlan& plan);
  // The sequence's row of such a plan was wanted.
  void ChargeAhead(const Sequence& sequence);
  // To be called after a token was appended: what the sequence computed has proved sound, and may be shared.
  void Confirm(Sequence* sequence);

  int32_t num_waiting() const { return static_cast<int32_t>(entries_.size() - running_.size()); }
  // Of those that wait, who could run: not for a leader's first token.
  int32_t num_in_line() const { return fair_queue_.size() + static_cast<int32_t>(preempted_.size()); }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  // The running sequence that advances in the next step whatever happens; kNoSequence when none runs.
  SequenceId most_senior() const { return running_.empty() ? kNoSequence : running_.front()->sequence->id(); }
  const SchedulerOptions& options() const { return options_; }
  const PrefixCache& prefix_cache() const { return cache_; }
  const FairQueue& fair_queue() const { return fair_queue_; }

  // Checks, between steps: block counts are the sums over the block tables, block tables cover exactly what is computed
  // or scheduled, every sequence is in the one list that its place names, lists are in order, and the audits of pool,
  // cache and queue. INTERNAL names the first broken rule.
  absl::Status Audit() const;

 private:
  class Draft;

  enum class Place { kParked, kNew, kPreempted, kRunning };

  // The smaller, the more senior.
  struct Seniority {
    int64_t guard = std::numeric_limits<int64_t>::max();  // rank among those that must not be preempted again
    int64_t negative_priority = 0;
    int64_t rank = 0;                                    // of the first run
    auto operator<=>(const Seniority&) const = default;  // NOLINT(modernize-use-nullptr): it sees the 0 behind it
  };

  struct Entry {
    Sequence* sequence = nullptr;
    Place place = Place::kNew;
    int64_t order = 0;  // in the fair queue
    Seniority seniority = {};
    PrefixChain chain = {};
  };

  int32_t BlocksFor(int64_t num_tokens) const;
  // The most blocks that the sequence will ever hold.
  int32_t MostBlocks(const Sequence& sequence) const;
  std::vector<int32_t> FindPrefix(const Entry& entry) const;
  Entry& Find(SequenceId id);

  void Preempt(SequenceId id);
  void Start(const ScheduledChunk& chunk);
  void Run(const ScheduledChunk& chunk);
  void Charge(const Sequence& sequence, int32_t num_rows);
  // What Finish and Retire have in common; returns the blocks, which are still held.
  std::vector<int32_t> Remove(Sequence* sequence);
  void ReleaseSiblings(SequenceId leader);
  void Detach(Entry* entry);
  static void InsertBySeniority(Entry* entry, std::vector<Entry*>* list);

  absl::Status AuditSequence(const Sequence& sequence, std::vector<int32_t>* holders) const;
  absl::Status AuditPlaces() const;
  absl::Status AuditHolders() const;

  const SchedulerOptions options_;
  BlockPool* const pool_;
  PrefixCache cache_;
  FairQueue fair_queue_;
  std::unordered_map<SequenceId, Entry> entries_;     // everybody; nodes do not move
  std::vector<Entry*> running_;                       // by seniority; each holds at least one block
  std::vector<Entry*> preempted_;                     // by seniority
  std::map<SequenceId, std::vector<Entry*>> parked_;  // by leader
  std::vector<std::vector<int32_t>> retired_;         // block tables
  SequenceId last_id_ = -1;
  int64_t next_rank_ = 0;
  int64_t next_guard_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_SCHEDULER_H_
