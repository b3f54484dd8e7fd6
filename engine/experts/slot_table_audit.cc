// The rules that hold of a slot table between any two calls.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/experts/slot_table.h"

namespace cadre {

absl::Status SlotTable::AuditSlot(SlotId id) const {
  const Slot& each = slot(id);
  const auto listed = std::ranges::count(empty_, id);
  if (listed != (each.state == SlotState::kEmpty && is_usable(id) ? 1 : 0)) {
    return absl::InternalError(absl::StrCat("slot ", id, " is listed as empty ", listed, " times"));
  }
  if ((each.state == SlotState::kEmpty) != (each.expert < 0) || (each.state == SlotState::kPinned) != (each.pins > 0)) {
    return absl::InternalError(absl::StrCat("slot ", id, " of state ", static_cast<int>(each.state), " has expert ",
                                            each.expert, " and ", each.pins, " pins"));
  }
  if (each.expert >= 0 && SlotOf(each.expert) != id) {
    return absl::InternalError(
        absl::StrCat("slot ", id, " holds expert ", each.expert, ", which is in slot ", SlotOf(each.expert)));
  }
  return absl::OkStatus();
}

absl::Status SlotTable::AuditExpert(ExpertId expert) const {
  const SlotId id = SlotOf(expert);
  if (id >= 0 && slot(id).expert != expert) {
    return absl::InternalError(
        absl::StrCat("expert ", expert, " is in slot ", id, ", which holds expert ", slot(id).expert));
  }
  const bool may_give_way = id >= 0 && MayGiveWay(id);
  if (may_give_way_.Contains(expert) != may_give_way) {
    return absl::InternalError(absl::StrCat("expert ", expert, may_give_way ? " may" : " may not", " give way"));
  }
  return absl::OkStatus();
}

absl::Status SlotTable::AuditCounters() const {
  const SlotCounters c = counters();
  const auto num_unwanted = std::ranges::count_if(
      slots_, [](const Slot& each) { return each.state != SlotState::kEmpty && !each.was_wanted; });
  const auto recount = [this](SlotState state) { return std::ranges::count(slots_, state, &Slot::state); };
  const int64_t num_loading = recount(SlotState::kLoading);
  const int64_t num_there = recount(SlotState::kIdle) + recount(SlotState::kPinned);
  const struct {
    const char* name;
    int64_t is;
    int64_t should_be;
  } identities[] = {
      {"empty slots", CountSlots(SlotState::kEmpty), recount(SlotState::kEmpty)},
      {"loading slots", CountSlots(SlotState::kLoading), num_loading},
      {"idle slots", CountSlots(SlotState::kIdle), recount(SlotState::kIdle)},
      {"pinned slots", CountSlots(SlotState::kPinned), recount(SlotState::kPinned)},
      {"hits + misses", c.hits + c.misses, lookups_},
      {"loads begun", c.miss_loads + c.prefetch_loads + c.placed_loads, c.loads_done + c.loads_failed + num_loading},
      {"loads done", c.loads_done, c.evictions + num_there},
      {"prefetches", c.prefetch_loads,
       c.prefetches_used + c.prefetches_late + c.prefetches_wasted + c.prefetches_failed + num_unwanted},
  };
  for (const auto& each : identities) {
    if (each.is == each.should_be) continue;
    return absl::InternalError(absl::StrCat(each.name, " are ", each.is, " and should be ", each.should_be));
  }
  return absl::OkStatus();
}

absl::Status SlotTable::Audit() const {
  for (SlotId id = 0; id < num_slots(); ++id) CADRE_RETURN_IF_ERROR(AuditSlot(id));
  for (ExpertId expert = 0; expert < num_experts(); ++expert) CADRE_RETURN_IF_ERROR(AuditExpert(expert));
  return AuditCounters();
}

}  // namespace cadre
