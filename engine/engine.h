// Turns requests into tokens. One thread owns the sequences, the KV blocks and the model; the rest of the world submits
// requests through a bounded queue and is answered through each request's TokenSink.
//
// The loop reads: Admit, Plan, Forward, Sample, Publish.
#ifndef CADRE_ENGINE_ENGINE_H_
#define CADRE_ENGINE_ENGINE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/clock.h"
#include "engine/base/memory_ladder.h"
#include "engine/cache_domain.h"
#include "engine/expert_pins.h"
#include "engine/experts/expert_id.h"
#include "engine/experts/expert_stats.h"
#include "engine/experts/routing_profile.h"
#include "engine/joint_budget.h"
#include "engine/model/model_runner.h"
#include "engine/request/request.h"
#include "engine/request/request_queue.h"
#include "engine/router_bias.h"
#include "engine/tenant_ledger.h"
#include "engine/text/tokenizer.h"

namespace cadre {

struct EngineOptions {
  int32_t max_num_seqs = 64;              // sequences in a step
  int32_t max_num_batched_tokens = 2048;  // token rows in a step
  int32_t max_queue_requests = 256;       // waiting for their first step; one more is refused
  int64_t max_queue_tokens = 1 << 20;     // prompt tokens of those requests
  // The prompt tokens of those requests and all that they may generate.
  int64_t max_queue_total_tokens = int64_t{1} << 40;
  double max_tenant_share = 1.0;    // of each of these limits, and of max_replay_bytes, for one named tenant
  bool deadline_admission = false;  // refuse who is not expected to be answered in time
  // Refuse who is expected to wait longer for others before its own prompt is computed.
  absl::Duration max_queue_wait = absl::InfiniteDuration();
  int32_t max_prefill_chunk = 0;    // prompt rows in a step that also decodes; 0: no limit of their own
  int64_t priority_tokens = 65536;  // how far a level of priority reaches; see FairQueue
  PrefixCacheScope prefix_cache = PrefixCacheScope::kTenant;
  uint64_t prefix_cache_seed = 0;  // best unpredictable; changes no output
  std::vector<int32_t> eos_token_ids = {};
  int64_t max_replay_bytes = int64_t{256} << 20;  // of recorded choices of all requests in flight
  // Sequences go on where an expert cannot be read, instead of ending with UNAVAILABLE. REQUIRES: no prefix cache.
  bool tolerate_missing_experts = false;
  bool allow_capacity_override = true;      // whether requests may bring a capacity policy of their own
  BiasBalancerOptions bias_balancing = {};  // off by default: it changes answers
  int64_t stats_window_tokens = 65536;      // sliding window of the expert statistics
  int32_t routing_sample_steps = 0;         // see ProfileOptions::sample_steps
  // Orders a step that decodes before the one in front of it is finished, where the runner can and no row needs the
  // host.
  bool overlap_steps = true;
  // Of waiting requests of one tenant and priority, prefer those whose experts are in memory, where there is an expert
  // cache. Learns from the steps that are sampled.
  bool expert_aware_scheduling = false;
};

// One finished step, for whoever counts.
struct StepReport {
  absl::Duration duration;
  int32_t num_sequences = 0;
  int32_t prefill_tokens = 0;     // rows of chunks that hold prompt or recomputed tokens
  int32_t decode_tokens = 0;      // rows that extend a sequence by one sampled token
  int32_t recomputed_tokens = 0;  // rows that had been computed before a preemption
  int32_t discarded_tokens = 0;   // decode rows of sequences that ended meanwhile: in none of the counts above
  int32_t preemptions = 0;
  bool is_ahead = false;  // ordered before the step in front of it was finished
};

// Called from the engine thread; must not block.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepReport& report) = 0;
  // Right before the request's sink hears the same, and after the OnStep of the step that ended it.
  virtual void OnFinish(const FinishSummary& summary) = 0;
  // Experts of a cache could not be read, or could again. Before OnStep.
  virtual void OnExpertFaults(const ExpertFaults& /*faults*/) {}
  // Memory has moved between expert slots and KV blocks, or was to; `report` says why. Between steps.
  virtual void OnMemoryMove(const MemoryMove& /*move*/, const JointBudgetReport& /*report*/) {}
};

