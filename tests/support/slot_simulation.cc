#include "tests/support/slot_simulation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

absl::Status Wrong(const char* what, int64_t where) { return absl::InternalError(absl::StrCat(what, ": ", where)); }

std::unique_ptr<EvictionPolicy> MakePolicy(const SlotSimulationOptions& options) {
  return CreateEvictionPolicy(
      options.policy, {.num_experts = options.num_experts, .num_layers = options.num_layers, .half_life_steps = 4});
}

}  // namespace

SlotSimulation::SlotSimulation(const SlotSimulationOptions& options)
    : options_(options),
      table_(int64_t{options.num_layers} * options.num_experts, options.num_slots, MakePolicy(options)),
      policy_(MakePolicy(options)),
      experts_(static_cast<size_t>(num_experts())),
      num_usable_(options.num_slots),
      contents_(static_cast<size_t>(options.num_slots), -1),
      versions_(static_cast<size_t>(options.num_slots), 0) {}

absl::Status SlotSimulation::Check() {
  CADRE_RETURN_IF_ERROR(table_.Audit());
  int64_t num_in = 0;
  int64_t num_pinned = 0;
  for (ExpertId id = 0; id < num_experts(); ++id) {
    const Expert& each = expert(id);
    const std::optional<SlotId> slot = table_.Find(id);
    if (slot.has_value() != each.is_in) return Wrong("an expert is there or not", id);
    if (table_.is_loading(id) != each.is_loading) return Wrong("an expert travels or not", id);
    if (slot.has_value() && contents_[static_cast<size_t>(*slot)] != id) return Wrong("half loaded", id);
    num_in += each.is_in ? 1 : 0;
    num_pinned += each.pins > 0 ? 1 : 0;
  }
  if (table_.CountSlots(SlotState::kPinned) != num_pinned) return Wrong("pinned slots", num_pinned);
  if (table_.CountSlots(SlotState::kIdle) != num_in - num_pinned) return Wrong("idle slots", num_in - num_pinned);
  if (table_.CountSlots(SlotState::kLoading) != std::ssize(loads_)) return Wrong("loading slots", std::ssize(loads_));
  const SlotCounters& counters = table_.counters();
  if (counters.hits != num_hits_) return Wrong("hits", counters.hits);
  if (counters.misses != num_misses_) return Wrong("misses", counters.misses);
  if (counters.evictions != num_evictions_) return Wrong("evictions", counters.evictions);
  return absl::OkStatus();
}

absl::Status SlotSimulation::Advance(uint32_t layers) {
  now_.layer += static_cast<int32_t>(layers % 3);
  now_.step += now_.layer / options_.num_layers;
  now_.layer %= options_.num_layers;
  return Check();
}

absl::Status SlotSimulation::Lookup(uint32_t number) {
  const ExpertId id = Pick(number);
  const Expert& wanted = expert(id);
  const LookupResult expected = wanted.is_in        ? LookupResult::kHit
                                : wanted.is_loading ? LookupResult::kTravelling
                                                    : LookupResult::kMiss;
  policy_->OnUse(id, now_);
  if (table_.Lookup(id, now_) != expected) return Wrong("looked up", id);
  ++(wanted.is_in ? num_hits_ : num_misses_);
  return Check();
}

bool SlotSimulation::has_empty_slot() const {
  int64_t num_occupied = 0;  // usable ones
  for (const LoadTicket& load : loads_) num_occupied += load.slot < num_usable_ ? 1 : 0;
  for (int64_t slot = 0; slot < num_usable_; ++slot) num_occupied += contents_[static_cast<size_t>(slot)] >= 0 ? 1 : 0;
  return num_occupied < num_usable_;
}

