// The engine thread's country: sequences, blocks, sampler and model, without locks.
#ifndef CADRE_ENGINE_ENGINE_LOOP_H_
#define CADRE_ENGINE_ENGINE_LOOP_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/clock.h"
#include "engine/capacity_slots.h"
#include "engine/engine.h"
#include "engine/expert_pins.h"
#include "engine/experts/expert_stats.h"
#include "engine/experts/routing_profile.h"
#include "engine/experts/token_experts.h"
#include "engine/joint_budget.h"
#include "engine/model/model_runner.h"
#include "engine/ordered_step.h"
#include "engine/request/request_queue.h"
#include "engine/request/sequence.h"
#include "engine/response.h"
#include "engine/routing_record.h"
#include "engine/sample/sampler.h"
#include "engine/sample/token_chooser.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/scheduler.h"
#include "engine/service_meter.h"
#include "engine/status_board.h"
#include "engine/tenant_ledger.h"

namespace cadre {

// What the loop works with. Everything outlives it; `tokenizer` and `observer` may be null.
struct LoopParts {
  ModelRunner* runner = nullptr;
  const Tokenizer* tokenizer = nullptr;
  const Clock* clock = nullptr;
  EngineObserver* observer = nullptr;
  RequestQueue* queue = nullptr;
  ExpertStats* expert_stats = nullptr;
  RoutingProfile* routing_profile = nullptr;
  std::span<const uint8_t> token_classes = {};  // by token id
  RouterBias* router_bias = nullptr;
  ExpertPins* expert_pins = nullptr;
  TenantLedger* tenants = nullptr;
  StatusBoard* board = nullptr;
};

// One thread calls everything here but CheckFits, SetMemoryPressure and AskForShares.
class EngineLoop {
 public:
  EngineLoop(const EngineOptions& options, const LoopParts& parts);

  // As Scheduler::CheckFits. Any thread.
  absl::Status CheckFits(int64_t num_prompt_tokens, int64_t max_tokens) const;

  // One turn. False when there was nothing to do.
  bool Step();
  // What is to be done when there was nothing to do; says for how long there will be nothing then, if nobody comes.
  absl::Duration Rest();
  // Ends every request, queued ones included, with `status`.
  void EndAll(const absl::Status& status);

  // As Engine::SetMemoryPressure. Any thread.
  void SetMemoryPressure(MemoryPressure pressure);

  // As Engine::AskForShares. Any thread.
  absl::Status AskForShares(const MemoryShares& shares);

  // As Engine::Audit.
  absl::Status Audit() const;

 private:
  struct Active {
    Sequence sequence;
    TokenChooser chooser;
    Response response;
    size_t tenant = 0;                         // its account in the ledger
    std::optional<RoutingRecord> record = {};  // of what the request wants to be told
  };
  using ActiveMap = std::map<SequenceId, Active>;
  // What is said last is said after the books are closed, so that whoever hears it finds itself counted.
  struct Farewell {
    ActiveMap::node_type node;
    FinishSummary summary;
  };

  // What the logits of a chunk gave.
  struct ChunkResult {
    absl::Status status;
    std::optional<ChosenToken> token;  // of a chunk that samples
  };

  // Between two turns: goes on with what moves between expert slots and KV blocks.
  void MoveMemory();
  // What the step tells of who lacks memory.
  void ObserveBudget(const OrderedStep& step);
  // The parts of a turn, in order. OrderAhead plans and orders the step behind the one that is under way, if it can.
  void Admit(absl::Time now);
  void Plan(absl::Time now, OrderedStep* step);
  absl::Status Order(OrderedStep* step);
  void OrderAhead(absl::Time now);
  void Await(OrderedStep* step);
  std::vector<ChunkResult> Sample(OrderedStep* step);  // one for each chunk
  void Publish(OrderedStep* step, std::vector<ChunkResult> results);

  // Waits for the oldest step that was ordered, and tells what came of it.
  void FinishStep();
  // Gives back the blocks of those who ended before `step`, in which they had a last row, did.
  void ReleaseRetired(const OrderedStep& step);
  // Its sequences end, and with them the step behind it.
  void FailStep(const OrderedStep& step);
  // Of blocks that are nobody's, while no step may write there.
  void ScrubBlocks(std::span<const int32_t> blocks);
  void CloseStep(OrderedStep* step);
  std::unique_ptr<OrderedStep> NewStep(absl::Time begin);
  // Rows of `step` whose sequences go on behind it, whatever it gives; nothing if one of them needs the host to know
  // what that is.
  std::optional<std::vector<size_t>> RowsThatGoOn(const OrderedStep& step) const;
  bool WantsProfile();

