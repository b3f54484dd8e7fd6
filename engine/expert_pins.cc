#include "engine/expert_pins.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {

ExpertPins::ExpertPins(ModelRunner* runner)
    : runner_(runner), num_slots_(runner->limits().num_expert_slots), pinned_(runner->kept_experts()) {}

absl::StatusOr<PinChange> ExpertPins::Set(std::vector<ExpertId> experts) {
  if (runner_->limits().num_expert_slots == 0) {
    return absl::FailedPreconditionError(
        "all experts of this model are in the device's memory: there is nothing to pin");
  }
  std::vector<bool> is_known(
      static_cast<size_t>(int64_t{runner_->limits().num_moe_layers} * runner_->limits().num_experts));
  std::erase_if(experts, [&](ExpertId expert) {
    CADRE_CHECK_GE(expert, 0);
    CADRE_CHECK_LT(static_cast<size_t>(expert), is_known.size());
    const bool was_known = is_known[static_cast<size_t>(expert)];
    is_known[static_cast<size_t>(expert)] = true;
    return was_known;
  });
  const int64_t num_in_slots = CountInSlots(experts);
  const std::lock_guard lock(mutex_);
  if (num_in_slots > num_slots_ - 1) {
    return absl::InvalidArgumentError(absl::StrCat(num_in_slots, " experts are more than ", num_slots_ - 1,
                                                   ": there is memory for ", num_slots_,
                                                   ", and one place stays free for the others"));
  }
  const PinChange change = {.before = std::ssize(pinned_), .now = std::ssize(experts)};
  pinned_ = std::move(experts);
  has_changed_ = true;
  return change;
}

int64_t ExpertPins::CountInSlots(const std::vector<ExpertId>& experts) const {
  return std::ranges::count_if(experts, [this](ExpertId expert) { return !runner_->is_resident(expert); });
}

int64_t ExpertPins::max_pinned() const {
  const std::lock_guard lock(mutex_);
  return std::max<int64_t>(num_slots_ - 1, 0);
}

bool ExpertPins::SetNumSlots(int64_t num_slots) {
  const std::lock_guard lock(mutex_);
  if (CountInSlots(pinned_) > num_slots - 1) return false;
  num_slots_ = num_slots;
  return true;
}

std::vector<ExpertId> ExpertPins::pinned() const {
  const std::lock_guard lock(mutex_);
  return pinned_;
}

void ExpertPins::Apply() {
  std::vector<ExpertId> experts;
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(has_changed_, false)) return;
    experts = pinned_;
  }
  runner_->KeepExperts(experts);
}

}  // namespace cadre
