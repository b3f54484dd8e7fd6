#include "engine/experts/slot_table.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace cadre {

namespace {

size_t AtLeastOne(int64_t count) {
  CADRE_CHECK_GE(count, 1);
  return static_cast<size_t>(count);
}

int64_t& LoadsBegun(LoadCause cause, SlotCounters& counters) {
  switch (cause) {
    case LoadCause::kMiss:
      return counters.miss_loads;
    case LoadCause::kPrefetch:
      return counters.prefetch_loads;
    case LoadCause::kPlaced:
      return counters.placed_loads;
  }
  CADRE_CHECK(false);
}

}  // namespace

SlotCounters& SlotCounters::operator+=(const SlotCounters& other) {
  hits += other.hits;
  misses += other.misses;
  miss_loads += other.miss_loads;
  prefetch_loads += other.prefetch_loads;
  placed_loads += other.placed_loads;
  loads_done += other.loads_done;
  loads_failed += other.loads_failed;
  evictions += other.evictions;
  prefetches_used += other.prefetches_used;
  prefetches_late += other.prefetches_late;
  prefetches_wasted += other.prefetches_wasted;
  prefetches_failed += other.prefetches_failed;
  return *this;
}

SlotTable::SlotTable(int64_t num_experts, int64_t num_slots, std::unique_ptr<EvictionPolicy> policy, int64_t num_layers)
    : slots_(AtLeastOne(num_slots)),
      slot_of_(AtLeastOne(num_experts), -1),
      empty_(slots_.size()),
      num_usable_(num_slots),
      kept_(num_experts),
      may_give_way_(num_experts),
      policy_(std::move(policy)),
      layer_counters_(AtLeastOne(num_layers)) {
  CADRE_CHECK(policy_ != nullptr);
  CADRE_CHECK_EQ(num_experts % num_layers, 0);
  std::iota(empty_.rbegin(), empty_.rend(), 0);
  CountOf(SlotState::kEmpty) = num_slots;
  candidates_.reserve(slots_.size());
}

SlotId SlotTable::SlotOf(ExpertId expert) const {
  CADRE_CHECK_GE(expert, 0);
  CADRE_CHECK_LT(expert, num_experts());
  return slot_of_[static_cast<size_t>(expert)];
}

LookupResult SlotTable::Lookup(ExpertId expert, const LayerTime& now) {
  const SlotId id = SlotOf(expert);
  policy_->OnUse(expert, now);
  num_victims_ = 0;
  ++lookups_;
  SlotCounters& counters = CountersOf(expert);
  if (id < 0) {
    ++counters.misses;
    return LookupResult::kMiss;
  }
  Slot& found = slot(id);
  const bool is_there = found.state != SlotState::kLoading;
  if (!found.was_wanted) ++(is_there ? counters.prefetches_used : counters.prefetches_late);
  found.was_wanted = true;
  ++(is_there ? counters.hits : counters.misses);
  return is_there ? LookupResult::kHit : LookupResult::kTravelling;
}

void SlotTable::Remember(ExpertId expert, const LayerTime& then) {
  policy_->OnUse(expert, then);
  num_victims_ = 0;
}

std::optional<SlotId> SlotTable::Find(ExpertId expert) const {
  const SlotId id = SlotOf(expert);
  if (id < 0 || slot(id).state == SlotState::kLoading) return std::nullopt;
  return id;
}

bool SlotTable::is_loading(ExpertId expert) const {
  const SlotId id = SlotOf(expert);
  return id >= 0 && slot(id).state == SlotState::kLoading;
}

bool SlotTable::MayGiveWay(SlotId id) const {
  const Slot& each = slot(id);
  return each.state == SlotState::kIdle && is_usable(id) && !kept_.Contains(each.expert);
}

void SlotTable::SetState(SlotId id, SlotState state) {
  --CountOf(slot(id).state);
  slot(id).state = state;
  ++CountOf(state);
}

