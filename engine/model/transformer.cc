#include "engine/model/transformer.h"

#include <optional>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/model/attention.h"
#include "engine/model/moe_layer.h"

namespace cadre {

namespace {

std::optional<LayerCapacity> CapacityOf(int64_t moe_layer, const StepInputs& inputs, const StepTallies& tallies,
                                        const View& places_taken) {
  if (inputs.capacity.empty() || inputs.capacity.num_elements() == 0) return std::nullopt;
  return LayerCapacity{
      .inputs = {.sequences = inputs.capacity, .row_sequence = inputs.row_sequence, .positions = inputs.positions},
      .taken = places_taken.Rows(moe_layer, 1).Reshape({places_taken.dim(1), places_taken.dim(2)}),
      .tally = tallies.LimitedLayer(moe_layer)};
}

}  // namespace

absl::StatusOr<Transformer> Transformer::Create(const ModelConfig& config, Weights weights,
                                                std::unique_ptr<CachedExperts> cached, Device* device) {
  CADRE_CHECK_EQ(static_cast<int64_t>(weights.layers.size()), config.num_layers);
  const std::vector<float>& frequencies = config.rope.inverse_frequencies;
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, device->Allocate(frequencies.size() * sizeof(float)));
  const std::vector<float>& bias = config.routing.selection_bias;
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer bias_buffer, device->Allocate(bias.size() * sizeof(float)));
  Transformer transformer(config, std::move(weights), std::move(cached), std::move(buffer), std::move(bias_buffer),
                          device);
  device->CopyToDevice(transformer.FrequencyView(), transformer.config_.rope.inverse_frequencies.data());
  if (!bias.empty()) device->CopyToDevice(transformer.SelectionBias(), bias.data());
  CADRE_RETURN_IF_ERROR(device->Synchronize());
  return transformer;
}

Transformer::Transformer(const ModelConfig& config, Weights weights, std::unique_ptr<CachedExperts> cached,
                         DeviceBuffer frequencies, DeviceBuffer selection_bias, Device* device)
    : config_(config),
      weights_(std::move(weights)),
      cached_(std::move(cached)),
      frequencies_(std::move(frequencies)),
      selection_bias_(std::move(selection_bias)),
      device_(device) {}

View Transformer::FrequencyView() const {
  return frequencies_.view(DType::kF32, {static_cast<int64_t>(config_.rope.inverse_frequencies.size())});
}

std::vector<std::span<MlpWeights>> Transformer::placed_experts() {
  std::vector<std::span<MlpWeights>> placed;
  for (size_t layer = 0; layer < weights_.layers.size(); ++layer) {
    if (config_.is_moe_layer[layer]) placed.emplace_back(weights_.layers[layer].experts);
  }
  return placed;
}

void Transformer::SetSelectionBias(std::span<const float> bias) {
  CADRE_CHECK_EQ(bias.size(), config_.routing.selection_bias.size());
  CADRE_CHECK(!bias.empty());
  device_->CopyToDevice(SelectionBias(), bias.data());
}

View Transformer::SelectionBias() const {
  if (config_.routing.selection_bias.empty()) return {};
  return selection_bias_.view(DType::kF32, {config_.num_moe_layers(), config_.num_experts});
}

ConstView Transformer::BiasOf(int64_t moe_layer) const {
  const View all = SelectionBias();
  return all.empty() ? ConstView() : ConstView(all.Rows(moe_layer, 1).Reshape({config_.num_experts}));
}

absl::Status Transformer::RunLayers(const StepInputs& inputs, const StepTallies& tallies, const KvCache& cache,
                                    const Activations& act, const View& places_taken, const HostChoices& choices) {
  Ops& ops = device_->ops();
  if (cached_ != nullptr) cached_->BeginStep();
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
    const LayerRouting routing = {.moe_layer = moe_layer,
                                  .row_sequence = inputs.row_sequence,
                                  .positions = inputs.positions,
                                  .prompt_lengths = inputs.prompt_lengths,
                                  .token_ids = inputs.token_ids,
                                  .seeds = inputs.seeds,
                                  .selection_bias = BiasOf(moe_layer),
                                  .recorded = inputs.RecordedLayer(moe_layer)};
    ChooseExperts(ops, config_, weights, routing, tallies.Layer(moe_layer), act);
    const int64_t first_choice = moe_layer * act.expert_ids.num_elements();
    if (choices.chosen_ids != nullptr) {
      device_->CopyToHost(choices.chosen_ids + first_choice, act.expert_ids);
      device_->CopyToHost(choices.chosen_weights + first_choice, act.routing_weights);
    }
    if (cached_ != nullptr) CADRE_RETURN_IF_ERROR(PredictNextLayer(layer, routing, act));
    CADRE_RETURN_IF_ERROR(MixExperts(ops, config_, weights, routing,
                                     CapacityOf(moe_layer, inputs, tallies, places_taken), cached_.get(), act));
    if (choices.expert_ids != nullptr) device_->CopyToHost(choices.expert_ids + first_choice, act.expert_ids);
    ++moe_layer;
  }
  return absl::OkStatus();
}

absl::Status Transformer::PredictNextLayer(int64_t layer, const LayerRouting& routing, const Activations& act) {
  int64_t next = layer + 1;
  while (next < config_.num_layers && !config_.is_moe_layer[static_cast<size_t>(next)]) ++next;
  if (next == config_.num_layers) return absl::OkStatus();
  LayerRouting next_routing = routing;
  next_routing.moe_layer = routing.moe_layer + 1;
  next_routing.selection_bias = BiasOf(next_routing.moe_layer);
  return cached_->Predict(weights_.layers[static_cast<size_t>(next)], next_routing, act);
}

void Transformer::ComputeLogits(const StepInputs& inputs, const Activations& act, int64_t begin, int64_t count) {
  Ops& ops = device_->ops();
  const View x = act.head_input.Rows(0, count);
  ops.GatherRows(x, act.hidden, inputs.logit_rows.Rows(begin, count));
  ops.RmsNorm(x, x, weights_.final_norm, config_.rms_norm_eps);
  ops.Linear(act.logits.Rows(0, count), x, weights_.head, /*bias=*/{}, /*accumulate=*/false);
}

}  // namespace cadre
