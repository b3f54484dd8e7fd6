#include "engine/experts/expert_placement.h"

#include <algorithm>
#include <cstddef>

namespace cadre {

ExpertPlacement PlacementOf(const SlotTable& table, ExpertTier elsewhere) {
  ExpertPlacement placement;
  placement.tiers.assign(static_cast<size_t>(table.num_experts()), elsewhere);
  placement.kept = table.ListKept();
  placement.counters = table.layer_counters();
  // Each step makes a copy: so it looks at slots, and not at all experts.
  table.VisitSlots([&placement](ExpertId id, SlotState state) {
    if (state == SlotState::kLoading) {
      placement.loading.push_back(id);
    } else {
      placement.tiers[static_cast<size_t>(id)] = ExpertTier::kDevice;
    }
  });
  std::ranges::sort(placement.loading);
  return placement;
}

}  // namespace cadre