void SlotTable::SetIdle(SlotId id) {
  SetState(id, SlotState::kIdle);
  if (!MayGiveWay(id)) return;
  may_give_way_.Insert(slot(id).expert);
  num_victims_ = 0;
}

void SlotTable::Clear(SlotId id) {
  Slot& cleared = slot(id);
  may_give_way_.Erase(cleared.expert);
  slot_of_[static_cast<size_t>(cleared.expert)] = -1;
  SetState(id, SlotState::kEmpty);
  cleared.expert = -1;
  if (is_usable(id)) empty_.push_back(id);
}

std::optional<ExpertId> SlotTable::NextVictim(const LayerTime& now) {
  const bool is_same_time = now.step == victims_time_.step && now.layer == victims_time_.layer;
  while (is_same_time && next_victim_ < num_victims_) {
    const ExpertId victim = victims_[next_victim_++];
    if (may_give_way_.Contains(victim)) return victim;
  }
  candidates_.clear();
  may_give_way_.AppendTo(&candidates_);
  if (candidates_.empty()) return std::nullopt;
  num_victims_ = policy_->ChooseVictims(candidates_, now, victims_);
  next_victim_ = 1;
  victims_time_ = now;
  return victims_[0];
}

std::optional<SlotId> SlotTable::MakeRoom(LoadCause cause, const LayerTime& now,
                                          std::span<const ExpertId> protected_experts) {
  if (empty_.empty()) {
    std::optional<ExpertId> victim;
    if (cause != LoadCause::kPrefetch) {
      victim = NextVictim(now);
    } else {
      candidates_.clear();
      may_give_way_.AppendTo(&candidates_);
      std::erase_if(candidates_,
                    [&](ExpertId expert) { return std::ranges::binary_search(protected_experts, expert); });
      if (!candidates_.empty()) victim = policy_->ChooseVictim(candidates_, now);
    }
    if (!victim.has_value()) return std::nullopt;
    CADRE_CHECK(may_give_way_.Contains(*victim));
    Evict(SlotOf(*victim));
  }
  const SlotId id = empty_.back();
  empty_.pop_back();
  return id;
}

void SlotTable::Evict(SlotId id) {
  SlotCounters& counters = CountersOf(slot(id).expert);
  ++counters.evictions;
  if (!slot(id).was_wanted) ++counters.prefetches_wasted;
  Clear(id);
}

std::optional<LoadTicket> SlotTable::BeginLoad(ExpertId expert, LoadCause cause, const LayerTime& now,
                                               std::span<const ExpertId> protected_experts) {
  if (SlotOf(expert) >= 0) return std::nullopt;
  const std::optional<SlotId> id = MakeRoom(cause, now, protected_experts);
  if (!id.has_value()) return std::nullopt;
  const bool is_prefetch = cause == LoadCause::kPrefetch;
  if (is_prefetch) {
    policy_->OnPrefetch(expert, now);
    num_victims_ = 0;
  }
  ++LoadsBegun(cause, CountersOf(expert));
  Slot& taken = slot(*id);
  SetState(*id, SlotState::kLoading);
  taken.was_wanted = !is_prefetch;
  taken.expert = expert;
  ++taken.version;
  slot_of_[static_cast<size_t>(expert)] = *id;
  return LoadTicket{.expert = expert, .slot = *id, .version = taken.version};
}

SlotTable::Slot& SlotTable::LoadingSlot(const LoadTicket& ticket) {
  CADRE_CHECK_GE(ticket.slot, 0);
  CADRE_CHECK_LT(ticket.slot, num_slots());
  Slot& loading = slot(ticket.slot);
  CADRE_CHECK_EQ(loading.version, ticket.version);
  CADRE_CHECK(loading.state == SlotState::kLoading);
  CADRE_CHECK_EQ(loading.expert, ticket.expert);
  return loading;
}

void SlotTable::FinishLoad(const LoadTicket& ticket) {
  LoadingSlot(ticket);
  SetIdle(ticket.slot);
  ++CountersOf(ticket.expert).loads_done;
}

