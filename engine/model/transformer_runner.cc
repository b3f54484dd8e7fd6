#include "engine/model/transformer_runner.h"

#include <cstddef>
#include <span>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/model/batch_check.h"
#include "engine/model/kv_cache.h"
#include "engine/model/memory_plan.h"
#include "engine/model/step_arena.h"
#include "engine/model/transformer.h"
#include "engine/model/workspace.h"

namespace cadre {
namespace {

class TransformerRunner final : public ModelRunner {
 public:
  TransformerRunner(const RunnerLimits& limits, Transformer transformer, KvCache cache, Workspace workspace,
                    StepArena arena, int64_t max_logit_rows, Device* device)
      : limits_(limits),
        max_logits_(static_cast<size_t>(max_logit_rows * limits.vocab_size)),
        transformer_(std::move(transformer)),
        cache_(std::move(cache)),
        workspace_(std::move(workspace)),
        arena_(std::move(arena)),
        device_(device) {}

  const RunnerLimits& limits() const override { return limits_; }

  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override {
    CheckBatch(batch, limits_);
    const auto num_tokens = static_cast<size_t>(batch.num_tokens());
    result->logits.reserve(max_logits_);  // as planned, and never twice that by growing
    result->logits.resize(batch.logit_rows.size() * static_cast<size_t>(limits_.vocab_size));
    result->expert_ids.resize(batch.keep_expert_ids ? static_cast<size_t>(limits_.num_moe_layers) * num_tokens *
                                                          static_cast<size_t>(limits_.top_k)
                                                    : 0);

    arena_.Upload(batch, *device_);
    const Activations act = workspace_.For(batch.num_tokens());
    transformer_.RunLayers(arena_.inputs(), arena_.tallies(), cache_, act,
                           batch.keep_expert_ids ? result->expert_ids.data() : nullptr);
    transformer_.ComputeLogits(arena_.inputs(), act, result->logits.data());
    arena_.DownloadTallies(*device_);
    CADRE_RETURN_IF_ERROR(device_->Synchronize());
    arena_.ReadRouting(&result->routing);
    return absl::OkStatus();
  }

  bool is_lost() const override { return device_->is_lost(); }
  void ScrubBlocks(std::span<const int32_t> blocks) override { cache_.Scrub(blocks, *device_); }

 private:
  const RunnerLimits limits_;
  const size_t max_logits_;
  Transformer transformer_;
  KvCache cache_;
  Workspace workspace_;
  StepArena arena_;
  Device* const device_;
};

RunnerLimits MakeRunnerLimits(const ModelConfig& config, const MemoryPlan& plan) {
  return {.vocab_size = static_cast<int32_t>(config.vocab_size),
          .max_model_len = plan.max_model_len,
          .num_kv_blocks = plan.num_kv_blocks,
          .kv_block_size = plan.kv_block_size,
          .num_moe_layers = static_cast<int32_t>(config.num_moe_layers()),
          .num_experts = static_cast<int32_t>(config.num_experts),
          .top_k = static_cast<int32_t>(config.router.top_k)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> CreateTransformerRunner(const ModelConfig& config, Weights weights,
                                                                     const MemoryPlan& plan,
                                                                     const RunnerOptions& options, Device* device) {
  CADRE_CHECK_EQ(plan.kv_block_size, options.kv_block_size);
  CADRE_RETURN_IF_ERROR(device->ops().Reserve(MakeOpsLimits(config, options, plan.max_model_len)));
  const StepLimits step_limits = MakeStepLimits(options, plan.max_model_len);
  CADRE_ASSIGN_OR_RETURN(Transformer transformer, Transformer::Create(config, std::move(weights), device));
  CADRE_ASSIGN_OR_RETURN(
      KvCache cache,
      KvCache::Create(MakeKvCacheShape(config, plan.num_kv_blocks, plan.kv_block_size, plan.kv_dtype), *device));
  CADRE_ASSIGN_OR_RETURN(Workspace workspace,
                         Workspace::Create(config, step_limits.max_tokens, HeadRows(options), *device));
  CADRE_ASSIGN_OR_RETURN(StepArena arena, StepArena::Create(config, step_limits, *device));
  return std::make_unique<TransformerRunner>(MakeRunnerLimits(config, plan), std::move(transformer), std::move(cache),
                                             std::move(workspace), std::move(arena), HeadRows(options), device);
}

}  // namespace cadre
