#include "engine/model/transformer_runner.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/experts/expert_ranking.h"
#include "engine/model/batch_check.h"
#include "engine/model/kv_cache.h"
#include "engine/model/memory_plan.h"
#include "engine/model/offloaded_experts.h"
#include "engine/model/recorded_steps.h"
#include "engine/model/step_arena.h"
#include "engine/model/transformer.h"
#include "engine/model/workspace.h"

namespace cadre {
namespace {

class TransformerRunner final : public ModelRunner {
 public:
  TransformerRunner(const RunnerLimits& limits, Transformer transformer, KvCache cache, Workspace workspace,
                    StepArena arena, DeviceBuffer places_taken, std::unique_ptr<OffloadedExperts> offloaded,
                    int64_t max_logit_rows, std::vector<ExpertId> kept_experts, std::optional<MemoryRoom> room,
                    Device* device)
      : limits_(limits),
        max_logits_(static_cast<size_t>(max_logit_rows * limits.vocab_size)),
        transformer_(std::move(transformer)),
        cache_(std::move(cache)),
        workspace_(std::move(workspace)),
        arena_(std::move(arena)),
        kept_experts_(std::move(kept_experts)),
        places_taken_(std::move(places_taken)),
        offloaded_(std::move(offloaded)),
        room_(room),
        num_present_blocks_(room_ ? room_->initial.blocks : limits.num_kv_blocks),
        device_(device) {}

  const RunnerLimits& limits() const override { return limits_; }

  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override {
    CADRE_RETURN_IF_ERROR(Order(batch, result));
    return Finish(batch, result);
  }

  absl::Status Order(const ForwardBatch& batch, ForwardResult* result) override {
    CheckBatch(batch, limits_);
    CADRE_CHECK(arena_.num_steps() == 0 || limits_.can_order_ahead);
    MakeRoom(batch, result);
    if (const RecordedStep* step = recorded_.Find(batch); step != nullptr) {
      arena_.Upload(batch, step->shape, *device_);
      device_->Replay(*step->work);
      DownloadLogits(workspace_.For(step->shape.num_tokens), batch, /*begin=*/0, batch.logit_rows.size(), result);
    } else if (absl::Status status = OrderStep(batch, result); !status.ok()) {
      arena_.Release();
      return status;
    }
    arena_.Download(*device_);
    if (!marks_.empty()) device_->Mark(marks_[next_mark_++ % marks_.size()].get());
    return absl::OkStatus();
  }

  absl::Status Finish(const ForwardBatch& /*batch*/, ForwardResult* result) override {
    absl::Status status =
        marks_.empty()
            ? device_->Synchronize()
            : device_->Await(*marks_[(next_mark_ - static_cast<size_t>(arena_.num_steps())) % marks_.size()]);
    if (status.ok()) ReadStep(result);
    arena_.Release();
    return status;
  }

  // Where steps may be ordered ahead, whose ends are to be marked.
  absl::Status CreateMarks() {
    if (!limits_.can_order_ahead) return absl::OkStatus();
    for (int64_t i = 0; i < arena_.max_steps(); ++i) {
      CADRE_ASSIGN_OR_RETURN(std::unique_ptr<WorkMark> mark, device_->CreateMark());
      marks_.push_back(std::move(mark));
    }
    return absl::OkStatus();
  }

  // Records the steps that Find may find. Each is run before, of padding alone: what happens the first time only cannot
  // be recorded.
  absl::Status RecordSteps(int64_t max_blocks) {
    for (const int64_t rows : RecordedSteps::Sizes(workspace_.head_rows())) {
      const StepShape shape = {.num_tokens = rows,
                               .num_sequences = rows,
                               .max_blocks = max_blocks,
                               .num_logit_rows = rows,
                               .samples = limits_.max_sample_rows > 0};
      const Activations act = workspace_.For(rows);
      const auto order = [&] {
        FillTokens();
        CADRE_CHECK(
            transformer_.RunLayers(arena_.inputs(), arena_.tallies(), cache_, act, /*places_taken=*/{}, /*choices=*/{})
                .ok());  // nothing is waited for
        transformer_.ComputeLogits(arena_.inputs(), act, /*begin=*/0, rows);
        if (shape.samples) OrderSampling(act);
      };
      arena_.Upload(ForwardBatch(), shape, *device_);
      order();
      CADRE_RETURN_IF_ERROR(device_->Synchronize());
      RecordedStep step = {.shape = shape, .work = nullptr};
      absl::StatusOr<std::unique_ptr<RecordedWork>> work = device_->Record(order);
      if (!work.ok()) {
        return absl::Status(
            work.status().code(),
            absl::StrCat("recording decode steps, which --enforce-eager does without: ", work.status().message()));
      }
      step.work = *std::move(work);
      recorded_.Add(std::move(step));
      arena_.Release();
    }
    return absl::OkStatus();
  }

