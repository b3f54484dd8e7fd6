#include "engine/experts/memory_split.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

bool IsMeasured(const MemoryObservation& observation) {
  for (const double value : {observation.seconds, observation.load_seconds, observation.recompute_seconds,
                             observation.waiting_seconds, observation.running_requests, observation.block_seconds}) {
    if (!std::isfinite(value) || value < 0.0) return false;
  }
  return observation.hits_gained >= 0 && observation.hits_lost >= 0 && observation.blocks_wanted >= 0 &&
         observation.idle_blocks >= 0;
}

int64_t UsedBytes(const MemorySplitOptions& options, const MemoryShares& shares) {
  return shares.slots * options.slot_bytes + shares.blocks * options.block_bytes;
}

bool IsWithin(const MemorySplitOptions& options, const MemoryShares& shares) {
  return CheckShares(options, shares).ok();
}

absl::Status CheckRange(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " are to be ", value, ", must be ", least, " to ", most));
}

}  // namespace

absl::Status CheckShares(const MemorySplitOptions& options, const MemoryShares& shares) {
  CADRE_RETURN_IF_ERROR(CheckRange("expert slots", shares.slots, options.min_slots, options.max_slots));
  CADRE_RETURN_IF_ERROR(CheckRange("KV blocks", shares.blocks, options.min_blocks, options.max_blocks));
  if (UsedBytes(options, shares) <= options.budget_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(shares.slots, " expert slots and ", shares.blocks, " KV blocks take ",
                                                 UsedBytes(options, shares), " bytes, the budget is ",
                                                 options.budget_bytes));
}

MemorySplit::MemorySplit(const MemorySplitOptions& options, const MemoryShares& initial)
    : options_(options), shares_(initial), reversal_patience_(options.patience) {
  CADRE_CHECK_GE(options.slot_bytes, 1);
  CADRE_CHECK_GE(options.block_bytes, 1);
  CADRE_CHECK_GE(options.min_slots, 1);
  CADRE_CHECK_GE(options.min_blocks, 1);
  CADRE_CHECK_GE(options.step_slots, 1);
  CADRE_CHECK_GE(options.margin, 0.0);
  CADRE_CHECK_GE(options.min_gain, 0.0);
  CADRE_CHECK_GE(options.patience, 1);
  CADRE_CHECK_GE(options.max_reversal_patience, options.patience);
  CADRE_CHECK(IsWithin(options, initial));
}

// All the bytes that a step of slots has, give or take those that nobody has, so that a move and its reverse cancel.
std::optional<MemoryShares> MemorySplit::Moved(Direction direction) const {
  const int64_t step_bytes = options_.step_slots * options_.slot_bytes;
  const int64_t spare = options_.budget_bytes - UsedBytes(options_, shares_);
  MemoryShares moved = shares_;
  if (direction == Direction::kToSlots) {
    const int64_t missing = std::max<int64_t>(step_bytes - spare, 0);
    moved.slots += options_.step_slots;
    moved.blocks -= (missing + options_.block_bytes - 1) / options_.block_bytes;
  } else if (direction == Direction::kToBlocks) {
    moved.slots -= options_.step_slots;
    moved.blocks += (step_bytes + spare) / options_.block_bytes;
    moved.blocks = std::min(moved.blocks, options_.max_blocks);
    if (moved.blocks == shares_.blocks) return std::nullopt;
  }
  if (moved == shares_ || !IsWithin(options_, moved)) return std::nullopt;
  return moved;
}

MemoryEffects MemorySplit::Effects(const MemoryObservation& observation) const {
  const double lost =
      observation.recompute_seconds + observation.waiting_seconds / std::max(observation.running_requests, 1.0);
  const double wanted = static_cast<double>(observation.blocks_wanted);
  const double per_block = wanted > 0.0 ? lost / wanted : 0.0;
  MemoryEffects effects{.slots_gain = static_cast<double>(observation.hits_gained) * observation.load_seconds,
                        .slots_loss = static_cast<double>(observation.hits_lost) * observation.load_seconds};
  if (const std::optional<MemoryShares> moved = Moved(Direction::kToBlocks)) {
    effects.blocks_gain = per_block * std::min(static_cast<double>(moved->blocks - shares_.blocks), wanted);
  }
  if (const std::optional<MemoryShares> moved = Moved(Direction::kToSlots)) {
    const int64_t in_use = std::max<int64_t>(shares_.blocks - moved->blocks - observation.idle_blocks, 0);
    // At least what is in them is computed again.
    effects.blocks_loss = static_cast<double>(in_use) * std::max(per_block, observation.block_seconds);
  }
  return effects;
}

MemorySplit::Direction MemorySplit::Wanted(const MemoryObservation& observation) const {
  if (!IsMeasured(observation)) return Direction::kStay;
  const MemoryEffects effects = Effects(observation);
  const auto is_worth = [&](double gain, double loss) {
    return gain > loss * (1.0 + options_.margin) && gain - loss > options_.min_gain * observation.seconds;
  };
  const bool to_slots = Moved(Direction::kToSlots).has_value() && is_worth(effects.slots_gain, effects.blocks_loss);
  const bool to_blocks = Moved(Direction::kToBlocks).has_value() && is_worth(effects.blocks_gain, effects.slots_loss);
  if (to_slots && to_blocks) {
    const bool is_more = effects.slots_gain - effects.blocks_loss >= effects.blocks_gain - effects.slots_loss;
    return is_more ? Direction::kToSlots : Direction::kToBlocks;
  }
  if (to_slots) return Direction::kToSlots;
  return to_blocks ? Direction::kToBlocks : Direction::kStay;
}

std::optional<MemoryShares> MemorySplit::Observe(const MemoryObservation& observation) {
  const Direction wanted = Wanted(observation);
  streak_ = wanted == wanted_ ? streak_ + 1 : 1;
  wanted_ = wanted;
  const bool is_reversal = last_move_ != Direction::kStay && wanted != last_move_;
  int64_t needed = is_reversal ? reversal_patience_ : options_.patience;
  if (wanted == refused_) needed = std::max(needed, refusal_patience_);
  return streak_ >= needed ? Moved(wanted) : std::nullopt;
}

void MemorySplit::SetShares(const MemoryShares& shares) {
  CADRE_CHECK(IsWithin(options_, shares));
  streak_ = 0;
  const int64_t slots_before = std::exchange(shares_, shares).slots;
  if (shares.slots == slots_before) return;
  const Direction move = shares.slots > slots_before ? Direction::kToSlots : Direction::kToBlocks;
  if (last_move_ != Direction::kStay && move != last_move_) {
    reversal_patience_ = std::min<int64_t>(reversal_patience_ * 2, options_.max_reversal_patience);
  }
  last_move_ = move;
  ForgetRefusal();
}

void MemorySplit::Refuse(const MemoryShares& shares) {
  streak_ = 0;
  const Direction direction = shares.slots > shares_.slots ? Direction::kToSlots : Direction::kToBlocks;
  if (direction != refused_) refusal_patience_ = options_.patience;
  refusal_patience_ = std::min<int64_t>(refusal_patience_ * 2, options_.max_reversal_patience);
  refused_ = direction;
}

void MemorySplit::ForgetRefusal() {
  refused_ = Direction::kStay;
  refusal_patience_ = 0;
}

}  // namespace cadre
