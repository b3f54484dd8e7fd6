// Serves the experts of one layer after another from a bounded arena: what is there is handed out first, while what is
// missing travels.
//
// A layer that needs more experts than there are slots runs in waves. An expert is read once however many requests want
// it. One that cannot be read is missing, for the steps that need it and for them alone: after a pause, which grows
// from failure to failure, it is tried again.
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_CACHE_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/clock.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/expert_loader.h"
#include "engine/experts/expert_placement.h"
#include "engine/experts/expert_source.h"
#include "engine/experts/prefetch_planner.h"
#include "engine/experts/shadow_simulator.h"
#include "engine/experts/slot_table.h"

namespace cadre {

struct ExpertCacheOptions {
  int32_t num_layers = 0;   // with experts
  int32_t num_experts = 0;  // of a layer
  int64_t num_slots = 0;
  int64_t num_usable_slots = 0;  // at the start; 0: all
  int64_t slot_bytes = 0;        // from slot to slot in the arena; at least the source's expert_bytes()
  EvictionPolicyKind policy = EvictionPolicyKind::kNextUse;
  int num_threads = 4;  // reads at a time that steps wait for
  // Reads at a time that nobody waits for yet; 0: Prefetch does nothing, and what is loaded unasked has one thread.
  int num_ahead_threads = 0;
  int max_attempts = 3;
  // How long a layer waits while no read ends. A read that is given up then goes on, and nobody waits for it again.
  absl::Duration wait_limit = absl::Seconds(10);
  // How long an expert that could not be read is not tried again: at first, and at most.
  absl::Duration first_quarantine = absl::Seconds(1);
  absl::Duration last_quarantine = absl::Seconds(30);
  bool simulates_shadows = false;  // whether there is a ShadowSimulator
  // To be loaded into empty slots before anybody asks, in this order. Policies take the first one for the last used.
  // None twice.
  std::vector<ExpertId> warm_start = {};
};

struct PlacedExpert {
  int32_t expert = 0;  // of the layer
  std::byte* weights = nullptr;
};
struct MissingExpert {
  int32_t expert = 0;   // of the layer
  absl::Status status;  // UNAVAILABLE, names the expert and what went wrong
};

// An expert that could not be read and is left alone for a while, or one that came back.
struct ExpertFault {
  std::string message;   // names the expert and what went wrong; of one that came back, its name
  absl::Duration pause;  // not tried again before; zero of one that came back
};
struct ExpertFaults {
  std::vector<ExpertFault> told;
  int64_t num_more = 0;  // beyond those that are told
};

// Counters are exact integers since the start.
struct ExpertCacheReport {
  SlotCounters slots;
  ExpertLoaderCounters loads;
  absl::Duration wait_time;  // steps stood still for so long
  int64_t direct_bytes = 0;  // computed with where they lie in the host's memory, each expert of a layer's step once
  int64_t waves = 0;
  int64_t missing = 0;    // experts that a layer had to do without
  int64_t num_slots = 0;  // usable ones, and those that still have to be left
  int64_t empty_slots = 0;
  int64_t loading_slots = 0;
  int64_t idle_slots = 0;
  int64_t pinned_slots = 0;
  int64_t quarantined = 0;             // experts that are not tried again just now
  int64_t kept = 0;                    // experts that do not give way once they are there
  int64_t awaited = 0;                 // experts that are to be loaded unasked, as Place says
  int64_t placed = 0;                  // experts that were, and came
  double link_bytes_per_second = 0.0;  // from the host's memory, when slots were filled at the start; 0: not known
  int64_t resident = 0;  // experts that have no slot and need none: they lie in the device's memory for good
};

// One thread calls everything, unless said otherwise.
class ExpertCache {
 public:
  // `arena` has num_slots times slot_bytes, and outlives the cache as `source` and `clock` do.
  ExpertCache(const ExpertCacheOptions& options, const ExpertSource* source, const Clock* clock, std::byte* arena);

  void BeginStep();
  // REQUIRES: the waves of the layer before have been taken to their end; `needed` rise; layers rise within a step.
  void BeginLayer(int32_t layer, std::span<const int32_t> needed);
  // Between BeginLayer and NextWave: has those read that are missing of `predicted`, experts of the next layer, as far
  // as there is time before that layer, and room that this one and they do not need.
  void Prefetch(std::span<const PredictedExpert> predicted);
  // Those of the needed experts that were there when the layer began. Until the first wave is asked for.
  std::span<const PlacedExpert> found() const { return wave_; }
  // The next of the needed experts, which stay where they are until the next call. Empty when there are no more: then
  // missing() is known. Waits while there is nothing else to do.
  std::span<const PlacedExpert> NextWave();
  std::span<const MissingExpert> missing() const { return missing_; }
  // After BeginLayer, in place of further waves: the step has failed, and nobody computes with what the layer still
  // needs. Reads under way go on, as reads ahead.
  void AbandonLayer();