// Counters and gauges; each field is exact, and the set is consistent: the loop publishes it before and after each
// step, and what has been submitted since then is counted as waiting.
struct EngineSnapshot {
  int64_t admitted_requests = 0;  // accepted by Submit
  int64_t finished_ok = 0;
  int64_t finished_cancelled = 0;
  int64_t finished_deadline = 0;
  int64_t finished_failed = 0;
  int64_t waiting_requests = 0;  // queued or preempted
  int64_t running_requests = 0;
  int64_t waiting_tokens = 0;  // prompt tokens of waiting requests
  // Requests that wait for their first step, by class of priority.
  std::array<int64_t, kNumPriorityClasses> queued_requests = {};
  absl::Duration oldest_wait;        // age of the oldest waiting request
  int64_t prompt_tokens = 0;         // of requests that reached their first step
  int64_t prefix_lookup_tokens = 0;  // prompt tokens of sequences that reached their first step and may share
  int64_t prefix_hit_tokens = 0;     // of those, found in the prefix cache then
  int64_t kv_block_evictions = 0;    // cached blocks that were given to another sequence
  int64_t generated_tokens = 0;      // delivered to sinks
  int64_t prefill_tokens = 0;        // rows, see StepReport
  int64_t decode_tokens = 0;
  int64_t recomputed_tokens = 0;
  int64_t discarded_tokens = 0;
  int64_t discarded_assignments = 0;  // of those rows
  int64_t preemptions = 0;
  int64_t memory_preemptions = 0;  // of these, for the host's memory and not for KV blocks
  int64_t steps = 0;
  bool orders_ahead = false;                      // may order steps before those in front are finished
  int64_t steps_ahead = 0;                        // of these, ordered before the one in front was finished
  int64_t routed_tokens = 0;                      // rows x MoE layers, of whomever
  int64_t routed_assignments = 0;                 // rows x MoE layers x K, or fewer where their number varies
  int64_t router_bias_updates = 0;                // since the start
  std::optional<ExpertCacheReport> expert_cache;  // where not all experts are in memory
  int64_t preferred_sequences = 0;                // started out of turn, because more of their experts were in memory
  int64_t passed_over = 0;                        // times that a sequence was passed over by one of these
  std::shared_ptr<const ExpertPlacement> expert_placement;  // of the same moment as expert_cache, and there with it
  std::optional<JointBudgetReport> joint_budget;            // where memory may move between expert slots and KV blocks
  float router_bias_largest = 0.0f;                         // how far the farthest bias is from the checkpoint's
  int32_t kv_blocks_free = 0;
  int32_t kv_blocks_in_use = 0;
  int32_t kv_blocks_cached = 0;
  int32_t kv_blocks_total = 0;  // those with memory behind them: free + in use + cached
  absl::Time last_step_end;     // for the progress watchdog; infinite past before the first step
  bool is_lost = false;         // every step will fail: the device is lost to this process
  bool is_in_forward = false;   // the model is at work on a step, however long that takes

  int64_t num_finished() const { return finished_ok + finished_cancelled + finished_deadline + finished_failed; }
};

// What the recorded choices of `request`, whose prompt and max_tokens are settled, must agree with.
ReplayBounds ReplayBoundsOf(const RunnerLimits& limits, const Request& request);

class Engine {
 public:
  // `tokenizer` and `observer` may be null (no text output; nobody counts) and must outlive the engine.
  Engine(EngineOptions options, std::unique_ptr<ModelRunner> runner, const Tokenizer* tokenizer,
         std::shared_ptr<const Clock> clock, EngineObserver* observer);
  // As Stop.
  ~Engine();

  // Starts the engine thread. Without it, a test drives the loop by Step().
  void Start();
  // Stops at once: requests still in flight end with UNAVAILABLE, and the snapshots are final once this returns.
  // Idempotent; one thread at a time.
  void Stop();

  // Hands a request over. Never blocks. On success the sink will hear OnFinish exactly once; otherwise it is never
  // called. UNAVAILABLE: draining. INVALID_ARGUMENT: prompt + max_tokens can never fit (says which limit), or recorded
  // choices do not fit the model or the request. FAILED_PRECONDITION: it brings a capacity policy or recorded choices,
  // or wants prompt_logprobs, that are not to be had here. RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED, with a Refusal: the
  // queue is full, for all or for this tenant, or of recorded choices, or the answer is not expected before the
  // deadline. Errors of its choose_capacity are returned as they are.
  absl::Status Submit(Request request);
  // Wakes the loop, so that a cancel flag just set is seen at once even when the engine is idle. Any thread.
  void Wake();

  // What to give up for memory from now on. To be called whenever the memory was read: at kPreempt, each call puts one
  // sequence back to waiting, so that one reading tells what the last one brought. Any thread.
  void SetMemoryPressure(MemoryPressure pressure);

  // What holds for requests that come from now on and bring no policy of their own; those accepted keep theirs. Returns
  // what held before. INVALID_ARGUMENT as CheckCapacityPolicy; FAILED_PRECONDITION: this runner cannot limit experts.
  // Any thread.
  absl::StatusOr<CapacityPolicy> SetCapacityPolicy(const CapacityPolicy& policy);
  CapacityPolicy capacity_policy() const;  // any thread

  // What the routers' selection bias is now. Any thread.
  RouterBiasReport router_bias() const;
  // Back to the checkpoint's from the next step on. FAILED_PRECONDITION: nothing nudges it. Any thread.
  absl::Status ResetRouterBias();

  // As ExpertPins::Set, from the next step on; those that are missing are loaded beside the steps. Any thread.
  absl::StatusOr<PinChange> PinExperts(std::vector<ExpertId> experts);
  std::vector<ExpertId> pinned_experts() const;  // any thread

  // Has memory move between expert slots and KV blocks, between steps, as soon as what is to go is not in use. Outputs
  // do not depend on it. FAILED_PRECONDITION: they have no common budget that can be split anew. INVALID_ARGUMENT names
  // the limit that `shares` break. Any thread.
  absl::Status AskForShares(const MemoryShares& shares);

  // No new requests from now on; those accepted go on. Any thread, idempotent.
  void StartDrain();
  bool draining() const;
  // True once no request is queued or running; false when `deadline` passed first.
  bool AwaitIdle(absl::Time deadline);

  // One turn of the loop; false when there was nothing to do. Only without Start().
  bool Step();

  const RunnerLimits& limits() const;
  const EngineOptions& options() const;
  EngineSnapshot Snapshot() const;          // any thread
  const ExpertStats& expert_stats() const;  // any thread
  ExpertStats& expert_stats();
  const RoutingProfile& routing_profile() const;  // any thread
  // What other expert caches would have done; null where there is none. Lives as long as the engine. Any thread.
  ShadowSimulator* shadow_simulator() const;
  // What became of the assignments of each tenant, since the start. Any thread.
  std::vector<TenantRouting> Tenants() const;

  // Checks every invariant between sequences, blocks, queue and counters, as exact integers. Engine thread, or a test
  // without Start(). INTERNAL names the first broken one.
  absl::Status Audit() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_ENGINE_H_
