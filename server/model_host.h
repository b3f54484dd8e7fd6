// The one place where the served model lives, from the first moment of the process to the last:
//
//   kLoading ──Install──► kReady ──StartDrain──► kDraining ──Stop──► kStopped
//       └────────────────StartDrain / Stop───────────┘
//
// The services ask it for admission and hand requests to the engine through it, so that none of them holds an engine
// that is going away.
#ifndef CADRE_SERVER_MODEL_HOST_H_
#define CADRE_SERVER_MODEL_HOST_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/clock.h"
#include "engine/engine.h"
#include "engine/structured/constraint_cache.h"
#include "engine/text/tokenizer.h"
#include "kernels/device.h"
#include "server/model_card.h"
#include "server/translate_chat.h"

namespace cadre {

// What a loader hands over. `device` is null for a simulated model.
struct LoadedModel {
  ModelCard card;
  std::unique_ptr<Device> device;
  std::unique_ptr<const Tokenizer> tokenizer;
  ChatSupport chat;
  std::unique_ptr<ModelRunner> runner;
};

// The part that never changes once loaded, and outlives the engine.
struct ServedText {
  ModelCard card;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<ConstraintCache> constraints;  // of structured output
  ChatSupport chat;
  absl::Time ready_time;
};

// A copy of the statistics that many share, and when it was taken.
struct TimedExperts {
  absl::Time time;
  ExpertSnapshot experts;
};

// However many clients ask, the engine is held up by copying a few times a second.
inline constexpr absl::Duration kMaxExpertsAge = absl::Milliseconds(100);
// And where they ask for a newer one, no sooner after the last than this.
inline constexpr absl::Duration kMinExpertsAge = absl::Milliseconds(10);

// Thread rules: any thread, except Install, Stop and the destructor, which belong to one thread at a time.
class ModelHost {
 public:
  enum class State { kLoading, kReady, kDraining, kStopped };

  // `observer` may be null; it must outlive the host.
  ModelHost(std::string served_name, std::shared_ptr<const Clock> clock, EngineObserver* observer);
  ~ModelHost();
  ModelHost(const ModelHost&) = delete;
  ModelHost& operator=(const ModelHost&) = delete;

  const std::string& served_name() const { return served_name_; }
  const Clock& clock() const { return *clock_; }
  State state() const { return state_.load(std::memory_order_acquire); }

  void SetLoadProgress(double ratio) { load_progress_.store(ratio); }
  double load_progress() const { return load_progress_.load(); }
  // Takes the model over and starts its engine.
  void Install(LoadedModel model);

  // NOT_FOUND when `name` is neither empty nor the served one.
  absl::Status CheckName(std::string_view name) const;
  // The model; UNAVAILABLE, with a reason and a delay, while it is loading.
  absl::StatusOr<std::shared_ptr<const ServedText>> Text() const;
  // The same for a request that generates: UNAVAILABLE while draining, too.
  absl::StatusOr<std::shared_ptr<const ServedText>> Admit() const;

  // Engine::Submit, with errors as clients see them.
  absl::Status Submit(Request request);
  // Engine::Wake; nothing when there is no engine.
  void Wake();
  // Of the engine; of its last moment once it is gone; all zero before.
  EngineSnapshot Snapshot() const;
  // A copy that is at most kMaxExpertsAge old, and not older than the last reset or baseline. Never null.
  std::shared_ptr<const TimedExperts> Experts() const;
  // The same, and not older than the end of the first `num_ended` sequences. Null: there is none, and it is too early
  // for another; there is kMinExpertsAge later.
  std::shared_ptr<const TimedExperts> ExpertsKnowing(int64_t num_ended) const;
  // Sequences that have ended: who has an answer finds all its tokens counted in a copy that knows of so many.
  int64_t num_ended() const { return num_ended_.load(); }
  // The engine gave the last of a sequence; to be called before its client hears of it.
  void SequenceEnded() { num_ended_.fetch_add(1); }
  // What was seen of single tokens; empty without an engine.
  ProfileCounts Profile(size_t max_pairs) const;
  // ExpertStats::SetBaseline; nothing without an engine.
  void SetExpertBaseline(std::vector<int64_t> chosen);
  // The statistics before they were set to zero.
  ExpertSnapshot ResetExperts();
  // The same statistics without any reset, for metrics.
  ExpertSnapshot LifetimeExperts() const;

