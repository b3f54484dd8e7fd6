#include "engine/experts/expert_cache.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/experts/load_window.h"

namespace cadre {
namespace {

// A disk that gives nothing back any more need not say so of each of thousands of experts.
constexpr size_t kMaxToldFaults = 16;

std::unique_ptr<ShadowSimulator> CreateShadow(const ExpertCacheOptions& options) {
  if (!options.simulates_shadows) return nullptr;
  return std::make_unique<ShadowSimulator>(ShadowSimulatorOptions{.num_layers = options.num_layers,
                                                                  .num_experts = options.num_experts,
                                                                  .num_slots = options.num_slots,
                                                                  .policy = options.policy,
                                                                  .num_threads = options.num_threads});
}

// What is known of the time between layers is of about so many of them.
constexpr double kRecentLayers = 32.0;

// Reads ahead that wait for their turn, for each that is under way.
constexpr int64_t kQueuedAhead = 4;

int64_t NumExperts(const ExpertCacheOptions& options) { return int64_t{options.num_layers} * options.num_experts; }

}  // namespace

ExpertCache::ExpertCache(const ExpertCacheOptions& options, const ExpertSource* source, const Clock* clock,
                         std::byte* arena)
    : options_(options),
      source_(source),
      clock_(clock),
      arena_(arena),
      max_travelling_(MaxMissesInFlight(options.num_threads, options.num_slots)),
      table_(
          NumExperts(options), options.num_slots,
          CreateEvictionPolicy(options.policy, {.num_experts = options.num_experts, .num_layers = options.num_layers}),
          options.num_layers),
      layer_waits_(static_cast<size_t>(options.num_layers)),
      shadow_(CreateShadow(options)),
      loader_({.num_experts = NumExperts(options),
               .num_threads = options.num_threads,
               .num_ahead_threads = std::max(options.num_ahead_threads, 1),
               .max_attempts = options.max_attempts},
              source) {
  CADRE_CHECK_GE(options.slot_bytes, source->expert_bytes());
  if (options.num_usable_slots > 0) CADRE_CHECK(SetUsableSlots(options.num_usable_slots).ok());
  warm_start_.assign(options.warm_start.begin(), options.warm_start.end());
  for (size_t i = warm_start_.size(); i > 0; --i) {
    table_.Remember(warm_start_[i - 1], now_);
    ++now_.step;
  }
}

void ExpertCache::BeginStep() {
  CADRE_CHECK(wave_.empty() && waiting_.empty() && travelling_.empty());
  now_ = {.step = now_.step + 1, .layer = 0};
}

void ExpertCache::BeginLayer(int32_t layer, std::span<const int32_t> needed) {
  CADRE_CHECK(wave_.empty() && waiting_.empty() && travelling_.empty());
  CADRE_CHECK_GE(layer, now_.layer);
  CADRE_CHECK_LT(layer, options_.num_layers);
  now_.layer = layer;
  if (shadow_ != nullptr) shadow_->Note(now_, needed);
  has_begun_ = false;
  missing_.clear();
  NoteTimeSincePrefetch();
  TakeEnded();  // so that what has come meanwhile is there
  for (const int32_t expert : needed) {
    const ExpertId id = IdOf(expert);
    const LookupResult found = table_.Lookup(id, now_);
    if (found == LookupResult::kHit) {
      HandOut(id, *table_.Find(id));
    } else if (const absl::Status* refusal = Refusal(id); refusal != nullptr) {
      missing_.push_back({expert, *refusal});
    } else if (found == LookupResult::kTravelling) {
      loader_.Hasten(id);
      ahead_.erase(id);
      travelling_.insert(id);
    } else {
      waiting_.push_back(id);
    }
  }
  std::ranges::reverse(waiting_);
  StartLoads();
}

void ExpertCache::Prefetch(std::span<const PredictedExpert> predicted) {
  if (options_.num_ahead_threads == 0 || predicted.empty()) return;
  prefetch_time_ = clock_->Now();
  if (!waiting_.empty()) return;  // this layer alone has enough to read
  std::vector<ExpertId> needed(travelling_.begin(), travelling_.end());
  for (const PlacedExpert& placed : wave_) needed.push_back(IdOf(placed.expert));
  std::vector<PredictedExpert> readable;
  std::ranges::copy_if(predicted, std::back_inserter(readable),
                       [this](const PredictedExpert& each) { return Refusal(each.expert) == nullptr; });
  const PrefetchPlan plan = PlanPrefetch(readable, needed, table_, Link(), {});
  for (const ExpertId id : plan.experts) {
    const auto ticket = table_.BeginLoad(id, LoadCause::kPrefetch, now_, plan.protected_experts);
    if (!ticket) return;
    loader_.Order(*ticket, WeightsOf(ticket->slot), LoadCause::kPrefetch);
    ahead_.insert(id);
  }
}

LoadLink ExpertCache::Link() const {
  return {.loads_in_flight = table_.CountSlots(SlotState::kLoading),
          .max_loads_in_flight = options_.num_threads + kQueuedAhead * options_.num_ahead_threads,
          .load_seconds = loader_.load_seconds(),
          .seconds_until_wanted = lead_seconds_,
          .misses_overtake = true};
}

void ExpertCache::NoteTimeSincePrefetch() {
  if (prefetch_time_ == absl::InfinitePast()) return;
  const double seconds = absl::ToDoubleSeconds(clock_->Now() - prefetch_time_);
  lead_seconds_ = lead_seconds_ > 0.0 ? lead_seconds_ + (seconds - lead_seconds_) / kRecentLayers : seconds;
  prefetch_time_ = absl::InfinitePast();
}

std::span<const PlacedExpert> ExpertCache::NextWave() {
  if (has_begun_ || wave_.empty()) {
    UnpinWave();
    TakeEnded();  // before: a read ahead that has ended makes room
    StartLoads();
    while (wave_.empty() && (!travelling_.empty() || !waiting_.empty())) {
      if (travelling_.empty()) loader_.HastenAll();  // then a step waits for their slots
      const absl::Time begin = clock_->Now();
      const bool has_ended = CanEnd() && loader_.WaitForEnd(options_.wait_limit);
      const absl::Duration waited = clock_->Now() - begin;
      wait_time_ += waited;
      layer_waits_[static_cast<size_t>(now_.layer)] += waited;
      if (!has_ended) GiveUp();
      TakeEnded();
      StartLoads();
    }
  }
  has_begun_ = true;
  if (!wave_.empty()) {
    ++waves_;
  } else {
    num_missing_ += std::ssize(missing_);
  }
  return wave_;
}

void ExpertCache::AbandonLayer() {
  UnpinWave();
  waiting_.clear();
  ahead_.insert(travelling_.begin(), travelling_.end());
  travelling_.clear();
  missing_.clear();
}

const absl::Status* ExpertCache::Refusal(ExpertId id) const {
  const auto it = quarantine_.find(id);
  if (it == quarantine_.end()) return nullptr;
  return IsSetAside(id, it->second) ? &it->second.status : nullptr;
}

bool ExpertCache::IsSetAside(ExpertId id, const Quarantine& quarantine) const {
  return stalled_.contains(id) || clock_->Now() < quarantine.until;
}

bool ExpertCache::CanEnd() const {
  if (are_readers_stuck_) return false;
  return !travelling_.empty() || table_.CountSlots(SlotState::kLoading) > std::ssize(stalled_);
}

void ExpertCache::HandOut(ExpertId id, SlotId slot) {
  table_.Pin(id);
  wave_.push_back({ExpertOf(id), WeightsOf(slot)});
}

void ExpertCache::UnpinWave() {
  for (const PlacedExpert& placed : wave_) table_.Unpin(IdOf(placed.expert));
  wave_.clear();
}

void ExpertCache::StartLoads() {
  while (!waiting_.empty() && std::ssize(travelling_) < max_travelling_) {
    const auto ticket = table_.BeginLoad(waiting_.back(), LoadCause::kMiss, now_);
    if (!ticket) return;  // all slots are in use, or travel
    loader_.Order(*ticket, WeightsOf(ticket->slot), LoadCause::kMiss);
    travelling_.insert(waiting_.back());
    waiting_.pop_back();
  }
}

void ExpertCache::TakeEnded() {
  for (const LoadOutcome& outcome : loader_.TakeEnded()) {
    const ExpertId id = outcome.ticket.expert;
    const bool is_wanted = travelling_.erase(id) > 0;
    const bool was_placed = placing_.erase(id) > 0;
    ahead_.erase(id);
    are_readers_stuck_ = false;
    last_progress_ = clock_->Now();
    stalled_.erase(id);
    if (outcome.status.ok()) {
      num_placed_ += was_placed ? 1 : 0;
      table_.FinishLoad(outcome.ticket);
      if (quarantine_.erase(id) > 0) Tell({.message = source_->Describe(id), .pause = absl::ZeroDuration()});
      if (is_wanted) HandOut(id, outcome.ticket.slot);
    } else {
      table_.FailLoad(outcome.ticket);
      PutInQuarantine(id, outcome.status);
      if (is_wanted) missing_.push_back({ExpertOf(id), quarantine_[id].status});
    }
  }
}

void ExpertCache::GiveUp() {
  const absl::Status reason =
      absl::DeadlineExceededError(absl::StrCat("no read has ended for ", absl::FormatDuration(options_.wait_limit)));
  const auto give_up = [&](ExpertId id) {
    stalled_.insert(id);
    PutInQuarantine(id, reason);
  };
  // Who is still in the queue after so long is not to blame, but then all who could read it hang.
  for (const LoadTicket& ticket : loader_.Withdraw()) {
    table_.FailLoad(ticket);
    ahead_.erase(ticket.expert);
    placing_.erase(ticket.expert);
    are_readers_stuck_ = true;
    if (travelling_.erase(ticket.expert) > 0) waiting_.push_back(ticket.expert);
  }
  // Where nothing travels that was asked for, it was the slots of these that were waited for.
  if (travelling_.empty()) {
    std::ranges::for_each(ahead_, give_up);
    std::ranges::for_each(placing_, give_up);
  }
  for (const ExpertId id : travelling_) {
    give_up(id);
    missing_.push_back({ExpertOf(id), quarantine_[id].status});
  }
  // These were not even tried, and are not to blame.
  for (const ExpertId id : waiting_) {
    missing_.push_back(
        {ExpertOf(id), absl::UnavailableError(absl::StrCat(source_->Describe(id),
                                                           " cannot be read: reads that do not end have "
                                                           "all readers or all the memory of the cache"))});
  }
  travelling_.clear();
  waiting_.clear();
}

void ExpertCache::PutInQuarantine(ExpertId id, const absl::Status& status) {
  const auto it = quarantine_.find(id);
  const absl::Duration length =
      it == quarantine_.end() ? options_.first_quarantine : std::min(it->second.length * 2, options_.last_quarantine);
  const std::string message = absl::StrCat(source_->Describe(id), " cannot be read: ", std::string(status.message()));
  quarantine_[id] = {.until = clock_->Now() + length, .length = length, .status = absl::UnavailableError(message)};
  Tell({.message = message, .pause = length});
}

void ExpertCache::Tell(ExpertFault fault) {
  if (faults_.told.size() < kMaxToldFaults) {
    faults_.told.push_back(std::move(fault));
  } else {
    ++faults_.num_more;
  }
}

absl::Status ExpertCache::SetUsableSlots(int64_t count) {
  CADRE_CHECK(wave_.empty() && waiting_.empty() && travelling_.empty());
  CADRE_RETURN_IF_ERROR(table_.SetUsableSlots(count));
  max_travelling_ = MaxMissesInFlight(options_.num_threads, count);
  if (shadow_ != nullptr) shadow_->SetNumSlots(count);
  return absl::OkStatus();
}

bool ExpertCache::IsDrained() {
  TakeEnded();
  // Who was being read when the slots were given up is put out now that he is there.
  CADRE_CHECK(table_.SetUsableSlots(table_.num_usable_slots()).ok());
  return table_.is_drained();
}

ExpertFaults ExpertCache::TakeFaults() { return std::exchange(faults_, {}); }

ExpertCacheReport ExpertCache::Report() const {
  return {.slots = table_.counters(),
          .loads = loader_.counters(),
          .wait_time = wait_time_,
          .waves = waves_,
          .missing = num_missing_,
          .num_slots = table_.num_slots() - table_.num_withdrawn(),
          .empty_slots = table_.CountSlots(SlotState::kEmpty) - table_.num_withdrawn(),
          .loading_slots = table_.CountSlots(SlotState::kLoading),
          .idle_slots = table_.CountSlots(SlotState::kIdle),
          .pinned_slots = table_.CountSlots(SlotState::kPinned),
          .quarantined = std::ranges::count_if(
              quarantine_, [this](const auto& entry) { return IsSetAside(entry.first, entry.second); }),
          .kept = table_.num_kept(),
          .awaited = CountAwaited(),
          .placed = num_placed_};
}

int64_t ExpertCache::CountAwaited() const {
  // A kept one stands in absent_kept_ until it is there.
  const auto num_placing = std::ranges::count_if(
      placing_, [this](ExpertId id) { return std::ranges::find(absent_kept_, id) == absent_kept_.end(); });
  return std::ssize(absent_kept_) + std::ssize(warm_start_) + num_placing;
}

ExpertPlacement ExpertCache::Placement() const {
  ExpertPlacement placement = PlacementOf(table_, ExpertTier::kCheckpoint);
  placement.waits = layer_waits_;
  for (const auto& [id, quarantine] : quarantine_) {
    if (IsSetAside(id, quarantine)) placement.quarantined.push_back(id);
  }
  std::ranges::sort(placement.quarantined);
  return placement;
}

}  // namespace cadre