  std::vector<float> selection_bias() const override { return transformer_.selection_bias(); }
  void SetSelectionBias(std::span<const float> bias) override { transformer_.SetSelectionBias(bias); }
  std::optional<ExpertCacheReport> expert_cache() const override {
    if (offloaded_ != nullptr) return offloaded_->Report();
    const CachedExperts* cached = transformer_.cached_experts();
    return cached == nullptr ? std::nullopt : std::optional(cached->Report());
  }
  ExpertFaults TakeExpertFaults() override {
    CachedExperts* cached = transformer_.cached_experts();
    return cached == nullptr ? ExpertFaults() : cached->TakeFaults();
  }
  std::shared_ptr<const ExpertPlacement> expert_placement() const override {
    if (offloaded_ != nullptr) return std::make_shared<const ExpertPlacement>(offloaded_->Placement());
    const CachedExperts* cached = transformer_.cached_experts();
    return cached == nullptr ? nullptr : std::make_shared<const ExpertPlacement>(cached->Placement());
  }
  ShadowSimulator* shadow_simulator() const override {
    if (offloaded_ != nullptr) return offloaded_->shadow_simulator();
    const CachedExperts* cached = transformer_.cached_experts();
    return cached == nullptr ? nullptr : cached->shadow_simulator();
  }
  void KeepExperts(const std::vector<ExpertId>& experts) override {
    if (offloaded_ != nullptr) return offloaded_->Keep(experts);
    transformer_.cached_experts()->Keep(experts);
  }
  absl::Duration PlaceExperts() override {
    if (offloaded_ != nullptr) return offloaded_->Place();
    CachedExperts* cached = transformer_.cached_experts();
    return cached == nullptr ? absl::InfiniteDuration() : cached->Place();
  }
  std::vector<ExpertId> kept_experts() const override { return kept_experts_; }
  bool is_resident(ExpertId expert) const override {
    const CachedExperts* cached = transformer_.cached_experts();
    return cached != nullptr && cached->is_resident(expert);
  }
  bool is_lost() const override { return device_->is_lost(); }
  void ScrubBlocks(std::span<const int32_t> blocks) override { cache_.Scrub(blocks, *device_); }
  void ReleaseMemory(std::span<const int32_t> blocks) override { cache_.ReleasePages(blocks, *device_); }
  std::optional<MemoryRoom> memory_room() const override { return room_; }
  absl::StatusOr<bool> ShrinkExpertSlots(int64_t count) override {
    return transformer_.cached_experts()->Shrink(count);
  }
  absl::Status GrowExpertSlots(int64_t count) override { return transformer_.cached_experts()->Grow(count); }
  void ShrinkKvBlocks(int32_t count) override {
    cache_.ReleaseFrom(count, *device_);
    num_present_blocks_ = count;
  }
  absl::Status GrowKvBlocks(int32_t count) override {
    if (absl::Status status = cache_.Commit(num_present_blocks_, count, *device_); !status.ok()) {
      cache_.ReleaseFrom(num_present_blocks_, *device_);
      return status;
    }
    num_present_blocks_ = count;
    return absl::OkStatus();
  }

 private:
  // For what the step returns.
  void MakeRoom(const ForwardBatch& batch, ForwardResult* result) const {
    result->logits.reserve(max_logits_);  // as planned, and never twice that by growing
    const auto num_sampled =
        std::ranges::count_if(batch.sample_rows, [](const SampleRow& row) { return row.is_wanted; });
    const size_t num_logit_rows = batch.logit_rows.size() - static_cast<size_t>(num_sampled);
    result->logits.resize(num_logit_rows * static_cast<size_t>(limits_.vocab_size));
    const auto num_choices = static_cast<size_t>(limits_.num_moe_layers) * static_cast<size_t>(batch.num_tokens()) *
                             static_cast<size_t>(limits_.top_k);
    result->expert_ids.resize(batch.keep_expert_ids ? num_choices : 0);
    result->chosen_ids.resize(batch.keep_choices ? num_choices : 0);
    result->chosen_weights.resize(result->chosen_ids.size());
  }