  // What other expert caches would have done; null without a cache. Also after the engine.
  std::shared_ptr<const WhatIfReport> WhatIf() const;
  // Has what happened until now simulated, soon; experts that the cache was asked for by then.
  int64_t RefreshWhatIf();

  // Engine::Tenants, also after it.
  std::vector<TenantRouting> Tenants() const;

  // Engine::SetCapacityPolicy, with errors as clients see them; UNAVAILABLE without an engine.
  absl::StatusOr<CapacityPolicy> SetCapacityPolicy(const CapacityPolicy& policy);
  // Off without an engine.
  CapacityPolicy capacity_policy() const;

  // Engine::router_bias; of nothing without an engine.
  RouterBiasReport router_bias() const;
  // Engine::ResetRouterBias, with errors as clients see them; UNAVAILABLE without an engine.
  absl::Status ResetRouterBias();

  // Engine::PinExperts, with errors as clients see them; UNAVAILABLE without an engine.
  absl::StatusOr<PinChange> PinExperts(std::vector<ExpertId> experts);
  // Of Engine::pinned_experts; none without an engine.
  std::vector<ExpertId> pinned_experts() const;

  // What to give up for memory from now on; see Engine::SetMemoryPressure.
  void SetMemoryPressure(MemoryPressure pressure);
  // Bytes that compiled constraints may take beside the sequences that use them.
  void SetConstraintMemory(int64_t bytes);

  // How long a refused client should wait: the time in which half the queue drains at the rate measured by
  // ObserveProgress, with jitter so that refused clients do not come back together.
  absl::Duration RetryDelay() const;
  // Called about once a second, with the time, by whoever watches the engine.
  void ObserveProgress(absl::Time now);

  // Generation calls that are open on the connection side and whose request has come, answered or not.
  void CallOpened() { num_open_calls_.fetch_add(1); }
  void CallClosed() { num_open_calls_.fetch_sub(1); }
  int32_t num_open_calls() const { return num_open_calls_.load(); }

  void StartDrain();
  // True when nothing is queued or running.
  bool IsIdle() const;
  // Ends the engine; requests in flight end with UNAVAILABLE.
  void Stop();

 private:
  std::shared_ptr<const ServedText> text() const;
  // REQUIRES: experts_mutex_ is held.
  std::shared_ptr<const TimedExperts> CopyExperts() const;
  absl::Status NotServing(State state) const;

  // Constant after construction.
  const std::string served_name_;
  const std::shared_ptr<const Clock> clock_;
  EngineObserver* const observer_;

  std::atomic<State> state_{State::kLoading};
  std::atomic<double> load_progress_{0.0};
  std::atomic<double> finished_per_second_{0.0};
  std::atomic<int32_t> num_open_calls_{0};
  std::atomic<int64_t> num_ended_{0};

  // Shared by calls into the engine, exclusive for replacing it. Never held while an engine stops: its thread may
  // be calling a sink that waits for somebody who waits for this lock.
  mutable std::shared_mutex mutex_;
  std::shared_ptr<const ServedText> text_;
  std::unique_ptr<Device> device_;
  // Shared with those who count what may take long, which may outlast Stop by so much.
  std::shared_ptr<Engine> engine_;
  EngineSnapshot last_snapshot_;
  ExpertSnapshot last_experts_;
  ExpertSnapshot last_lifetime_experts_;
  std::vector<TenantRouting> last_tenants_;
  std::shared_ptr<const WhatIfReport> last_what_if_;

  // Held while a copy is made, so that one is made at a time. Locked before `mutex_`.
  mutable std::mutex experts_mutex_;
  mutable std::shared_ptr<const TimedExperts> experts_;  // null: to be made
  mutable std::chrono::steady_clock::time_point experts_time_;
  mutable int64_t experts_num_ended_ = 0;

  // Of ObserveProgress alone.
  absl::Time observed_at_ = absl::InfinitePast();
  int64_t observed_finished_ = 0;
  bool had_queue_ = false;
};

}  // namespace cadre

#endif  // CADRE_SERVER_MODEL_HOST_H_
