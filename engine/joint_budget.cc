#include "engine/joint_budget.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/expert_pins.h"
#include "engine/schedule/scheduler.h"

namespace cadre {
namespace {

MemoryRoom RoomOf(const ModelRunner& runner) {
  const std::optional<MemoryRoom> room = runner.memory_room();
  CADRE_CHECK(room.has_value());
  return *room;
}

// Of `num_lookups` that were looked up, as many as of those of the trace.
int64_t Scaled(int64_t hits, int64_t trace_lookups, int64_t num_lookups) {
  if (hits <= 0 || trace_lookups <= 0) return 0;
  return static_cast<int64_t>(static_cast<double>(hits) * static_cast<double>(num_lookups) /
                              static_cast<double>(trace_lookups));
}

}  // namespace

JointBudget::JointBudget(ModelRunner* runner, Scheduler* scheduler, ExpertPins* pins)
    : runner_(runner),
      scheduler_(scheduler),
      pins_(pins),
      limits_(RoomOf(*runner).limits),
      split_(limits_, RoomOf(*runner).initial) {
  CADRE_CHECK(scheduler->SetUsableBlocks(static_cast<int32_t>(split_.shares().blocks)));
  CADRE_CHECK(pins->SetNumSlots(split_.shares().slots));
  if (ShadowSimulator* shadow = runner->shadow_simulator(); shadow != nullptr) {
    shadow->SetMarginStep(limits_.step_slots);
  }
  BeginStretch(/*found_tokens=*/0);
}

absl::Status JointBudget::Ask(const MemoryShares& shares) {
  if (absl::Status status = CheckShares(limits_, shares); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  asked_ = shares;
  return absl::OkStatus();
}

std::optional<MemoryShares> JointBudget::NextWanted() {
  {
    const std::lock_guard lock(mutex_);
    if (asked_) {
      proposed_.reset();  // it was about the shares that there were
      return std::exchange(asked_, std::nullopt);
    }
  }
  return std::exchange(proposed_, std::nullopt);
}

std::optional<MemoryMove> JointBudget::Advance(bool may_begin) {
  if (!move_) {
    const std::optional<MemoryShares> wanted = may_begin ? NextWanted() : std::nullopt;
    if (!wanted || *wanted == split_.shares()) return std::nullopt;
    // Who is pinned stays, and one place for the others.
    if (!pins_->SetNumSlots(std::min(wanted->slots, split_.shares().slots))) return Refusal(*wanted);
    move_ = {.from = split_.shares(), .to = *wanted};
    pins_->Apply();  // of what was set by then: the slots may only just hold it
  }
  if (!Give()) return std::nullopt;
  const MemoryMove ended = Take();
  split_.SetShares(ended.to);
  num_pinned_at_refusal_ = 0;  // that refusal is forgotten, or gives way to this one
  if (!ended.status.ok()) split_.Refuse(move_->to);
  move_.reset();
  moves_to_slots_ += ended.to.slots > ended.from.slots ? 1 : 0;
  moves_to_blocks_ += ended.to.blocks > ended.from.blocks ? 1 : 0;
  BeginStretch(stretch_.found_tokens);
  return ended;
}

bool JointBudget::Give() {
  const bool has_left_slots = GiveSlots();
  return GiveBlocks() && has_left_slots;
}

bool JointBudget::GiveSlots() {
  if (move_->to.slots >= move_->from.slots || move_->has_left_slots) return true;
  const absl::StatusOr<bool> has_left = runner_->ShrinkExpertSlots(move_->to.slots);
  CADRE_CHECK(has_left.ok());  // there are fewer pins than slots: SetNumSlots has said so
  return move_->has_left_slots = *has_left;
}

bool JointBudget::GiveBlocks() {
  const auto count = static_cast<int32_t>(move_->to.blocks);
  if (move_->to.blocks >= move_->from.blocks || move_->has_left_blocks) return true;
  if (!move_->are_blocks_withdrawn) move_->are_blocks_withdrawn = scheduler_->SetUsableBlocks(count);
  if (!move_->are_blocks_withdrawn || !scheduler_->has_withdrawn_blocks()) return false;
  runner_->ShrinkKvBlocks(count);
  return move_->has_left_blocks = true;
}

absl::Status JointBudget::TakeUpTo(const MemoryShares& wanted, MemoryShares* have) {
  if (wanted.blocks > have->blocks) {
    const auto count = static_cast<int32_t>(wanted.blocks);
    CADRE_RETURN_IF_ERROR(runner_->GrowKvBlocks(count));
    CADRE_CHECK(scheduler_->SetUsableBlocks(count));
    have->blocks = wanted.blocks;
  }
  if (wanted.slots > have->slots) {
    CADRE_RETURN_IF_ERROR(runner_->GrowExpertSlots(wanted.slots));
    have->slots = wanted.slots;
  }
  return absl::OkStatus();
}

MemoryMove JointBudget::Take() {
  MemoryMove ended = {.from = move_->from,
                      .to = {.slots = std::min(move_->from.slots, move_->to.slots),
                             .blocks = std::min(move_->from.blocks, move_->to.blocks)},
                      .status = absl::OkStatus()};
  ended.status = TakeUpTo(move_->to, &ended.to);
  // Else each further try would make both sides smaller. What cannot be had back is free, and counts as spare.
  if (!ended.status.ok()) TakeUpTo(move_->from, &ended.to).IgnoreError();
  CADRE_CHECK(pins_->SetNumSlots(ended.to.slots));
  return ended;
}

MemoryMove JointBudget::Refusal(const MemoryShares& wanted) {
  split_.Refuse(wanted);
  num_pinned_at_refusal_ = std::ssize(pins_->pinned());
  return {
      .from = split_.shares(),
      .to = split_.shares(),
      .status = absl::FailedPreconditionError(absl::StrCat(pins_->pinned().size(), " experts are pinned, and of ",
                                                           wanted.slots, " slots one is to stay free for the others"))};
}

void JointBudget::BeginStretch(int64_t found_tokens) {
  stretch_ = {};
  stretch_.found_tokens = found_tokens;
  stretch_.least_available = static_cast<int32_t>(limits_.max_blocks);
  cache_before_ = runner_->expert_cache().value_or(ExpertCacheReport());
  num_simulations_before_.reset();
}

void JointBudget::ObserveStep(const BudgetStep& step) {
  const double seconds = absl::ToDoubleSeconds(step.duration);
  stretch_.at_work += step.duration;
  if (step.rows > 0) stretch_.recompute_seconds += seconds * step.recomputed_rows / step.rows;
  stretch_.waiting_seconds += seconds * step.num_kept_waiting;
  stretch_.running_seconds += seconds * step.num_running;
  if (step.missing_blocks > 0) {
    stretch_.shortage_seconds += seconds;
    stretch_.missing_seconds += seconds * step.missing_blocks;
  }
  // What was found again in the stretch would have been missed, had it been given up.
  if (stretch_.num_steps++ == 0) stretch_.found_tokens = step.found_tokens;
  const int64_t found = step.found_tokens - stretch_.found_tokens;
  const auto found_blocks =
      static_cast<int32_t>(std::min<int64_t>(found / scheduler_->options().block_size, limits_.max_blocks));
  stretch_.least_available = std::min(stretch_.least_available, std::max(step.available_blocks - found_blocks, 0));
  stretch_.row_seconds = step.row_seconds;
  ShadowSimulator* const shadow = runner_->shadow_simulator();
  if (stretch_.at_work < kStretch || move_ || proposed_ || shadow == nullptr) return;
  const std::shared_ptr<const WhatIfReport> latest = shadow->TryLatest();
  if (latest == nullptr) return;  // the next step will have it
  if (!num_simulations_before_) {
    if (shadow->TryRefresh()) num_simulations_before_ = latest->num_simulations;
  } else if (latest->num_simulations > *num_simulations_before_ && latest->margin.step_slots == limits_.step_slots &&
             latest->margin.num_slots == split_.shares().slots) {
    Judge(latest->margin);
  }
}

MemoryObservation JointBudget::Observation(const SlotMargin& margin, const ExpertCacheReport& cache) const {
  const double seconds = absl::ToDoubleSeconds(stretch_.at_work);
  const int64_t misses = cache.slots.misses - cache_before_.slots.misses;
  const int64_t lookups = cache.slots.hits - cache_before_.slots.hits + misses;
  const double wait = absl::ToDoubleSeconds(cache.wait_time - cache_before_.wait_time);
  const int64_t traced = margin.same.lookups;
  MemoryObservation observation = {.seconds = seconds,
                                   .hits_gained = Scaled(margin.more.hits - margin.same.hits, traced, lookups),
                                   .hits_lost = Scaled(margin.same.hits - margin.fewer.hits, traced, lookups),
                                   .load_seconds = misses > 0 ? wait / static_cast<double>(misses) : 0.0,
                                   .recompute_seconds = stretch_.recompute_seconds,
                                   .waiting_seconds = stretch_.waiting_seconds,
                                   .running_requests = stretch_.running_seconds / seconds,
                                   .idle_blocks = stretch_.least_available,
                                   .block_seconds = stretch_.row_seconds * scheduler_->options().block_size};
  if (stretch_.shortage_seconds > 0.0) {
    observation.blocks_wanted =
        std::max<int64_t>(static_cast<int64_t>(stretch_.missing_seconds / stretch_.shortage_seconds), 1);
  }
  return observation;
}

void JointBudget::Judge(const SlotMargin& margin) {
  const MemoryObservation observation = Observation(margin, runner_->expert_cache().value_or(ExpertCacheReport()));
  effects_ = split_.Effects(observation);
  judged_stretch_ = stretch_.at_work;
  if (std::ssize(pins_->pinned()) < num_pinned_at_refusal_) {
    split_.ForgetRefusal();
    num_pinned_at_refusal_ = 0;
  }
  proposed_ = split_.Observe(observation);
  BeginStretch(stretch_.found_tokens);
}

JointBudgetReport JointBudget::Report() const {
  return {.limits = limits_,
          .shares = split_.shares(),
          .effects = effects_,
          .stretch = judged_stretch_,
          .moves_to_slots = moves_to_slots_,
          .moves_to_blocks = moves_to_blocks_,
          .is_moving = is_moving()};
}

}  // namespace cadre