  // What the oldest step has computed, which has ended.
  void ReadStep(ForwardResult* result) {
    arena_.ReadRouting(&result->routing);
    arena_.ReadSampled(&result->sampled);
    result->faults.clear();
    result->cache_uses.clear();
    result->expert_wait = absl::ZeroDuration();
    if (offloaded_ != nullptr) offloaded_->EndStep(result->routing);
    if (const CachedExperts* cached = transformer_.cached_experts(); cached != nullptr) {
      CountFaults(cached->faults(), &result->routing);
      result->faults = cached->faults().sequences;
      result->cache_uses = cached->uses();
      result->cache_uses.resize(result->routing.sequence_assignments.size());
      result->expert_wait = cached->step_wait();
    }
  }

  // Before anything reads the step's token ids: those that the step in front has sampled.
  void FillTokens() {
    if (limits_.can_order_ahead) device_->ops().FillSampledTokens(arena_.inputs().token_ids, arena_.last_tokens());
  }

  // Op by op.
  absl::Status OrderStep(const ForwardBatch& batch, ForwardResult* result) {
    arena_.Upload(batch, ShapeOf(batch), *device_);
    FillTokens();
    const Activations act = workspace_.For(batch.num_tokens());
    HostChoices choices;
    if (batch.keep_expert_ids) choices.expert_ids = result->expert_ids.data();
    if (batch.keep_choices) {
      choices.chosen_ids = result->chosen_ids.data();
      choices.chosen_weights = result->chosen_weights.data();
    }
    CADRE_RETURN_IF_ERROR(
        transformer_.RunLayers(arena_.inputs(), arena_.tallies(), cache_, act, PlacesTaken(), choices));
    // A server wants one row per sequence, which fits at once; whoever wants every row of a prompt gets it in pieces.
    const size_t num_rows = batch.logit_rows.size();
    const auto rows_at_once = static_cast<size_t>(act.logits.dim(0));
    for (size_t begin = 0; begin < num_rows; begin += rows_at_once) {
      const size_t count = std::min(rows_at_once, num_rows - begin);
      transformer_.ComputeLogits(arena_.inputs(), act, static_cast<int64_t>(begin), static_cast<int64_t>(count));
      if (!batch.sample_rows.empty()) OrderSampling(act);  // they are never more than fit at once
      DownloadLogits(act, batch, begin, count, result);
    }
    return absl::OkStatus();
  }

  View PlacesTaken() const {
    if (limits_.max_capacity_slots == 0) return {};
    return places_taken_.view(DType::kI32, {limits_.num_moe_layers, limits_.max_capacity_slots, limits_.num_experts});
  }

  void OrderSampling(const Activations& act) {
    const StepInputs& inputs = arena_.inputs();
    const View logits = act.logits.Rows(0, inputs.sample_rows.dim(0));
    device_->ops().Sample(arena_.sampled(), logits, inputs.sample_rows, inputs.sample_extras);
  }

  // act.logits [0, count) are those of rows [begin, begin + count) of the batch; who is sampled does not need them.
  void DownloadLogits(const Activations& act, const ForwardBatch& batch, size_t begin, size_t count,
                      ForwardResult* result) {
    const auto vocab_size = static_cast<size_t>(limits_.vocab_size);
    if (batch.sample_rows.empty()) {
      device_->CopyToHost(result->logits.data() + begin * vocab_size, act.logits.Rows(0, static_cast<int64_t>(count)));
      return;
    }
    float* to = result->logits.data();
    for (size_t row = 0; row < count; ++row) {
      if (batch.sample_rows[row].is_wanted != 0) continue;
      device_->CopyToHost(to, act.logits.Rows(static_cast<int64_t>(row), 1));
      to += vocab_size;
    }
  }