  // From now on `experts` do not give way once they are there, those of the last call do again; Place loads the ones
  // that are missing, in this order. REQUIRES: between steps; ids in range, none twice; at most num_slots - 1.
  void Keep(const std::vector<ExpertId>& experts);
  // Goes on with what is to be loaded unasked: kept experts, which others give way for, then those of the warm start,
  // while slots are empty. A few are under way at a time: a step that wants to read waits for none of them. Says after
  // what time it is to be called again, if no step comes before: also because an expert that could not be read may be
  // tried again then, and Report and Placement tell another story. REQUIRES: between steps.
  absl::Duration Place();

  // As SlotTable::SetUsableSlots; what is being read into the others is still waited for, until is_drained. REQUIRES:
  // between steps, 1 <= count <= num_slots.
  absl::Status SetUsableSlots(int64_t count);
  // Looks for reads that have ended meanwhile.
  bool IsDrained();

  ExpertCacheReport Report() const;
  absl::Duration wait_time() const { return wait_time_; }  // as in the report
  // Between steps. O(experts).
  ExpertPlacement Placement() const;
  // What happened since the last call: one for each time that an expert was set aside, however many steps do without
  // it.
  ExpertFaults TakeFaults();
  // What other caches would have done; null where nobody simulates them. Any thread.
  ShadowSimulator* shadow_simulator() const { return shadow_.get(); }
  // Recounts; INTERNAL names what does not agree.
  absl::Status Audit() const { return table_.Audit(); }

 private:
  struct Quarantine {
    absl::Time until;
    absl::Duration length;
    absl::Status status;
  };

  ExpertId IdOf(int32_t expert) const { return now_.layer * options_.num_experts + expert; }
  int32_t ExpertOf(ExpertId id) const { return id % options_.num_experts; }
  std::byte* WeightsOf(SlotId slot) const { return arena_ + slot * options_.slot_bytes; }
  // Null if it may be tried.
  const absl::Status* Refusal(ExpertId id) const;
  bool IsSetAside(ExpertId id, const Quarantine& quarantine) const;
  void HandOut(ExpertId id, SlotId slot);
  void UnpinWave();
  void StartLoads();
  void TakeEnded();
  LoadLink Link() const;
  void NoteTimeSincePrefetch();
  // Whether waiting may bring anything: not while all readers, or all slots, have reads that do not end.
  bool CanEnd() const;
  void GiveUp();
  void PutInQuarantine(ExpertId id, const absl::Status& status);
  void Tell(ExpertFault fault);
  int64_t MaxPlacing() const;
  int64_t CountAwaited() const;
  // Whether the load could begin.
  bool StartPlacing(ExpertId id);
  // Until somebody who was set aside is so no more, as far as that is known.
  absl::Duration UntilFaultsChange() const;
  // How long those of the kept experts wait that could not be read: the shortest time.
  absl::Duration PlaceKept();
  void PlaceWarm();
  // Until somebody should look again at reads under way.
  absl::Duration PlacingPause() const;

  const ExpertCacheOptions options_;
  const ExpertSource* const source_;
  const Clock* const clock_;
  std::byte* const arena_;
  int64_t max_travelling_;
  SlotTable table_;
  LayerTime now_{.step = 0, .layer = 0};  // before the first step it is that of what is remembered
  // Of the layer:
  bool has_begun_ = false;  // its first wave has been handed out
  std::vector<PlacedExpert> wave_;
  std::vector<ExpertId> waiting_;  // for a slot, the last first
  absl::flat_hash_set<ExpertId> travelling_;
  absl::flat_hash_set<ExpertId> ahead_;  // travelling, and not asked for yet
  std::vector<MissingExpert> missing_;

  absl::flat_hash_map<ExpertId, Quarantine> quarantine_;
  bool are_readers_stuck_ = false;                   // until any read ends
  absl::flat_hash_set<ExpertId> stalled_;            // given up while their reads went on
  ExpertFaults faults_;                              // that nobody has taken
  std::deque<ExpertId> absent_kept_;                 // but for those that came by themselves since
  std::deque<ExpertId> warm_start_;                  // not begun yet
  absl::flat_hash_set<ExpertId> placing_;            // travelling unasked
  absl::Time prefetch_time_ = absl::InfinitePast();  // of the layer before, if there was a prefetch
  double lead_seconds_ = 0.0;                        // from there to this layer, of late; 0: not known yet
  absl::Time last_progress_ = absl::InfinitePast();  // when a read has ended, or one that nobody asked for has begun
  absl::Duration wait_time_;
  int64_t waves_ = 0;
  int64_t num_missing_ = 0;
  int64_t num_placed_ = 0;
  std::vector<absl::Duration> layer_waits_;  // [layers]
  const std::unique_ptr<ShadowSimulator> shadow_;
  ExpertLoader loader_;  // last: its threads write to the arena
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_CACHE_H_
