// Asks again and again, beside the engine and out of its way, what other policies and sizes of the expert cache would
// have made of the latest steps.
#ifndef CADRE_ENGINE_EXPERTS_SHADOW_SIMULATOR_H_
#define CADRE_ENGINE_EXPERTS_SHADOW_SIMULATOR_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/experts/access_trace.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/shadow_cache.h"

namespace cadre {

struct ShadowSimulatorOptions {
  int64_t num_layers = 0;   // with experts
  int64_t num_experts = 0;  // of a layer
  // Of the live cache.
  int64_t num_slots = 0;
  EvictionPolicyKind policy = EvictionPolicyKind::kNextUse;
  int num_threads = 4;      // that it reads with
  int64_t trace_bytes = 0;  // 0: TraceBytes
  // New accesses are simulated this long after the last ones at the latest, ...
  absl::Duration interval = absl::Seconds(15);
  // ... and on request no sooner than this, and nine times as long as the last simulation took of a core: a tenth of
  // one is the most that anybody can have it take.
  absl::Duration min_pause = absl::Milliseconds(500);
};

// What the live policy would have made of some slots more or fewer than the cache had.
struct SlotMargin {
  int64_t num_slots = 0;
  int64_t step_slots = 0;  // 0: nobody wants to know, and the rest is empty
  ShadowResult fewer;
  ShadowResult same;
  ShadowResult more;
};

// One simulation of everything in the trace.
struct WhatIfReport {
  absl::Status status;  // RESOURCE_EXHAUSTED: nothing is ever simulated, as there is no thread for it
  absl::Time time = absl::InfinitePast();  // when it ended; before the first one, the infinite past
  int64_t num_accesses = 0;                // that the cache had seen by then, since the start
  int64_t num_steps = 0;                   // in the trace
  int64_t num_lookups = 0;                 // in the trace: of every row
  int64_t num_simulations = 0;             // since the start
  absl::Duration cpu_time;                 // of all of them together
  // Of the live cache, when the simulation began.
  int64_t num_slots = 0;
  EvictionPolicyKind policy = EvictionPolicyKind::kLru;
  int64_t num_experts = 0;  // of the model, all layers together
  SlotMargin margin;
  std::vector<WhatIfRow> rows;  // as SimulateWhatIf; empty before the first one
};

class ShadowSimulator {
 public:
  // Where the system allows no more threads, nothing is simulated, and every report says so.
  explicit ShadowSimulator(const ShadowSimulatorOptions& options);
  // Ends a simulation under way behind its current row.
  ~ShadowSimulator();
  ShadowSimulator(const ShadowSimulator&) = delete;
  ShadowSimulator& operator=(const ShadowSimulator&) = delete;

  // What a layer needed; `experts` of the layer rise. Costs a store for each, and waits for nobody: the simulator's
  // thread, which hardly ever gets a core beside busy ones, holds nothing that is needed here. One thread.
  void Note(const LayerTime& now, std::span<const int32_t> experts);
  // Accesses that were noted. Any thread.
  int64_t num_accesses() const { return num_accesses_.load(); }
  // The last simulation. Never null. Any thread.
  std::shared_ptr<const WhatIfReport> Latest() const;
  // Simulates what was noted since, as soon as the options allow. Any thread.
  void Refresh();
  // The same for an engine's thread, which is not to wait for one that hardly ever gets a core: null, or false, and
  // nothing is done, where the simulator's thread has just what they need.
  std::shared_ptr<const WhatIfReport> TryLatest() const;
  bool TryRefresh();

  // The live cache has another size from the next simulation on. Any thread.
  void SetNumSlots(int64_t num_slots);
  // Who never gives way in the live cache, the most important first; margins are told with them from the next
  // simulation on. Any thread.
  void SetKept(std::vector<ExpertId> experts);
  // Has each further simulation tell of so many slots more and fewer, which makes it longer by a fifth. Any thread.
  void SetMarginStep(int64_t step_slots) { margin_step_.store(step_slots); }

  // Bytes of a trace that is simulated within about a second, policies and sizes together: the work for a group grows
  // with the experts of the model.
  static int64_t TraceBytes(int64_t num_layers, int64_t num_experts);

 private:
  // What was noted since the last simulation began.
  struct Fresh {
    AccessTrace trace;
    int64_t num_accesses = 0;  // since the start, when the last of it was noted; 0: nothing is
  };

  void Work();
  // False if the simulator ends meanwhile.
  bool AwaitTurn(std::unique_lock<std::mutex>& lock);
  std::unique_ptr<Fresh> TakeFresh();
  void Simulate(const AccessTrace& fresh, const std::vector<ExpertId>& kept, WhatIfReport* report);
  SlotMargin SimulateMargin(const AccessLog& log, int64_t num_slots, const std::vector<ExpertId>& kept) const;

  const ShadowSimulatorOptions options_;
  const AccessTraceOptions trace_options_;
  // The thread's:
  AccessTrace trace_;
  absl::Duration last_cpu_time_;
  std::atomic<int64_t> num_accesses_ = 0;
  std::atomic<int64_t> num_slots_;
  std::atomic<int64_t> margin_step_ = 0;
  std::atomic<bool> must_stop_ = false;
  std::atomic<Fresh*> fresh_;  // owned; null while Note is at work on it
  mutable std::mutex mutex_;   // for what follows; held for a swap
  std::condition_variable has_changed_;
  bool is_wanted_ = false;
  std::shared_ptr<const WhatIfReport> latest_;
  std::vector<ExpertId> kept_;
  std::vector<ExpertId> ids_;  // of one group; the caller's of Note
  std::thread thread_;         // last: it uses all of it
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_SHADOW_SIMULATOR_H_
