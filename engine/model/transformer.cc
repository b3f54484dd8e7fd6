#include "engine/model/transformer.h"

#include <algorithm>
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

void Transformer::ComputeLogits(const StepInputs& inputs, const Activations& act, float* logits) {
  Ops& ops = device_->ops();
  const int64_t num_rows = inputs.logit_rows.num_elements();
  // A server wants one row per sequence, which fits at once; whoever wants every row of a prompt gets it in pieces.
  const int64_t rows_at_once = act.logits.dim(0);
  for (int64_t begin = 0; begin < num_rows; begin += rows_at_once) {
    const int64_t count = std::min(rows_at_once, num_rows - begin);
    const View x = act.head_input.Rows(0, count);
    const View out = act.logits.Rows(0, count);
    ops.GatherRows(x, act.hidden, inputs.logit_rows.Rows(begin, count));
    ops.RmsNorm(x, x, weights_.final_norm, config_.rms_norm_eps);
    ops.Linear(out, x, weights_.head, /*bias=*/{}, /*accumulate=*/false);
    device_->CopyToHost(logits + begin * config_.vocab_size, out);
  }
}

}  // namespace cadre
