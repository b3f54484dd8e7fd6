// Drives scheduler, block pool and sequences through any series of operations and audits after each one.
#ifndef CADRE_TESTS_SUPPORT_SCHEDULER_SIMULATION_H_
#define CADRE_TESTS_SUPPORT_SCHEDULER_SIMULATION_H_

#include <cstdint>
#include <map>
#include <span>

#include "absl/status/status.h"
#include "engine/request/sequence.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/scheduler.h"

namespace cadre {

// A model is not needed: every sampled token is made up, and each request knows after how many it will end. Each
// operation returns the first rule that was broken:
//   the audit of scheduler and pool;
//   a plan is within its budgets, names nobody twice, has decodes first, and planning twice gives the same;
//   the earliest request in flight advances in every step;
//   a request in decode is passed over only while every block is taken.
class SchedulerSimulation {
 public:
  SchedulerSimulation(const SchedulerOptions& options, int32_t num_blocks);

  // `num_generated` <= max_tokens is where the request will end by itself; at `ttl` operations from now it expires.
  absl::Status Arrive(int32_t num_prompt_tokens, int32_t max_tokens, int32_t num_generated, int64_t ttl);
  // Ends the request that is `index`-th in flight, modulo their number.
  absl::Status Cancel(uint32_t index);
  // The same request will end with its next token.
  absl::Status StopSoon(uint32_t index);
  // Time passes: ends whoever is past its time to live.
  absl::Status Expire(int64_t elapsed);
  absl::Status Step();
  // Steps until nothing is in flight. As the earliest request advances in every step, the number of rows that are left
  // bounds the number of steps.
  absl::Status Drain();

  int64_t num_arrived() const { return num_arrived_; }
  int64_t num_refused() const { return num_refused_; }  // can never fit
  int64_t num_ended() const { return num_ended_; }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t num_rows() const { return num_rows_; }
  int64_t num_recomputed() const { return num_recomputed_; }
  bool idle() const { return live_.empty(); }
  BlockPool& pool() { return pool_; }

 private:
  struct Live {
    Sequence sequence;
    int32_t num_generated;
    int64_t expiry;
  };

  absl::Status Audit() const;
  absl::Status CheckPlan(const StepPlan& plan) const;
  absl::Status CheckDecodesRun(const StepPlan& plan) const;
  void End(SequenceId id);

  BlockPool pool_;
  Scheduler scheduler_;
  std::map<SequenceId, Live> live_;
  SequenceId next_id_ = 0;
  int64_t now_ = 0;
  int64_t num_arrived_ = 0;
  int64_t num_refused_ = 0;
  int64_t num_ended_ = 0;
  int64_t num_preemptions_ = 0;
  int64_t num_rows_ = 0;
  int64_t num_recomputed_ = 0;
};

// Reads a series of operations from bytes, the way the fuzz target does: the first four choose pool, block size and
// budgets, each operation takes what it needs and the rest of an unfinished one is zero. Ends with a drain.
absl::Status RunSchedulerBytes(std::span<const uint8_t> bytes);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_SCHEDULER_SIMULATION_H_