ExpertId SlotSimulation::ExpectedVictim(LoadCause cause, std::span<const ExpertId> protected_experts) {
  if (has_empty_slot()) return -1;
  std::vector<ExpertId> candidates;
  for (ExpertId id = 0; id < num_experts(); ++id) {
    const Expert& each = expert(id);
    if (!each.is_in || each.pins > 0 || kept_.contains(id) || table_.Find(id).value_or(0) >= num_usable_) continue;
    if (cause == LoadCause::kPrefetch && std::ranges::binary_search(protected_experts, id)) continue;
    candidates.push_back(id);
  }
  return candidates.empty() ? -1 : policy_->ChooseVictim(candidates, now_);
}

absl::Status SlotSimulation::CheckBegun(const LoadTicket& ticket, ExpertId expected_victim) {
  const auto slot = static_cast<size_t>(ticket.slot);
  if (ticket.slot >= num_usable_) return Wrong("a slot that is not usable was taken", ticket.slot);
  if (ticket.version != ++versions_[slot]) return Wrong("version of slot", ticket.slot);
  const ExpertId victim = contents_[slot];
  contents_[slot] = -1;
  if (victim != expected_victim) return Wrong("another expert gave way", victim);
  if (victim < 0) return absl::OkStatus();
  ++num_evictions_;
  expert(victim).is_in = false;
  return absl::OkStatus();
}

absl::Status SlotSimulation::BeginLoad(uint32_t number, LoadCause cause, uint32_t num_protected) {
  const ExpertId id = Pick(number);
  std::vector<ExpertId> protected_experts;
  for (ExpertId other = 0; other < num_experts() && num_protected > 0; ++other) {
    if ((static_cast<uint32_t>(other) + number) % 3 == 0) continue;
    protected_experts.push_back(other);
    --num_protected;
  }
  const ExpertId victim = ExpectedVictim(cause, protected_experts);
  const bool can_begin = !expert(id).is_in && !expert(id).is_loading && (victim >= 0 || has_empty_slot());
  const std::optional<LoadTicket> ticket = table_.BeginLoad(id, cause, now_, protected_experts);
  if (ticket.has_value() != can_begin) return Wrong("a load was begun or not", id);
  if (ticket.has_value()) {
    if (ticket->expert != id) return Wrong("ticket", ticket->expert);
    CADRE_RETURN_IF_ERROR(CheckBegun(*ticket, victim));
    if (cause == LoadCause::kPrefetch) policy_->OnPrefetch(id, now_);
    expert(id).is_loading = true;
    loads_.push_back(*ticket);
  }
  return Check();
}

std::optional<LoadTicket> SlotSimulation::TakeTicket(uint32_t number) {
  if (loads_.empty()) return std::nullopt;
  const auto which = loads_.begin() + static_cast<std::ptrdiff_t>(number % loads_.size());
  const LoadTicket ticket = *which;
  loads_.erase(which);
  expert(ticket.expert).is_loading = false;
  return ticket;
}

absl::Status SlotSimulation::FinishLoad(uint32_t number) {
  if (const std::optional<LoadTicket> ticket = TakeTicket(number)) {
    table_.FinishLoad(*ticket);
    expert(ticket->expert).is_in = true;
    contents_[static_cast<size_t>(ticket->slot)] = ticket->expert;
  }
  return Check();
}

absl::Status SlotSimulation::FailLoad(uint32_t number) {
  if (const std::optional<LoadTicket> ticket = TakeTicket(number)) table_.FailLoad(*ticket);
  return Check();
}

absl::Status SlotSimulation::Pin(uint32_t number) {
  const ExpertId id = Pick(number);
  if (expert(id).is_in) {
    table_.Pin(id);
    ++expert(id).pins;
  }
  return Check();
}

absl::Status SlotSimulation::Unpin(uint32_t number) {
  const ExpertId id = Pick(number);
  if (expert(id).pins > 0) {
    table_.Unpin(id);
    --expert(id).pins;
  }
  return Check();
}

