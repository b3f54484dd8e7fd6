// Which experts lie in which slots of a bounded arena: who is in, who travels, who is in use, who must give way.
//
//   empty ── BeginLoad ──► loading ── FinishLoad ──► idle ◄── Unpin / Pin ──► pinned
//     ▲                       │                       │
//     └────── FailLoad ───────┘        idle ── BeginLoad of another ──► loading
#ifndef CADRE_ENGINE_EXPERTS_SLOT_TABLE_H_
#define CADRE_ENGINE_EXPERTS_SLOT_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/expert_id.h"
#include "engine/experts/expert_set.h"

namespace cadre {

using SlotId = int32_t;

enum class SlotState : uint8_t { kEmpty, kLoading, kIdle, kPinned };
inline constexpr size_t kNumSlotStates = 4;
enum class LoadCause : uint8_t {
  kMiss,
  kPrefetch,  // the next layer is said to need it
  kPlaced,    // somebody wants it to be there, whether or not a step will need it
};
enum class LookupResult : uint8_t {
  kHit,         // in its slot
  kTravelling,  // a load that was begun before is under way: a miss, too
  kMiss,
};

// A load that was begun. The version of a slot rises with every load, so that one that ends late is known for what it
// is.
struct LoadTicket {
  ExpertId expert = 0;
  SlotId slot = 0;
  uint64_t version = 0;
};

// Exact integers. hits + misses = lookups.
// miss_loads + prefetch_loads + placed_loads = loads_done + loads_failed + loading slots.
// loads_done = evictions + idle and pinned slots.
// prefetch_loads = prefetches used + late + wasted + failed + slots of prefetches that nobody wanted yet.
struct SlotCounters {
  int64_t hits = 0;
  int64_t misses = 0;
  int64_t miss_loads = 0;      // begun because of a miss
  int64_t prefetch_loads = 0;  // begun ahead
  int64_t placed_loads = 0;    // begun because somebody wants the expert to be there
  int64_t loads_done = 0;
  int64_t loads_failed = 0;
  int64_t evictions = 0;          // by a load that took the slot, or with it
  int64_t prefetches_used = 0;    // there when first wanted
  int64_t prefetches_late = 0;    // still travelling when first wanted
  int64_t prefetches_wasted = 0;  // put out before anyone wanted them
  int64_t prefetches_failed = 0;  // failed before anyone wanted them

  bool operator==(const SlotCounters&) const = default;
  SlotCounters& operator+=(const SlotCounters& other);
};

// A pure state machine, without clocks and threads. Not thread-safe. REQUIRES of all calls: experts are in
// [0, num_experts), and time does not go back.
class SlotTable {
 public:
  // Ids of a layer follow each other. REQUIRES: num_slots >= 1, num_experts >= 1 (of all layers together), a multiple
  // of num_layers, as many as `policy` was made for.
  SlotTable(int64_t num_experts, int64_t num_slots, std::unique_ptr<EvictionPolicy> policy, int64_t num_layers = 1);

  // A step needs `expert` now: counts it and tells the policy. Once per expert, layer and step.
  LookupResult Lookup(ExpertId expert, const LayerTime& now);
  // Lets the policy take `expert` for one that was needed then. Counts nothing.
  void Remember(ExpertId expert, const LayerTime& then);
  // The slot that `expert` is in, whether idle or pinned.
  std::optional<SlotId> Find(ExpertId expert) const;
  bool is_loading(ExpertId expert) const;
  // Calls visit(expert, state) for every slot that is not empty, in the order of slots.
  template <typename Visit>
  void VisitSlots(Visit visit) const {
    for (const Slot& each : slots_) {
      if (each.state != SlotState::kEmpty) visit(each.expert, each.state);
    }
  }
  // Those of SetKept; ids rise.
  std::vector<ExpertId> ListKept() const;

  // Takes an empty slot for `expert`, or that of the idle expert which gives way; nothing if there is none of them, or
  // if `expert` has a slot already or travels. Experts that are kept do not give way, and those of `protected_experts`
  // (ids rise) not to a prefetch. Where nothing is begun, nothing changes. O(slots + num_experts / 64); of misses that
  // follow each other only one in kMaxVictims takes that long.
  std::optional<LoadTicket> BeginLoad(ExpertId expert, LoadCause cause, const LayerTime& now,
                                      std::span<const ExpertId> protected_experts = {});
  // REQUIRES: the ticket is of a load under way, and of the slot's version.
  void FinishLoad(const LoadTicket& ticket);
  // Empties the slot. REQUIRES: as FinishLoad.
  void FailLoad(const LoadTicket& ticket);

