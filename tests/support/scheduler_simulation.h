// Drives scheduler, block pool, prefix cache and sequences through any series of operations and audits after each one.
#ifndef CADRE_TESTS_SUPPORT_SCHEDULER_SIMULATION_H_
#define CADRE_TESTS_SUPPORT_SCHEDULER_SIMULATION_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/request/sequence.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/scheduler.h"

namespace cadre {

struct SimulatedArrival {
  int32_t num_prompt_tokens = 1;
  int32_t max_tokens = 1;
  int32_t num_generated = 1;  // <= max_tokens: where the sequence will end by itself
  int64_t ttl = 1'000'000;    // operations from now until it expires
  int32_t num_sequences = 1;  // of one request, with one prompt
  int32_t family = 0;         // prompts of one family begin with the same tokens; 0: no family
  int32_t num_family_tokens = 24;
  std::string tenant = {};
  int32_t priority = 0;
  bool is_cached = true;  // with its tenant's other prompts
  bool needs_prompt_logits = false;
};

// A model is not needed: a sampled token is a function of the tokens before it, and each sequence knows after how many
// it will end. Each operation returns the first rule that was broken:
//   the audit of scheduler, pool, cache and queue;
//   a plan is within its budgets, names nobody twice, has decodes first, and planning twice gives the same;
//   in every step something runs, and after it the most senior has run;
//   a sequence in decode is passed over only while every block is taken;
//   a chunk ends where a group of its prompt ends, if they have groups;
//   whatever a row reads through its block table is the history of its own sequence, also in shared blocks; nothing is
//   ever written into a block that two sequences hold.
class SchedulerSimulation {
 public:
  // Rows of prompts have groups of `prompt_group` positions, or none.
  SchedulerSimulation(const SchedulerOptions& options, int32_t num_blocks, int32_t prompt_group = 0);

  // What plans are made with from now on.
  void SetPreferences(Preferences preferences) { preferences_ = std::move(preferences); }

  absl::Status Arrive(const SimulatedArrival& arrival);
  // Ends the sequence that is `index`-th in flight, modulo their number.
  absl::Status Cancel(uint32_t index);
  // The same, as one whose keys and values are not to be trusted: its blocks are cleared.
  absl::Status Fail(uint32_t index);
  // The same sequence will end with its next token.
  absl::Status StopSoon(uint32_t index);
  // Time passes: ends whoever is past its time to live.
  absl::Status Expire(int64_t elapsed);
  // Scheduler::SetUsableBlocks, with what is left in range of `count`; what withdrawn blocks contained is lost.
  absl::Status Resize(uint32_t count);
  absl::Status Step();
  // Steps until nothing is in flight. Something runs in every step, and a sequence is preempted a bounded number of
  // times: the number of rows that are left bounds the number of steps.
  absl::Status Drain();

  int64_t num_arrived() const { return num_arrived_; }  // sequences
  int64_t num_refused() const { return num_refused_; }  // can never fit
  int64_t num_ended() const { return num_ended_; }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t num_steps() const { return num_steps_; }
  int64_t num_resizes() const { return num_resizes_; }  // that were not refused
  int64_t num_drained() const { return num_drained_; }  // of these, how many ended with fewer blocks
  int64_t num_rows() const { return num_rows_; }
  int64_t num_recomputed() const { return num_recomputed_; }
  int64_t num_found() const { return num_found_; }                // rows of ended sequences that came from the cache
  int64_t sum_of_peaks() const { return sum_of_peaks_; }          // most rows that each ended sequence ever had
  int32_t most_preemptions() const { return most_preemptions_; }  // of one sequence
  int64_t rows_of(const std::string& tenant) const;               // that the tenant's sequences computed
  int32_t num_in_flight(const std::string& tenant) const;
  bool idle() const { return live_.empty(); }
  BlockPool& pool() { return pool_; }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  struct Live {
    Sequence sequence;
    int32_t num_generated;
    int64_t expiry;
  };

  StepPlan Plan() const { return scheduler_.Plan(RunningLimit::kNone, preferences_ ? &preferences_ : nullptr); }
  absl::Status Audit() const;
  void LoseWithdrawn();
  absl::Status CheckPlan(const StepPlan& plan) const;
  absl::Status CheckDecodesRun(const StepPlan& plan) const;
  absl::Status WriteRows(const ScheduledChunk& chunk);
  absl::Status ReadRows(const Sequence& sequence, int32_t count) const;
  void Advance(const ScheduledChunk& chunk);
  std::vector<int32_t> MakePrompt(const SimulatedArrival& arrival);
  void End(SequenceId id, bool is_sound = true);
  SequenceId InFlight(uint32_t index) const;

  const int32_t prompt_group_;
  BlockPool pool_;
  Scheduler scheduler_;
  Preferences preferences_ = nullptr;
  std::map<SequenceId, Live> live_;
  std::vector<uint64_t> slots_;  // [num_blocks, B]: a hash of the history that was written there
  std::map<std::string, int64_t> rows_of_;
  SequenceId next_id_ = 0;
  int64_t now_ = 0;
  int64_t num_arrived_ = 0;
  int64_t num_refused_ = 0;
  int64_t num_ended_ = 0;
  int64_t num_preemptions_ = 0;
  int64_t num_steps_ = 0;
  int64_t num_resizes_ = 0;
  int64_t num_drained_ = 0;
  bool is_draining_ = false;
  int64_t num_rows_ = 0;
  int64_t num_recomputed_ = 0;
  int64_t num_found_ = 0;
  int64_t sum_of_peaks_ = 0;
  int32_t most_preemptions_ = 0;
};

// Reads a series of operations from bytes, the way the fuzz target does: the first four choose pool, block size,
// budgets and cache, each operation takes what it needs and the rest of an unfinished one is zero. Ends with a drain.
absl::Status RunSchedulerBytes(std::span<const uint8_t> bytes);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_SCHEDULER_SIMULATION_H_