  const RunnerLimits limits_;
  const size_t max_logits_;
  Transformer transformer_;
  KvCache cache_;
  Workspace workspace_;
  StepArena arena_;
  const std::vector<ExpertId> kept_experts_;
  DeviceBuffer places_taken_;                    // of whom experts are limited, from step to step
  std::unique_ptr<OffloadedExperts> offloaded_;  // null where the device holds all experts, or shares their memory
  RecordedSteps recorded_;
  std::vector<std::unique_ptr<WorkMark>> marks_;  // of the ends of steps, in turns; none where nobody orders ahead
  size_t next_mark_ = 0;
  const std::optional<MemoryRoom> room_;
  int64_t num_present_blocks_;  // with memory behind them
  Device* const device_;
};

RunnerLimits MakeRunnerLimits(const ModelConfig& config, const MemoryPlan& plan, const StepLimits& step_limits,
                              const RunnerOptions& options, const Device& device) {
  return {.vocab_size = static_cast<int32_t>(config.vocab_size),
          .max_model_len = plan.max_model_len,
          .num_kv_blocks = plan.split ? static_cast<int32_t>(plan.split->max_blocks) : plan.num_kv_blocks,
          .max_sequence_blocks = plan.split ? static_cast<int32_t>(plan.split->min_blocks) : 0,
          .kv_block_size = plan.kv_block_size,
          .num_moe_layers = static_cast<int32_t>(config.num_moe_layers()),
          .num_experts = static_cast<int32_t>(config.num_experts),
          .top_k = static_cast<int32_t>(config.router.top_k),
          .min_k = FewestExperts(config),
          .needs_seeds = config.routing.noise > 0.0f,
          .prompt_group = static_cast<int32_t>(config.routing.expert_choice.group),
          .max_sample_rows = static_cast<int32_t>(step_limits.max_sample_rows),
          .max_sample_extras = step_limits.max_sample_extras,
          .max_capacity_slots = static_cast<int32_t>(step_limits.max_capacity_slots),
          .num_expert_slots = plan.num_expert_slots,
          .can_replay_routing = true,
          // Experts that move between steps, or are waited for in them, need the host.
          .can_order_ahead = options.order_ahead && device.can_mark() && step_limits.max_sample_rows > 0 &&
                             plan.expert_place() == ExpertPlace::kDevice};
}

// Where every expert is to be at first.
struct ExpertSeats {
  std::vector<ExpertId> resident;  // in the device for good, beside slots of the host
  std::vector<ExpertId> kept;      // of the others
  std::vector<ExpertId> warm_start;
};

// As many of each layer.
std::vector<ExpertId> SpreadOverLayers(const ModelConfig& config, int64_t count) {
  std::vector<ExpertId> experts;
  const int64_t num_layers = config.num_moe_layers();
  for (int64_t i = 0; i < count; ++i) {
    experts.push_back(static_cast<ExpertId>(i % num_layers * config.num_experts + i / num_layers));
  }
  return experts;
}

ExpertSeats ChooseSeats(const ModelConfig& config, const MemoryPlan& plan, const RunnerOptions& options) {
  if (plan.expert_place() == ExpertPlace::kDevice) return {};
  ExpertSeats seats;
  std::vector<int64_t> profile = options.expert_profile;
  if (profile.empty()) {
    seats.resident = SpreadOverLayers(config, plan.num_resident_experts);
    return seats;
  }
  CADRE_CHECK_LT(options.num_kept_experts, plan.num_expert_slots);
  seats.resident = OrderWarmStart(profile, config.num_experts, plan.num_resident_experts, {}, LayerShare::kGlobal);
  for (const ExpertId expert : seats.resident) profile[static_cast<size_t>(expert)] = 0;  // they need no slot
  seats.kept = ChooseKept(profile, config.num_experts, options.num_kept_experts, LayerShare::kGlobal);
  seats.warm_start =
      OrderWarmStart(profile, config.num_experts, plan.num_expert_slots, seats.kept, LayerShare::kGlobal);
  return seats;
}

// Null where the weights have all experts.
absl::StatusOr<std::unique_ptr<CachedExperts>> CreateCachedExperts(const ModelConfig& config, const MemoryPlan& plan,
                                                                   const RunnerOptions& options,
                                                                   const ExpertSeats& seats, Weights* weights,
                                                                   Device* device) {
  const bool is_read = plan.expert_place() == ExpertPlace::kCheckpoint;
  CADRE_CHECK_EQ(weights->expert_source != nullptr, is_read);
  if (!is_read) return nullptr;
  return CachedExperts::Create(config, ExpertLayout(config, weights->expert_dtype), std::move(weights->expert_source),
                               {.num_slots = plan.num_expert_slots,
                                .most_slots = plan.split ? plan.split->max_slots : 0,
                                .policy = options.expert_policy,
                                .num_threads = options.expert_read_threads,
                                .num_ahead_threads = options.expert_ahead_threads,
                                .warm_start = seats.warm_start,
                                .kept = seats.kept,
                                .resident = seats.resident,
                                .clock = options.clock},
                               device);
}

// Null where the device has all experts, or none.
absl::StatusOr<std::unique_ptr<OffloadedExperts>> CreateOffloadedExperts(const ModelConfig& config,
                                                                         const MemoryPlan& plan,
                                                                         const RunnerOptions& options,
                                                                         const ExpertSeats& seats,
                                                                         Transformer& transformer, Device* device) {
  if (plan.expert_place() != ExpertPlace::kHost) return nullptr;
  return OffloadedExperts::Create(ExpertLayout(config, plan.expert_dtype), transformer.placed_experts(),
                                  {.num_slots = plan.num_expert_slots,
                                   .policy = options.expert_policy,
                                   .warm_start = seats.warm_start,
                                   .kept = seats.kept},
                                  device);
}

absl::StatusOr<KvCache> CreateKvCache(const ModelConfig& config, const MemoryPlan& plan, Device* device) {
  const int64_t most = plan.split ? plan.split->max_blocks : plan.num_kv_blocks;
  const KvCacheShape shape = MakeKvCacheShape(config, most, plan.kv_block_size, plan.kv_dtype);
  return plan.split ? KvCache::CreateReserved(shape, plan.num_kv_blocks, *device) : KvCache::Create(shape, *device);
}

std::optional<MemoryRoom> MakeMemoryRoom(const MemoryPlan& plan) {
  if (!plan.split) return std::nullopt;
  return MemoryRoom{.limits = *plan.split, .initial = {.slots = plan.num_expert_slots, .blocks = plan.num_kv_blocks}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> CreateTransformerRunner(const ModelConfig& config, Weights weights,
                                                                     const MemoryPlan& plan,
                                                                     const RunnerOptions& options, Device* device) {
  CADRE_CHECK_EQ(plan.kv_block_size, options.kv_block_size);
  CADRE_RETURN_IF_ERROR(device->ops().Reserve(MakeOpsLimits(config, options, plan.max_model_len)));
  const StepLimits step_limits = MakeStepLimits(config, options, plan.max_model_len, device->ops());
  ExpertSeats seats = ChooseSeats(config, plan, options);
  CADRE_ASSIGN_OR_RETURN(std::unique_ptr<CachedExperts> cached,
                         CreateCachedExperts(config, plan, options, seats, &weights, device));
  const bool is_cached = cached != nullptr;
  CADRE_ASSIGN_OR_RETURN(Transformer transformer,
                         Transformer::Create(config, std::move(weights), std::move(cached), device));
  CADRE_ASSIGN_OR_RETURN(std::unique_ptr<OffloadedExperts> offloaded,
                         CreateOffloadedExperts(config, plan, options, seats, transformer, device));
  CADRE_ASSIGN_OR_RETURN(KvCache cache, CreateKvCache(config, plan, device));
  CADRE_ASSIGN_OR_RETURN(Workspace workspace,
                         Workspace::Create(config, step_limits.max_tokens, HeadRows(options), *device));
  CADRE_ASSIGN_OR_RETURN(StepArena arena, StepArena::Create(config, step_limits, *device));
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer places_taken,
                         device->Allocate(static_cast<size_t>(CapacityCountBytes(config, step_limits))));
  auto runner = std::make_unique<TransformerRunner>(
      MakeRunnerLimits(config, plan, step_limits, options, *device), std::move(transformer), std::move(cache),
      std::move(workspace), std::move(arena), std::move(places_taken), std::move(offloaded), HeadRows(options),
      std::move(seats.kept), MakeMemoryRoom(plan), device);
  CADRE_RETURN_IF_ERROR(runner->CreateMarks());
  // Which experts a step has to wait for is known while it runs, and to the host alone.
  if (options.record_steps && device->can_record() && !is_cached) {
    CADRE_RETURN_IF_ERROR(runner->RecordSteps(step_limits.max_blocks));
  }
  return runner;
}

}  // namespace cadre