absl::Status SlotSimulation::Keep(uint32_t first, uint32_t count, uint32_t min_free_slots) {
  std::vector<ExpertId> experts;
  for (uint32_t i = 0; i < count % 8; ++i) experts.push_back(Pick(first + i * 5));
  const std::set<ExpertId> kept(experts.begin(), experts.end());
  const int64_t min_free = 1 + min_free_slots % 3;
  const bool is_accepted = kept.empty() || std::ssize(kept) <= num_usable_ - min_free;
  if (table_.SetKept(experts, min_free).ok() != is_accepted) return Wrong("kept", std::ssize(kept));
  if (is_accepted) {
    kept_ = kept;
    min_free_ = min_free;
  }
  return Check();
}

absl::Status SlotSimulation::Use(uint32_t slots) {
  const int64_t count = 1 + slots % static_cast<uint32_t>(options_.num_slots);
  const bool is_accepted = kept_.empty() || std::ssize(kept_) <= count - min_free_;
  if (table_.SetUsableSlots(count).ok() != is_accepted) return Wrong("usable", count);
  if (!is_accepted) return Check();
  num_usable_ = count;
  bool is_drained = true;
  for (int64_t slot = count; slot < options_.num_slots; ++slot) {
    const ExpertId id = contents_[static_cast<size_t>(slot)];
    if (id < 0) continue;
    if (expert(id).pins > 0) {
      is_drained = false;
      continue;
    }
    ++num_evictions_;
    expert(id).is_in = false;
    contents_[static_cast<size_t>(slot)] = -1;
  }
  for (const LoadTicket& load : loads_) is_drained = is_drained && load.slot < count;
  if (table_.is_drained() != is_drained) return Wrong("drained or not", count);
  return Check();
}

absl::Status SlotSimulation::Operate(uint32_t kind, uint32_t a, uint32_t b) {
  switch (kind % 16) {
    case 0:
    case 1:
      return Advance(b);
    case 2:
    case 3:
    case 4:
      return Lookup(a);
    case 5:
    case 6:
    case 7:
      return BeginLoad(a, LoadCause::kMiss, b % 4);
    case 8:
    case 9:
      return BeginLoad(a, LoadCause::kPrefetch, b);
    case 10:
    case 11:
      return FinishLoad(b);
    case 12:
      return FailLoad(b);
    case 13:
      return Pin(a);
    case 14:
      return Unpin(a);
    default:
      if (b % 8 == 7) return Use(a);
      return b % 4 == 0 ? Keep(a, b / 4, b / 32) : Unpin(a);
  }
}

absl::Status SlotSimulation::Drain() {
  while (!loads_.empty()) CADRE_RETURN_IF_ERROR(FinishLoad(0));
  for (ExpertId id = 0; id < num_experts(); ++id) {
    while (expert(id).pins > 0) CADRE_RETURN_IF_ERROR(Unpin(static_cast<uint32_t>(id)));
  }
  CADRE_RETURN_IF_ERROR(Use(static_cast<uint32_t>(num_usable_ - 1)));
  if (!table_.is_drained()) return Wrong("not drained", num_usable_);
  return Check();
}

absl::Status RunSlotBytes(std::span<const uint8_t> bytes) {
  if (bytes.size() < 4) return absl::OkStatus();
  SlotSimulation simulation({.policy = kEvictionPolicies[bytes[0] % std::size(kEvictionPolicies)],
                             .num_layers = 1 + bytes[1] % 4,
                             .num_experts = 1 + bytes[2] % 40,
                             .num_slots = 1 + bytes[3] % 24});
  constexpr size_t kMaxOperations = 4000;
  bytes = bytes.subspan(4);
  for (size_t i = 0; i < kMaxOperations && bytes.size() >= 3; ++i, bytes = bytes.subspan(3)) {
    CADRE_RETURN_IF_ERROR(simulation.Operate(bytes[0], bytes[1], bytes[2]));
  }
  return simulation.Drain();
}

}  // namespace cadre
