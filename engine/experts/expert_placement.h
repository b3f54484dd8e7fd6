// Where the weights of every expert are: a copy that one thread makes between steps and any other may read.
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_PLACEMENT_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_PLACEMENT_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "engine/experts/expert_id.h"
#include "engine/experts/slot_table.h"

namespace cadre {

// The slowest first.
enum class ExpertTier : uint8_t {
  kCheckpoint,  // on disk alone, or on the way from there
  kHost,
  kDevice,  // in a slot, ready to compute
};

// Of one moment. Layers are those that have experts.
struct ExpertPlacement {
  std::vector<ExpertTier> tiers;  // [layers, experts]
  // Of what the cache holds: experts of this tier, and of faster ones, are had without a miss.
  ExpertTier slowest_cached = ExpertTier::kDevice;
  // Ids rise.
  std::vector<ExpertId> loading;       // on their way into a slot
  std::vector<ExpertId> kept;          // do not give way, whether they are in a slot yet or not
  std::vector<ExpertId> quarantined;   // could not be read, and are not tried again just now
  std::vector<SlotCounters> counters;  // since the start, [layers]
  // How long steps have waited for reads since the start; empty where no step waits for any.
  std::vector<absl::Duration> waits = {};  // [layers]
};

// Who has a slot, travels or is kept, by the table; all others are in the tier `elsewhere`. Nobody is in quarantine.
// O(slots), and a byte for each expert.
ExpertPlacement PlacementOf(const SlotTable& table, ExpertTier elsewhere);

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_PLACEMENT_H_
