// What ExpertCache loads although no step has asked for it.
#include <algorithm>
#include <vector>

#include "engine/base/check.h"
#include "engine/experts/expert_cache.h"

namespace cadre {
namespace {

// While reads are under way: short beside a read, and nothing beside a step. Where none ends for long, one may hang,
// and nobody gains by looking as often.
constexpr absl::Duration kPlacingPause = absl::Milliseconds(2);
constexpr absl::Duration kLongestPlacingPause = absl::Milliseconds(100);
constexpr int kPausesForEach = 8;  // of the time since anything happened

// While a read that was given up goes on: nobody knows when it ends, and nobody waits for it.
constexpr absl::Duration kStalledPause = absl::Seconds(1);

}  // namespace

void ExpertCache::Keep(const std::vector<ExpertId>& experts) {
  CADRE_CHECK(wave_.empty() && waiting_.empty() && travelling_.empty());
  CADRE_CHECK(table_.SetKept(experts, /*min_free_slots=*/1).ok());
  absent_kept_.assign(experts.begin(), experts.end());
  if (shadow_ != nullptr) shadow_->SetKept(experts);
}

absl::Duration ExpertCache::Place() {
  CADRE_CHECK(wave_.empty() && waiting_.empty() && travelling_.empty());
  if (absent_kept_.empty() && warm_start_.empty() && placing_.empty() && ahead_.empty() && quarantine_.empty()) {
    return absl::InfiniteDuration();
  }
  TakeEnded();
  const absl::Duration pause = PlaceKept();
  PlaceWarm();
  const auto goes_on = [this](ExpertId id) { return !stalled_.contains(id); };
  const bool has_more = std::ranges::any_of(placing_, goes_on) || std::ranges::any_of(ahead_, goes_on) ||
                        (!warm_start_.empty() && placing_.empty());
  return has_more ? PlacingPause() : std::min(pause, UntilFaultsChange());
}

absl::Duration ExpertCache::UntilFaultsChange() const {
  absl::Duration pause = stalled_.empty() ? absl::InfiniteDuration() : kStalledPause;
  const absl::Time now = clock_->Now();
  for (const auto& [id, quarantine] : quarantine_) {
    if (now < quarantine.until) pause = std::min(pause, quarantine.until - now);
  }
  return pause;
}

absl::Duration ExpertCache::PlacingPause() const {
  return std::clamp((clock_->Now() - last_progress_) / kPausesForEach, kPlacingPause, kLongestPlacingPause);
}

// Few of the slots, so that what steps ask for finds room. Their reads stand still while a step waits for one: so their
// number is about the disk, which need not answer more at a time.
int64_t ExpertCache::MaxPlacing() const {
  constexpr int64_t kSlotsForEach = 8;
  const int64_t num_readers = std::max(options_.num_threads - 1, 1);
  return std::clamp<int64_t>(table_.num_usable_slots() / kSlotsForEach, 1, num_readers);
}

bool ExpertCache::StartPlacing(ExpertId id) {
  const auto ticket = table_.BeginLoad(id, LoadCause::kPlaced, now_);
  if (!ticket) return false;
  loader_.Order(*ticket, WeightsOf(ticket->slot), LoadCause::kPlaced);
  placing_.insert(id);
  last_progress_ = clock_->Now();
  return true;
}

absl::Duration ExpertCache::PlaceKept() {
  absl::Duration pause = absl::InfiniteDuration();
  for (size_t left = absent_kept_.size(); left > 0; --left) {
    const ExpertId id = absent_kept_.front();
    absent_kept_.pop_front();
    if (table_.Find(id).has_value()) continue;
    absent_kept_.push_back(id);  // until it is there, whatever becomes of a load
    if (table_.is_loading(id) || std::ssize(placing_) >= MaxPlacing()) {
      pause = std::min(pause, PlacingPause());
    } else if (Refusal(id) != nullptr) {
      pause = std::min(pause, quarantine_.at(id).until - clock_->Now());
    } else {
      StartPlacing(id);
      pause = std::min(pause, kPlacingPause);
    }
  }
  return std::max(pause, kPlacingPause);
}

void ExpertCache::PlaceWarm() {
  if (table_.num_usable_slots() < 2) warm_start_.clear();  // the only slot is for what is asked for
  while (!warm_start_.empty() && std::ssize(placing_) < MaxPlacing()) {
    const ExpertId id = warm_start_.front();
    const bool is_there = table_.Find(id).has_value() || table_.is_loading(id);
    if (!is_there && Refusal(id) == nullptr && !(table_.has_empty_slot() && StartPlacing(id))) {
      warm_start_.clear();  // there is room no more
      return;
    }
    warm_start_.pop_front();
  }
}

}  // namespace cadre
