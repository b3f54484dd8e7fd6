#include "engine/model/offloaded_experts.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "kernels/capacity.h"

namespace cadre {
namespace {

// A copy takes the link from kernels which read missed experts over it, and is worth that only if the expert is needed
// again: so copies add an eighth to what kernels read at most, or one expert.
constexpr int64_t kMissesForACopy = 8;
constexpr int64_t kMostUnderWay = 16;
// Slots that are being filled are of no use to anybody, however long the link takes for it: one in so many at most.
constexpr int64_t kSlotsForACopy = 16;
// Steps after which an earlier use counts half.
constexpr int64_t kHalfLifeSteps = 256;
// Between two looks at copies under way where no step comes.
constexpr absl::Duration kCopyPause = absl::Milliseconds(10);

std::vector<MlpWeights> Flatten(const std::vector<std::span<MlpWeights>>& layers) {
  std::vector<MlpWeights> all;
  for (const std::span<MlpWeights> layer : layers) {
    CADRE_CHECK_EQ(layer.size(), layers.front().size());
    all.insert(all.end(), layer.begin(), layer.end());
  }
  return all;
}

// One piece of memory, which a single copy brings.
void CheckLayout(const MlpWeights& expert, const ExpertLayout& layout) {
  const ConstView matrices[] = {expert.gate, expert.up, expert.down};
  for (size_t i = 0; i < ExpertLayout::kNumMatrices; ++i) {
    CADRE_CHECK(matrices[i].raw() == expert.gate.raw() + layout.offset(i));
  }
}

// Whether any row of the step was computed by the expert.
bool IsNeeded(const StepRouting& routing, int64_t layer, int64_t expert) {
  const auto at = [&](const std::vector<int64_t>& counts, int64_t row) {
    return counts[static_cast<size_t>(row * routing.num_experts + expert)];
  };
  if (!routing.is_limited()) return at(routing.assignments, layer) > 0;
  const auto computed = [&](AssignmentState state) {
    return at(routing.states, layer * kNumAssignmentStates + static_cast<int64_t>(state)) > 0;
  };
  return computed(AssignmentState::kProcessed) || computed(AssignmentState::kRerouted);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OffloadedExperts>> OffloadedExperts::Create(const ExpertLayout& layout,
                                                                           std::vector<std::span<MlpWeights>> layers,
                                                                           const OffloadOptions& options,
                                                                           Device* device) {
  CADRE_CHECK_GE(options.num_slots, int64_t{1});
  CADRE_CHECK(!layers.empty());
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer arena,
                         device->Allocate(static_cast<size_t>(options.num_slots * layout.size_bytes())));
  std::unique_ptr<OffloadedExperts> experts(
      new OffloadedExperts(layout, std::move(layers), options, std::move(arena), device));
  CADRE_RETURN_IF_ERROR(experts->FillSlots(options));
  return experts;
}

OffloadedExperts::OffloadedExperts(const ExpertLayout& layout, std::vector<std::span<MlpWeights>> layers,
                                   const OffloadOptions& options, DeviceBuffer arena, Device* device)
    : layout_(layout),
      layers_(std::move(layers)),
      hosted_(Flatten(layers_)),
      device_(device),
      arena_(std::move(arena)),
      table_(std::ssize(hosted_), options.num_slots,
             CreateEvictionPolicy(options.policy, {.num_experts = num_experts(), .num_layers = std::ssize(layers_)}),
             std::ssize(layers_)),
      in_slot_(static_cast<size_t>(options.num_slots), -1),
      is_changed_(layers_.size(), false),
      uses_(hosted_.size(), 0),
      shadow_({.num_layers = std::ssize(layers_),
               .num_experts = num_experts(),
               .num_slots = options.num_slots,
               .policy = options.policy}) {
  for (const MlpWeights& expert : hosted_) CheckLayout(expert, layout_);
}

// Slots must not be freed while copies write to them.
OffloadedExperts::~OffloadedExperts() { device_->FinishBackgroundCopies().IgnoreError(); }

absl::Status OffloadedExperts::FillSlots(const OffloadOptions& options) {
  CADRE_RETURN_IF_ERROR(device_->FinishBackgroundCopies());
  CADRE_ASSIGN_OR_RETURN(num_ended_, device_->CountBackgroundCopies());
  const auto start = std::chrono::steady_clock::now();
  for (const ExpertId expert : options.kept) CADRE_RETURN_IF_ERROR(FillSlot(expert));
  for (const ExpertId expert : options.warm_start) CADRE_RETURN_IF_ERROR(FillSlot(expert));
  const auto num_layers = static_cast<ExpertId>(layers_.size());
  for (ExpertId i = 0; i < std::ssize(hosted_); ++i) {
    CADRE_RETURN_IF_ERROR(FillSlot(i % num_layers * static_cast<ExpertId>(num_experts()) + i / num_layers));
  }
  CADRE_RETURN_IF_ERROR(device_->FinishBackgroundCopies());
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  TakeEnded();
  link_bytes_per_second_ = static_cast<double>(loaded_bytes_) / std::max(time.count(), 1e-9);
  Keep(options.kept);
  // The ops are given the tables as they are now, the first time.
  is_changed_.assign(layers_.size(), false);
  return absl::OkStatus();
}

absl::Status OffloadedExperts::FillSlot(ExpertId expert) {
  if (!table_.has_empty_slot()) return absl::OkStatus();
  const std::optional<LoadTicket> ticket = table_.BeginLoad(expert, LoadCause::kPlaced, now_);
  if (!ticket.has_value()) return absl::OkStatus();  // it has a slot
  under_way_.push_back(*ticket);
  return device_->CopyInBackground(SlotView(ticket->slot), hosted(expert).gate.raw());
}

void OffloadedExperts::Keep(const std::vector<ExpertId>& experts) {
  CADRE_CHECK(table_.SetKept(experts, /*min_free_slots=*/1).ok());
  absent_kept_ = experts;
  std::erase_if(absent_kept_, [this](ExpertId expert) { return table_.Find(expert).has_value(); });
}

void OffloadedExperts::EndStep(const StepRouting& routing) {
  // As the step found them: before the tables change.
  CountUses(routing);
  std::vector<LoadTicket> tickets;
  BeginKeptLoads(&tickets);
  BeginMissedLoads(&tickets);
  Carry(tickets);
}

absl::Duration OffloadedExperts::Place() {
  std::vector<LoadTicket> tickets;
  BeginKeptLoads(&tickets);
  if (under_way_.empty() && tickets.empty() && absent_kept_.empty()) return absl::InfiniteDuration();
  Carry(tickets);
  return under_way_.empty() && absent_kept_.empty() ? absl::InfiniteDuration() : kCopyPause;
}

void OffloadedExperts::Carry(const std::vector<LoadTicket>& tickets) {
  // After loads were begun: who has just come does not give way before a step could find him.
  TakeEnded();
  // Before the copies, which begin when this is done: until then steps may read who gives way.
  SendTables();
  OrderCopies(tickets);
}

void OffloadedExperts::CountUses(const StepRouting& routing) {
  CADRE_CHECK_EQ(int64_t{routing.num_layers}, std::ssize(layers_));
  CADRE_CHECK_EQ(int64_t{routing.num_experts}, num_experts());
  now_ = {.step = now_.step + 1, .layer = 0};
  if (now_.step % kHalfLifeSteps == 0) AgeUses();
  missed_.clear();
  for (int32_t layer = 0; layer < routing.num_layers; ++layer) {
    now_.layer = layer;
    needed_.clear();
    for (int32_t e = 0; e < routing.num_experts; ++e) {
      if (!IsNeeded(routing, layer, e)) continue;
      needed_.push_back(e);
      const ExpertId expert = layer * routing.num_experts + e;
      ++uses_[static_cast<size_t>(expert)];
      if (table_.Lookup(expert, now_) != LookupResult::kHit) missed_.push_back(expert);
    }
    shadow_.Note(now_, needed_);
  }
  direct_bytes_ += std::ssize(missed_) * layout_.size_bytes();
}

void OffloadedExperts::AgeUses() {
  for (int32_t& uses : uses_) uses /= 2;
}

void OffloadedExperts::TakeEnded() {
  const absl::StatusOr<int64_t> ended = device_->CountBackgroundCopies();
  // What cannot be asked for has not come.
  if (!ended.ok()) return;
  for (; num_ended_ < *ended && !under_way_.empty(); ++num_ended_) {
    const LoadTicket ticket = under_way_.front();
    under_way_.pop_front();
    table_.FinishLoad(ticket);
    in_slot_[static_cast<size_t>(ticket.slot)] = ticket.expert;
    Place(ticket.expert, layout_.At(SlotData(ticket.slot)));
    loaded_bytes_ += layout_.size_bytes();
  }
}

bool OffloadedExperts::BeginLoad(ExpertId expert, LoadCause cause, std::vector<LoadTicket>* tickets) {
  const std::optional<LoadTicket> ticket = table_.BeginLoad(expert, cause, now_);
  if (!ticket.has_value()) return false;
  ExpertId& before = in_slot_[static_cast<size_t>(ticket->slot)];
  if (before >= 0) PlaceInHost(before);
  before = -1;
  tickets->push_back(*ticket);
  return true;
}

int64_t OffloadedExperts::Room() const {
  return std::clamp<int64_t>(table_.num_slots() / kSlotsForACopy, 1, kMostUnderWay) - std::ssize(under_way_);
}

void OffloadedExperts::BeginKeptLoads(std::vector<LoadTicket>* tickets) {
  num_placed_ += static_cast<int64_t>(
      std::erase_if(absent_kept_, [this](ExpertId expert) { return table_.Find(expert).has_value(); }));
  for (const ExpertId expert : absent_kept_) {
    if (std::ssize(*tickets) >= Room()) break;
    if (!table_.is_loading(expert) && !BeginLoad(expert, LoadCause::kPlaced, tickets)) break;
  }
}

void OffloadedExperts::BeginMissedLoads(std::vector<LoadTicket>* tickets) {
  const int64_t most = std::min(std::ssize(*tickets) + 1 + std::ssize(missed_) / kMissesForACopy, Room());
  if (missed_.empty() || std::ssize(*tickets) >= most) return;
  // Those that are needed most often come first.
  std::ranges::stable_sort(missed_, [this](ExpertId a, ExpertId b) {
    return uses_[static_cast<size_t>(a)] > uses_[static_cast<size_t>(b)];
  });
  for (const ExpertId expert : missed_) {
    if (std::ssize(*tickets) == most) break;
    if (!table_.is_loading(expert) && !BeginLoad(expert, LoadCause::kMiss, tickets)) break;
  }
}

void OffloadedExperts::Place(ExpertId expert, const MlpWeights& weights) {
  const auto layer = static_cast<size_t>(expert / num_experts());
  layers_[layer][static_cast<size_t>(expert % num_experts())] = weights;
  is_changed_[layer] = true;
}

void OffloadedExperts::SendTables() {
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    if (is_changed_[layer]) device_->ops().PlaceExperts(layers_[layer]);
    is_changed_[layer] = false;
  }
}

void OffloadedExperts::OrderCopies(const std::vector<LoadTicket>& tickets) {
  for (const LoadTicket& ticket : tickets) {
    if (device_->CopyInBackground(SlotView(ticket.slot), hosted(ticket.expert).gate.raw()).ok()) {
      under_way_.push_back(ticket);
    } else {
      table_.FailLoad(ticket);
      ++failed_copies_;
    }
  }
}

ExpertCacheReport OffloadedExperts::Report() const {
  ExpertCacheReport report;
  report.slots = table_.counters();
  report.loads.bytes = loaded_bytes_;
  report.loads.errors = failed_copies_;
  report.direct_bytes = direct_bytes_;
  report.link_bytes_per_second = link_bytes_per_second_;
  report.num_slots = table_.num_slots();
  report.empty_slots = table_.CountSlots(SlotState::kEmpty);
  report.loading_slots = table_.CountSlots(SlotState::kLoading);
  report.idle_slots = table_.CountSlots(SlotState::kIdle);
  report.pinned_slots = table_.CountSlots(SlotState::kPinned);
  report.kept = table_.num_kept();
  report.awaited = std::ssize(absent_kept_);
  report.placed = num_placed_;
  return report;
}

absl::Status OffloadedExperts::Audit() const {
  CADRE_RETURN_IF_ERROR(table_.Audit());
  for (ExpertId expert = 0; expert < std::ssize(hosted_); ++expert) {
    const std::optional<SlotId> slot = table_.Find(expert);
    const MlpWeights& placed =
        layers_[static_cast<size_t>(expert / num_experts())][static_cast<size_t>(expert % num_experts())];
    const std::byte* const expected = slot.has_value() ? SlotData(*slot) : hosted(expert).gate.raw();
    if (placed.gate.raw() != expected) {
      return absl::InternalError(absl::StrCat("expert ", expert, " is not where the table of its layer leads"));
    }
    if (slot.has_value() && in_slot_[static_cast<size_t>(*slot)] != expert) {
      return absl::InternalError(absl::StrCat("slot ", *slot, " is not known to hold expert ", expert));
    }
  }
  if (std::ssize(under_way_) != table_.CountSlots(SlotState::kLoading)) {
    return absl::InternalError(absl::StrCat(under_way_.size(), " copies are under way, for ",
                                            table_.CountSlots(SlotState::kLoading), " slots"));
  }
  return absl::OkStatus();
}

}  // namespace cadre