void SlotTable::FailLoad(const LoadTicket& ticket) {
  SlotCounters& counters = CountersOf(ticket.expert);
  if (!LoadingSlot(ticket).was_wanted) ++counters.prefetches_failed;
  ++counters.loads_failed;
  Clear(ticket.slot);
}

void SlotTable::Pin(ExpertId expert) {
  const std::optional<SlotId> id = Find(expert);
  CADRE_CHECK(id.has_value());
  Slot& pinned = slot(*id);
  ++pinned.pins;
  SetState(*id, SlotState::kPinned);
  may_give_way_.Erase(expert);
}

void SlotTable::Unpin(ExpertId expert) {
  const std::optional<SlotId> id = Find(expert);
  CADRE_CHECK(id.has_value());
  Slot& pinned = slot(*id);
  CADRE_CHECK_GT(pinned.pins, 0);
  if (--pinned.pins == 0) SetIdle(*id);
}

absl::Status SlotTable::SetKept(std::vector<ExpertId> experts, int64_t min_free_slots) {
  CADRE_CHECK_GE(min_free_slots, 1);
  std::ranges::sort(experts);
  experts.erase(std::unique(experts.begin(), experts.end()), experts.end());
  if (!experts.empty() && (experts.front() < 0 || experts.back() >= num_experts())) {
    const ExpertId wrong = experts.front() < 0 ? experts.front() : experts.back();
    return absl::InvalidArgumentError(absl::StrCat("expert ", wrong, " is not below ", num_experts()));
  }
  CADRE_RETURN_IF_ERROR(CheckKeptFit(std::ssize(experts), num_usable_, min_free_slots));
  num_kept_ = std::ssize(experts);
  min_free_slots_ = min_free_slots;
  kept_.Clear();
  for (const ExpertId expert : experts) kept_.Insert(expert);
  ListCandidates();
  return absl::OkStatus();
}

std::vector<ExpertId> SlotTable::ListKept() const {
  std::vector<ExpertId> kept;
  kept_.AppendTo(&kept);
  return kept;
}

absl::Status SlotTable::CheckKeptFit(int64_t num_kept, int64_t num_usable, int64_t min_free_slots) const {
  if (num_kept == 0 || num_kept <= num_usable - min_free_slots) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("keeping ", num_kept, " experts in ", num_usable,
                                                 " slots would leave fewer than ", min_free_slots, " for the others"));
}

void SlotTable::ListCandidates() {
  num_victims_ = 0;
  may_give_way_.Clear();
  for (SlotId id = 0; id < num_slots(); ++id) {
    if (MayGiveWay(id)) may_give_way_.Insert(slot(id).expert);
  }
}

absl::Status SlotTable::SetUsableSlots(int64_t count) {
  CADRE_CHECK_GE(count, 1);
  CADRE_CHECK_LE(count, num_slots());
  CADRE_RETURN_IF_ERROR(CheckKeptFit(num_kept_, count, min_free_slots_));
  const int64_t before = std::exchange(num_usable_, count);
  std::erase_if(empty_, [this](SlotId id) { return !is_usable(id); });
  for (SlotId id = 0; id < num_slots(); ++id) {
    if (!is_usable(id) && slot(id).state == SlotState::kIdle) Evict(id);
    if (is_usable(id) && id >= before && slot(id).state == SlotState::kEmpty) empty_.push_back(id);
  }
  ListCandidates();
  return absl::OkStatus();
}

SlotCounters SlotTable::counters() const {
  SlotCounters sum;
  for (const SlotCounters& layer : layer_counters_) sum += layer;
  return sum;
}

bool SlotTable::is_drained() const {
  return std::ranges::all_of(slots_.begin() + num_usable_, slots_.end(),
                             [](const Slot& each) { return each.state == SlotState::kEmpty; });
}

int64_t SlotTable::num_withdrawn() const {
  return std::count_if(slots_.begin() + num_usable_, slots_.end(),
                       [](const Slot& each) { return each.state == SlotState::kEmpty; });
}

}  // namespace cadre
