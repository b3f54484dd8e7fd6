// Routed experts that lie in the host's memory, some of which have a copy in slots on the device, where the device has
// memory of its own that does not hold them all.
//
// Whatever is in the slots, a step finds every expert: the tables that the device reads them through lead to a slot, or
// else to the host's memory, over the link. So nothing waits within a step, steps may be recorded, and no output
// depends on the slots. Between two steps experts that were missed are copied into slots, beside the steps that follow.
#ifndef CADRE_ENGINE_MODEL_OFFLOADED_EXPERTS_H_
#define CADRE_ENGINE_MODEL_OFFLOADED_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/experts/expert_cache.h"
#include "engine/experts/expert_placement.h"
#include "engine/experts/shadow_simulator.h"
#include "engine/experts/slot_table.h"
#include "engine/experts/step_routing.h"
#include "engine/model/expert_layout.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cadre {

struct OffloadOptions {
  int64_t num_slots = 0;
  EvictionPolicyKind policy = EvictionPolicyKind::kNextUse;
  std::vector<ExpertId> warm_start = {};  // who is in the slots at first, the most important first
  std::vector<ExpertId> kept = {};        // for Keep, in the slots before those
};

// Engine thread only.
class OffloadedExperts {
 public:
  // `layers`: of each MoE layer the experts [E] that ops are given, each in memory of Device::AllocateMapped and laid
  // out as `layout` says. They outlive it, and nobody else changes them. Fills the slots, those that the options leave
  // with as many experts of each layer. `device` outlives it. REQUIRES: at least one slot, more than are kept.
  static absl::StatusOr<std::unique_ptr<OffloadedExperts>> Create(const ExpertLayout& layout,
                                                                  std::vector<std::span<MlpWeights>> layers,
                                                                  const OffloadOptions& options, Device* device);
  // Waits for copies under way.
  ~OffloadedExperts();
  OffloadedExperts(const OffloadedExperts&) = delete;
  OffloadedExperts& operator=(const OffloadedExperts&) = delete;

  // After each step, with what it routed: counts its experts as hits and misses, lets the tables lead to what has
  // come, and orders copies of some that were missed. The step may still be under way on the device, as may those
  // before it. A device's error is that of the next Device::Synchronize.
  void EndStep(const StepRouting& routing);

  // Between steps: who does not give way from now on, in place of those before. Those that are not there come before
  // others, the first one first. REQUIRES: fewer than slots.
  void Keep(const std::vector<ExpertId>& experts);

  // Between steps: lets the tables lead to what has come since the last one, and orders copies of kept experts. Says
  // after what time it is to be called again, if no step comes before.
  absl::Duration Place();

  ExpertCacheReport Report() const;
  ExpertPlacement Placement() const { return PlacementOf(table_, ExpertTier::kHost); }
  // What caches would have done that take in every expert which is missed. Any thread.
  ShadowSimulator* shadow_simulator() { return &shadow_; }
  // Recounts; INTERNAL names what does not agree.
  absl::Status Audit() const;

 private:
  OffloadedExperts(const ExpertLayout& layout, std::vector<std::span<MlpWeights>> layers, const OffloadOptions& options,
                   DeviceBuffer arena, Device* device);

  int64_t num_experts() const { return static_cast<int64_t>(layers_.front().size()); }  // of a layer
  std::byte* SlotData(SlotId slot) const { return arena_.data() + slot * layout_.size_bytes(); }
  View SlotView(SlotId slot) const {
    return {SlotData(slot), DType::kI32, {layout_.size_bytes() / int64_t{sizeof(int32_t)}}};
  }
  // As it lies in the host's memory.
  const MlpWeights& hosted(ExpertId expert) const { return hosted_[static_cast<size_t>(expert)]; }
  // Where the next step finds `expert`; known to the device after SendTables.
  void Place(ExpertId expert, const MlpWeights& weights);
  void PlaceInHost(ExpertId expert) { Place(expert, hosted(expert)); }

  absl::Status FillSlots(const OffloadOptions& options);
  absl::Status FillSlot(ExpertId expert);
  void CountUses(const StepRouting& routing);
  void AgeUses();
  void TakeEnded();
  // Takes a slot; who gave way for it is found in the host's memory from now on. False if there is none to be had.
  bool BeginLoad(ExpertId expert, LoadCause cause, std::vector<LoadTicket>* tickets);
  // How many copies more may be under way.
  int64_t Room() const;
  // Of kept experts, and of missed ones, as many as there is room for beside `tickets`.
  void BeginKeptLoads(std::vector<LoadTicket>* tickets);
  void BeginMissedLoads(std::vector<LoadTicket>* tickets);
  // Has the device know of what has changed, and bring what was begun.
  void Carry(const std::vector<LoadTicket>& tickets);
  void SendTables();
  void OrderCopies(const std::vector<LoadTicket>& tickets);

  const ExpertLayout layout_;
  const std::vector<std::span<MlpWeights>> layers_;
  const std::vector<MlpWeights> hosted_;  // [MoE layers * E]
  Device* const device_;
  DeviceBuffer arena_;  // the slots
  SlotTable table_;
  std::vector<ExpertId> in_slot_;  // to which slots the tables lead; -1: to none
  std::vector<bool> is_changed_;   // [MoE layers] since the tables were sent
  std::deque<LoadTicket> under_way_;
  std::vector<ExpertId> absent_kept_;
  int64_t num_placed_ = 0;  // kept ones that came
  int64_t num_ended_ = 0;   // copies, as the device counts them, that were taken
  LayerTime now_;
  std::vector<int32_t> uses_;     // steps in which an expert was needed; halved now and then
  std::vector<int32_t> needed_;   // of one layer
  std::vector<ExpertId> missed_;  // of the last step
  int64_t loaded_bytes_ = 0;
  int64_t direct_bytes_ = 0;
  int64_t failed_copies_ = 0;
  double link_bytes_per_second_ = 0.0;  // when the slots were filled
  ShadowSimulator shadow_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_OFFLOADED_EXPERTS_H_
