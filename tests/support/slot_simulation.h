// Drives a slot table through any series of operations beside a model of what it has to do, and audits after each one.
#ifndef CADRE_TESTS_SUPPORT_SLOT_SIMULATION_H_
#define CADRE_TESTS_SUPPORT_SLOT_SIMULATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/slot_table.h"

namespace cadre {

struct SlotSimulationOptions {
  EvictionPolicyKind policy = EvictionPolicyKind::kLru;
  int32_t num_layers = 1;
  int32_t num_experts = 1;  // of a layer
  int32_t num_slots = 1;
};

// The numbers choose experts, tickets and times; any are valid.
class SlotSimulation {
 public:
  explicit SlotSimulation(const SlotSimulationOptions& options);

  // INTERNAL names what the table did and should not have done.
  absl::Status Advance(uint32_t layers);
  absl::Status Lookup(uint32_t expert);
  absl::Status BeginLoad(uint32_t expert, LoadCause cause, uint32_t num_protected);
  absl::Status FinishLoad(uint32_t ticket);
  absl::Status FailLoad(uint32_t ticket);
  absl::Status Pin(uint32_t expert);
  absl::Status Unpin(uint32_t expert);
  absl::Status Keep(uint32_t first, uint32_t count, uint32_t min_free_slots);
  absl::Status Use(uint32_t slots);
  // One of these, by `kind`, with numbers from `a` and `b`.
  absl::Status Operate(uint32_t kind, uint32_t a, uint32_t b);
  // Ends all loads and pins.
  absl::Status Drain();

  const SlotTable& table() const { return table_; }

 private:
  struct Expert {
    bool is_in = false;
    bool is_loading = false;
    int32_t pins = 0;
  };

  int32_t num_experts() const { return options_.num_layers * options_.num_experts; }
  ExpertId Pick(uint32_t number) const { return static_cast<ExpertId>(number % static_cast<uint32_t>(num_experts())); }
  Expert& expert(ExpertId id) { return experts_[static_cast<size_t>(id)]; }
  bool has_empty_slot() const;
  // Who has to give way; -1: nobody, as there is an empty slot, or as nobody may.
  ExpertId ExpectedVictim(LoadCause cause, std::span<const ExpertId> protected_experts);
  absl::Status CheckBegun(const LoadTicket& ticket, ExpertId expected_victim);
  std::optional<LoadTicket> TakeTicket(uint32_t number);
  absl::Status Check();

  const SlotSimulationOptions options_;
  SlotTable table_;
  std::unique_ptr<EvictionPolicy> policy_;  // is told the same as that of the table
  LayerTime now_;
  std::vector<Expert> experts_;
  std::set<ExpertId> kept_;
  int64_t min_free_ = 1;
  int64_t num_usable_;
  std::vector<LoadTicket> loads_;   // under way
  std::vector<ExpertId> contents_;  // of each slot; -1: nothing, or half of something
  std::vector<uint64_t> versions_;  // of each slot
  int64_t num_hits_ = 0;
  int64_t num_misses_ = 0;
  int64_t num_evictions_ = 0;
};

// The first four bytes choose the table, then three each are an operation. Ends with a drain.
absl::Status RunSlotBytes(std::span<const uint8_t> bytes);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_SLOT_SIMULATION_H_