  // Gives up what the pressure demands; how many sequences the next step may leave running.
  RunningLimit YieldMemory();
  void AddRequest(Request request);
  // Says in the batch whose experts are limited.
  void LimitCapacity(OrderedStep* step);
  // Recorded choices of their rows.
  void ReplayRouting(OrderedStep* step);
  // What the router asks of them.
  void DescribeSequences(OrderedStep* step);
  void EndInterrupted(absl::Time now);
  // Which rows the device samples, where it can. Of a step that is ordered ahead: false if it cannot sample them all.
  bool PlanChoices(OrderedStep* step);
  ChunkResult SampleChunk(const ScheduledChunk& chunk, std::span<float> logits);
  // What the device chose for the step's row of logits number `row`.
  ChunkResult AdoptChoice(const ScheduledChunk& chunk, const SampledRows& sampled, size_t row);
  void PublishToken(SequenceId id, ChosenToken token, absl::Time now);
  // What speaks for starting a sequence that waits.
  Preference PreferenceOf(const Sequence& sequence, absl::Time now) const;
  // Whether a request has the time to be passed over: only if it would be accepted if it came now, behind all others.
  bool MayBePassedOver(const RequestGroup& group, absl::Time now) const;
  // Whether a request that has not started can no longer be answered before its deadline.
  bool IsHopeless(const RequestGroup& group, absl::Time now) const;
  // Sequences that run, and whether more wait for nothing but blocks.
  void ObserveSeats(const StepPlan& plan);
  void CountStep(OrderedStep* step);
  void TellExpertFaults();
  void CountRouting(const OrderedStep& step);
  void ProfileRouting(const OrderedStep& step);
  void RecordRouting(const OrderedStep& step);
  // Ends the sequence; one that failed takes the rest of its request with it. Nothing for one that has ended.
  void End(SequenceId id, const absl::Status& status);
  void EndSequence(SequenceId id, const absl::Status& status);
  void CountEnd(const RequestGroup& group);
  // Whatever a sequence that failed has computed is not to be trusted, and is cleared, unless only its constraint
  // failed.
  void ReleaseBlocks(Sequence* sequence, const absl::Status& status);
  // Where experts are, for the next books. Nothing but a step or a rest moves them, and the copy is not free.
  void NoteExperts();
  void CloseBooks();
  void SayFarewells();
  absl::Status AuditCounters() const;
  bool IsActive(SequenceId id) const { return active_.contains(id); }
  Active& Find(SequenceId id);
  const Active& Find(SequenceId id) const;

  std::atomic<MemoryPressure> pressure_{MemoryPressure::kNone};
  std::atomic<bool> must_preempt_{false};  // once
  // The engine thread's:
  const EngineOptions options_;
  const LoopParts parts_;
  const RunnerLimits limits_;
  BlockPool pool_;
  Scheduler scheduler_;
  std::optional<JointBudget> budget_;  // where memory may move
  int32_t num_kept_waiting_ = 0;       // by the want of blocks alone, in this step
  Sampler sampler_;
  CapacitySlots capacity_slots_;
  std::optional<TokenExperts> token_experts_;  // where experts decide who goes first
  ActiveMap active_;  // waiting and running, in order of arrival: those of one request stand together
  SequenceId next_id_ = 0;
  // Steps that were ordered and not finished, the oldest first: between two turns at most one. A sequence that has
  // ended since may have a row in it, which is nobody's.
  std::deque<std::unique_ptr<OrderedStep>> in_flight_;
  std::vector<std::unique_ptr<OrderedStep>> spare_steps_;
  std::optional<bool> wants_profile_;  // of the step that is ordered next, once it was asked
  ServiceMeter meter_;
  const bool may_order_ahead_;  // ever
  std::vector<Farewell> farewells_;
  StatusBoard::Notice notice_;  // the counters
  // Of requests that have ended, for the audit.
  int64_t ended_rows_ = 0;  // most tokens each had computed, without those it found computed
  int64_t ended_assignments_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_ENGINE_LOOP_H_
