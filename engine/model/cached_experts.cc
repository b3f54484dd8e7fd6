#include "engine/model/cached_experts.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/model/arena_layout.h"

namespace cadre {
namespace {

template <typename T>
std::vector<T> ToHost(ConstView view, Device& device) {
  std::vector<T> values(static_cast<size_t>(view.num_elements()));
  device.CopyToHost(values.data(), view);
  return values;
}

int64_t MostSlots(const CachedExpertsOptions& options) { return std::max(options.most_slots, options.num_slots); }

absl::StatusOr<DeviceBuffer> CreateArena(const ExpertLayout& layout, const CachedExpertsOptions& options,
                                         Device* device) {
  const auto size_bytes = static_cast<size_t>(options.num_slots * layout.size_bytes());
  if (!device->shares_host_memory()) {
    CADRE_CHECK_EQ(MostSlots(options), options.num_slots);
    return device->AllocateMapped(size_bytes);
  }
  if (MostSlots(options) == options.num_slots) return device->Allocate(size_bytes);
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer arena,
                         device->Reserve(static_cast<size_t>(options.most_slots * layout.size_bytes()), size_bytes));
  CADRE_RETURN_IF_ERROR(device->CommitPages(arena.view(DType::kF32, {options.num_slots * layout.size_bytes() / 4})));
  return arena;
}

std::vector<ExpertId> Without(std::vector<ExpertId> experts, const ResidentExperts& resident) {
  std::erase_if(experts, [&](ExpertId expert) { return resident.Has(expert); });
  return experts;
}

ExpertCacheOptions MakeCacheOptions(const ModelConfig& config, const ExpertLayout& layout,
                                    const CachedExpertsOptions& options, const ResidentExperts& resident) {
  ExpertCacheOptions cache;
  cache.num_layers = static_cast<int32_t>(config.num_moe_layers());
  cache.num_experts = static_cast<int32_t>(config.num_experts);
  cache.num_slots = MostSlots(options);
  cache.num_usable_slots = options.num_slots;
  cache.slot_bytes = layout.size_bytes();
  cache.policy = options.policy;
  cache.num_threads = options.num_threads;
  cache.simulates_shadows = true;
  cache.warm_start = Without(options.warm_start, resident);
  cache.num_ahead_threads = options.num_ahead_threads;
  return cache;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CachedExperts>> CachedExperts::Create(const ModelConfig& config,
                                                                     const ExpertLayout& layout,
                                                                     std::unique_ptr<ExpertSource> source,
                                                                     const CachedExpertsOptions& options,
                                                                     Device* device) {
  CADRE_CHECK_GE(options.num_slots, int64_t{1});
  const int64_t num_experts = config.num_moe_layers() * config.num_experts;
  CADRE_CHECK_LT(std::ssize(options.resident), num_experts);
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer arena, CreateArena(layout, options, device));
  CADRE_ASSIGN_OR_RETURN(ResidentExperts resident, ResidentExperts::Load(layout, num_experts, options.resident, *source,
                                                                         options.num_threads, device));
  std::optional<ExpertPredictor> predictor;
  if (options.num_ahead_threads > 0) {
    CADRE_ASSIGN_OR_RETURN(predictor, ExpertPredictor::Create(config, device));
  }
  return std::unique_ptr<CachedExperts>(new CachedExperts(
      config, layout, std::move(source), options, std::move(resident), std::move(arena), std::move(predictor), device));
}

CachedExperts::CachedExperts(const ModelConfig& config, const ExpertLayout& layout,
                             std::unique_ptr<ExpertSource> source, const CachedExpertsOptions& options,
                             ResidentExperts resident, DeviceBuffer arena, std::optional<ExpertPredictor> predictor,
                             Device* device)
    : layout_(layout),
      source_(std::move(source)),
      device_(device),
      resident_(std::move(resident)),
      arena_(std::move(arena)),
      num_present_(options.num_slots),
      num_most_(MostSlots(options)),
      predictor_(std::move(predictor)),
      offsets_(static_cast<size_t>(config.num_experts) + 1),
      resident_hits_(static_cast<size_t>(config.num_moe_layers())),
      weights_(static_cast<size_t>(config.num_experts)),
      cache_(MakeCacheOptions(config, layout, options, resident_), source_.get(),
             options.clock != nullptr ? options.clock : &own_clock_, arena_.data()) {
  Keep(options.kept);
}

void CachedExperts::Keep(const std::vector<ExpertId>& experts) {
  kept_here_ = experts;
  std::erase_if(kept_here_, [this](ExpertId expert) { return !resident_.Has(expert); });
  std::ranges::sort(kept_here_);
  cache_.Keep(Without(experts, resident_));
}

ExpertCacheReport CachedExperts::Report() const {
  ExpertCacheReport report = cache_.Report();
  for (const int64_t hits : resident_hits_) report.slots.hits += hits;
  report.kept += std::ssize(kept_here_);
  report.resident = std::ssize(resident_.experts());
  report.direct_bytes = direct_bytes_;
  return report;
}

ExpertPlacement CachedExperts::Placement() const {
  ExpertPlacement placement = cache_.Placement();
  if (device_->shares_host_memory()) return placement;
  placement.slowest_cached = ExpertTier::kHost;
  for (ExpertTier& tier : placement.tiers) {
    if (tier == ExpertTier::kDevice) tier = ExpertTier::kHost;
  }
  for (const ExpertId expert : resident_.experts()) {
    placement.tiers[static_cast<size_t>(expert)] = ExpertTier::kDevice;
  }
  for (size_t layer = 0; layer < resident_hits_.size(); ++layer) {
    placement.counters[layer].hits += resident_hits_[layer];
  }
  placement.kept.insert(placement.kept.end(), kept_here_.begin(), kept_here_.end());
  std::ranges::sort(placement.kept);
  return placement;
}

View CachedExperts::Slots(int64_t first, int64_t end) const {
  static_assert(ArenaLayout::kAlignment % sizeof(float) == 0);
  const int64_t size = (end - first) * layout_.size_bytes() / static_cast<int64_t>(sizeof(float));
  return arena_.view(DType::kF32, {size}, static_cast<size_t>(first * layout_.size_bytes()));
}

absl::StatusOr<bool> CachedExperts::Shrink(int64_t count) {
  CADRE_CHECK_LE(count, num_present_);
  CADRE_RETURN_IF_ERROR(cache_.SetUsableSlots(count));
  if (!cache_.IsDrained()) return false;
  device_->ReleasePages(Slots(count, num_most_));
  num_present_ = count;
  return true;
}

absl::Status CachedExperts::Grow(int64_t count) {
  CADRE_CHECK_GE(count, num_present_);
  CADRE_CHECK_LE(count, num_most_);
  if (absl::Status status = device_->CommitPages(Slots(num_present_, count)); !status.ok()) {
    device_->ReleasePages(Slots(num_present_, num_most_));
    return status;
  }
  num_present_ = count;
  return cache_.SetUsableSlots(count);
}

void CachedExperts::BeginStep() {
  cache_.BeginStep();
  faults_.Clear();
  uses_.clear();
  predicted_ = {};  // by a step that failed
  wait_before_ = cache_.wait_time();
}

absl::Status CachedExperts::Predict(const LayerWeights& weights, const LayerRouting& routing, const Activations& act) {
  if (!predictor_) return absl::OkStatus();
  CADRE_ASSIGN_OR_RETURN(const std::span<const PredictedExpert> predicted, predictor_->Predict(weights, routing, act));
  wanted_ahead_.assign(predicted.begin(), predicted.end());
  std::erase_if(wanted_ahead_, [this](const PredictedExpert& each) { return resident_.Has(each.expert); });
  predicted_ = wanted_ahead_;
  return absl::OkStatus();
}

void CachedExperts::NoteWeights(const Activations& act) {
  router_weights_.resize(static_cast<size_t>(act.routing_weights.num_elements()));
  device_->CopyToHost(router_weights_.data(), act.routing_weights);
}

absl::Status CachedExperts::ExpertFfn(int64_t moe_layer, ConstView row_sequence, bool is_limited,
                                      const Activations& act) {
  device_->CopyToHost(offsets_.data(), act.offsets);
  CADRE_RETURN_IF_ERROR(device_->Synchronize());
  FindNeeded(moe_layer);
  cache_.BeginLayer(static_cast<int32_t>(moe_layer), needed_);
  cache_.Prefetch(std::exchange(predicted_, {}));
  if (absl::Status status = ComputeLayer(row_sequence, act); !status.ok()) {
    cache_.AbandonLayer();
    return status;
  }
  CountBytes();
  if (cache_.missing().empty()) return absl::OkStatus();
  return DropMissing(moe_layer, row_sequence, is_limited, act);
}

void CachedExperts::FindNeeded(int64_t moe_layer) {
  needed_.clear();
  found_here_.clear();
  for (size_t i = 0; i + 1 < offsets_.size(); ++i) {
    if (offsets_[i] == offsets_[i + 1]) continue;
    const auto expert = static_cast<int32_t>(i);
    if (const ExpertId id = IdOf(moe_layer, i); resident_.Has(id)) {
      found_here_.push_back({expert, resident_.WeightsOf(id)});
    } else {
      needed_.push_back(expert);
    }
  }
  resident_hits_[static_cast<size_t>(moe_layer)] += std::ssize(found_here_);
}

absl::Status CachedExperts::ComputeLayer(ConstView row_sequence, const Activations& act) {
  CADRE_RETURN_IF_ERROR(CountUses(row_sequence, act));
  if (!found_here_.empty()) OrderWave(found_here_, act);
  for (auto wave = cache_.NextWave(); !wave.empty(); wave = cache_.NextWave()) {
    OrderWave(wave, act);
    if (device_->shares_host_memory()) continue;
    direct_bytes_ += std::ssize(wave) * layout_.size_bytes();
    CADRE_RETURN_IF_ERROR(device_->Synchronize());  // until then the slots must stay as they are
  }
  return absl::OkStatus();
}

void CachedExperts::OrderWave(std::span<const PlacedExpert> wave, const Activations& act) {
  for (const PlacedExpert& placed : wave) {
    weights_[static_cast<size_t>(placed.expert)] = layout_.At(placed.weights);
  }
  device_->ops().ExpertFfn(act.expert_outputs, act.normed, act.order, act.offsets, weights_);
  for (const PlacedExpert& placed : wave) weights_[static_cast<size_t>(placed.expert)] = {};
}

absl::Status CachedExperts::CountUses(ConstView row_sequence, const Activations& act) {
  const std::vector<int32_t> ids = ToHost<int32_t>(act.expert_ids, *device_);
  const std::vector<int32_t> sequences = ToHost<int32_t>(row_sequence, *device_);
  CADRE_RETURN_IF_ERROR(device_->Synchronize());
  std::vector<bool> is_there(weights_.size());
  for (const PlacedExpert& placed : cache_.found()) is_there[static_cast<size_t>(placed.expert)] = true;
  for (const PlacedExpert& placed : found_here_) is_there[static_cast<size_t>(placed.expert)] = true;
  const size_t top_k = ids.size() / sequences.size();
  misses_.clear();
  last_misser_.assign(weights_.size(), -1);
  for (size_t a = 0; a < ids.size(); ++a) {
    if (ids[a] < 0) continue;
    const auto expert = static_cast<size_t>(ids[a]);
    const auto sequence = static_cast<size_t>(sequences[a / top_k]);
    if (uses_.size() <= sequence) uses_.resize(sequence + 1);
    ++(is_there[expert] ? uses_[sequence].hits : uses_[sequence].misses);
    // Rows of a sequence stand together.
    const int32_t last = std::exchange(last_misser_[expert], sequences[a / top_k]);
    if (!is_there[expert] && last != sequences[a / top_k]) misses_.push_back({sequence, ids[a]});
  }
  return absl::OkStatus();
}

void CachedExperts::CountBytes() {
  for (const Miss& miss : misses_) {
    const bool is_read =
        std::ranges::find(cache_.missing(), miss.expert, &MissingExpert::expert) == cache_.missing().end();
    if (is_read) uses_[miss.sequence].bytes += source_->expert_bytes();
  }
}

absl::Status CachedExperts::DropMissing(int64_t moe_layer, ConstView row_sequence, bool is_limited,
                                        const Activations& act) {
  std::vector<int32_t> ids = ToHost<int32_t>(act.expert_ids, *device_);
  std::vector<float> weights = ToHost<float>(act.routing_weights, *device_);
  const std::vector<int32_t> sequences = ToHost<int32_t>(row_sequence, *device_);
  std::vector<int32_t> states(is_limited ? ids.size() : 0);
  if (is_limited) device_->CopyToHost(states.data(), act.assignment_states);
  CADRE_RETURN_IF_ERROR(device_->Synchronize());
  const size_t top_k = ids.size() / sequences.size();
  for (size_t a = 0; a < ids.size(); ++a) {
    const auto missing = std::ranges::find(cache_.missing(), ids[a], &MissingExpert::expert);
    if (missing == cache_.missing().end()) continue;
    const int32_t sequence = sequences[a / top_k];
    faults_.lost.push_back(
        {.moe_layer = moe_layer,
         .expert = ids[a],
         .sequence = sequence,
         .gate_weight = is_limited ? router_weights_[a] : weights[a],
         .state = is_limited ? static_cast<AssignmentState>(states[a]) : AssignmentState::kProcessed});
    ids[a] = kPadding;
    weights[a] = 0.0f;
    const bool is_known =
        std::ranges::find(faults_.sequences, sequence, &SequenceFault::sequence) != faults_.sequences.end();
    if (!is_known) faults_.sequences.push_back({sequence, missing->status});
  }
  device_->CopyToDevice(act.expert_ids, ids.data());
  device_->CopyToDevice(act.routing_weights, weights.data());
  return device_->Synchronize();
}

}  // namespace cadre