  // Keeps `expert` in its slot until as many Unpins have come. REQUIRES: it is in its slot, as Find says.
  void Pin(ExpertId expert);
  // REQUIRES: it is pinned.
  void Unpin(ExpertId expert);
  // From now on `experts`, in any order, do not give way once they are in; those of the last call do again. Loads
  // nothing. INVALID_ARGUMENT, and nothing changes, if an id is not below num_experts, or if all of them together
  // would leave fewer than `min_free_slots` usable slots for the others; none always fit. REQUIRES:
  // min_free_slots >= 1.
  absl::Status SetKept(std::vector<ExpertId> experts, int64_t min_free_slots);

  // Lets loads take the slots [0, count) alone, and puts out, kept or not, who is idle in the others. Who is pinned or
  // loading there stays until the call after that: repeat it between steps until is_drained, and their memory is free.
  // All are usable at first. INVALID_ARGUMENT, and nothing changes, if the kept experts would be left with fewer free
  // slots than SetKept was told. REQUIRES: 1 <= count <= num_slots.
  absl::Status SetUsableSlots(int64_t count);
  int64_t num_usable_slots() const { return num_usable_; }
  bool has_empty_slot() const { return !empty_.empty(); }
  int64_t num_kept() const { return num_kept_; }
  // Whether all slots that are not usable are empty.
  bool is_drained() const;
  // Slots that are not usable, and empty.
  int64_t num_withdrawn() const;

  int64_t num_experts() const { return static_cast<int64_t>(slot_of_.size()); }
  int64_t num_slots() const { return static_cast<int64_t>(slots_.size()); }
  int64_t CountSlots(SlotState state) const { return slots_by_state_[static_cast<size_t>(state)]; }
  SlotCounters counters() const;
  // What that sums up, [layers].
  const std::vector<SlotCounters>& layer_counters() const { return layer_counters_; }
  // Recounts everything from the slots; INTERNAL names what does not agree.
  absl::Status Audit() const;

 private:
  struct Slot {
    SlotState state = SlotState::kEmpty;
    bool was_wanted = false;  // since its last load began
    ExpertId expert = -1;     // whose weights are in it, or on their way
    int32_t pins = 0;
    uint64_t version = 0;
  };

  SlotId SlotOf(ExpertId expert) const;
  Slot& slot(SlotId id) { return slots_[static_cast<size_t>(id)]; }
  const Slot& slot(SlotId id) const { return slots_[static_cast<size_t>(id)]; }
  bool is_usable(SlotId id) const { return id < num_usable_; }
  // Whether it may be taken for a load, as it is.
  bool MayGiveWay(SlotId id) const;
  int64_t& CountOf(SlotState state) { return slots_by_state_[static_cast<size_t>(state)]; }
  void SetState(SlotId id, SlotState state);
  void SetIdle(SlotId id);
  // Takes out what is in it. REQUIRES: it is idle or loading.
  void Clear(SlotId id);
  absl::Status CheckKeptFit(int64_t num_kept, int64_t num_usable, int64_t min_free_slots) const;
  void ListCandidates();
  // Who gives way next, of all that may.
  std::optional<ExpertId> NextVictim(const LayerTime& now);
  std::optional<SlotId> MakeRoom(LoadCause cause, const LayerTime& now, std::span<const ExpertId> protected_experts);
  void Evict(SlotId id);
  SlotCounters& CountersOf(ExpertId expert) {
    return layer_counters_[static_cast<size_t>(expert) * layer_counters_.size() / slot_of_.size()];
  }
  Slot& LoadingSlot(const LoadTicket& ticket);
  absl::Status AuditSlot(SlotId id) const;
  absl::Status AuditExpert(ExpertId expert) const;
  absl::Status AuditCounters() const;

  std::vector<Slot> slots_;
  std::array<int64_t, kNumSlotStates> slots_by_state_ = {};
  std::vector<SlotId> slot_of_;  // by expert; -1: none
  std::vector<SlotId> empty_;    // of the usable ones; the last one is taken first
  int64_t num_usable_;
  ExpertSet kept_;
  int64_t num_kept_ = 0;
  int64_t min_free_slots_ = 1;
  ExpertSet may_give_way_;            // in usable idle slots, and not kept
  std::vector<ExpertId> candidates_;  // of one choice
  // Who gives way next, as long as nobody else may and the policy is told nothing; some may have been pinned since.
  std::array<ExpertId, kMaxVictims> victims_ = {};
  size_t next_victim_ = 0;
  size_t num_victims_ = 0;
  LayerTime victims_time_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<SlotCounters> layer_counters_;
  int64_t lookups_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_SLOT_TABLE_H_
