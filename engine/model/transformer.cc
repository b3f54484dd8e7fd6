#include "engine/model/transformer.h"

#include <utility>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/model/attention.h"
#include "engine/model/moe_layer.h"

namespace cadre {

absl::StatusOr<Transformer> Transformer::Create(const ModelConfig& config, Weights weights, Device* device) {
  CADRE_CHECK_EQ(static_cast<int64_t>(weights.layers.size()), config.num_layers);
  const std::vector<float>& frequencies = config.rope.inverse_frequencies;
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, device->Allocate(frequencies.size() * sizeof(float)));
  Transformer transformer(config, std::move(weights), std::move(buffer), device);
  device->CopyToDevice(transformer.FrequencyView(), transformer.config_.rope.inverse_frequencies.data());
  CADRE_RETURN_IF_ERROR(device->Synchronize());
  return transformer;
}

Transformer::Transformer(const ModelConfig& config, Weights weights, DeviceBuffer frequencies, Device* device)
    : config_(config), weights_(std::move(weights)), frequencies_(std::move(frequencies)), device_(device) {}

View Transformer::FrequencyView() const {
  return frequencies_.view(DType::kF32, {static_cast<int64_t>(config_.rope.inverse_frequencies.size())});
}

void Transformer::RunLayers(const StepInputs& inputs, const StepTallies& tallies, const KvCache& cache,
                            const Activations& act, int32_t* expert_ids) {
  Ops& ops = device_->ops();
  ops.GatherRows(act.hidden, weights_.embedding, inputs.token_ids);
  ops.RopeTable(act.cos, act.sin, inputs.positions, FrequencyView(), config_.rope.amplitude);

  int64_t moe_layer = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
    Attend(ops, config_, weights, layer, inputs, cache, act);
    if (!config_.is_moe_layer[static_cast<size_t>(layer)]) {
      ApplyDenseMlp(ops, config_, weights, act);
      continue;
    }
    MixExperts(ops, config_, weights, inputs.row_sequence, tallies.Layer(moe_layer), act);
    if (expert_ids != nullptr) {
      device_->CopyToHost(expert_ids + moe_layer * act.expert_ids.num_elements(), act.expert_ids);
    }
    ++moe_layer;
  }
}

void Transformer::ComputeLogits(const StepInputs& inputs, const Activations& act, int64_t begin, int64_t count) {
  Ops& ops = device_->ops();
  const View x = act.head_input.Rows(0, count);
  ops.GatherRows(x, act.hidden, inputs.logit_rows.Rows(begin, count));
  ops.RmsNorm(x, x, weights_.final_norm, config_.rms_norm_eps);
  ops.Linear(act.logits.Rows(0, count), x, weights_.head, /*bias=*/{}, /*accumulate=*/false);
}

}  // namespace cadre
