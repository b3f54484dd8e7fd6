#include "engine/model/stored_selection_bias.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/element_conversion.h"
#include "engine/model/routing_scheme.h"

namespace cadre {
namespace {

// Names of the module with the router: Mixtral's has two.
std::span<const char* const> ModulesOf(const ModelConfig& config) {
  static constexpr std::array<const char*, 2> kModules = {"mlp", "block_sparse_moe"};
  return std::span(kModules).first(config.family == ModelFamily::kMixtral ? 2 : 1);
}

std::string NameOf(int64_t layer, const char* module) {
  return absl::StrCat("model.layers.", layer, ".", module, ".gate.e_score_correction_bias");
}

const StoredTensor* FindOf(const CheckpointFiles& files, const ModelConfig& config, int64_t layer,
                           const char** found_in) {
  for (const char* module : ModulesOf(config)) {
    const StoredTensor* const tensor = files.Find(NameOf(layer, module));
    if (tensor == nullptr) continue;
    *found_in = module;
    return tensor;
  }
  return nullptr;
}

absl::Status AppendBias(const CheckpointFiles& files, const StoredTensor& tensor, int64_t num_experts,
                        std::vector<float>* all) {
  const TensorInfo& info = tensor.info;
  if (info.shape != std::vector<int64_t>{num_experts}) {
    return absl::InvalidArgumentError(absl::StrCat(files.Describe(tensor), ": has shape ", ShapeToString(info.shape),
                                                   ", config.json asks for [", num_experts, "]"));
  }
  if (!info.dtype.has_value() || !IsStoredFloat(*info.dtype)) {
    return absl::UnimplementedError(absl::StrCat(files.Describe(tensor), ": has dtype ", ToAbsl(info.dtype_name),
                                                 ", supported are F32, BF16, F16 and F64"));
  }
  // Aligned for every type.
  std::vector<double> stored(static_cast<size_t>(num_experts));
  const size_t bytes = static_cast<size_t>(num_experts) * DTypeBytes(*info.dtype);
  auto* const memory = reinterpret_cast<std::byte*>(stored.data());
  CADRE_RETURN_IF_ERROR(files.files()[tensor.shard].ReadAt(info.offset_bytes, {memory, bytes}));
  std::vector<float> bias(static_cast<size_t>(num_experts));
  ConvertElements(*info.dtype, memory, DType::kF32, reinterpret_cast<std::byte*>(bias.data()), bias.size());
  for (size_t e = 0; e < bias.size(); ++e) {
    if (std::abs(bias[e]) <= kMaxSelectionBias) continue;  // nor NaN
    return absl::InvalidArgumentError(absl::StrCat(files.Describe(tensor), ": element ", e, " is ", bias[e],
                                                   ", must be a number from ", -kMaxSelectionBias, " to ",
                                                   kMaxSelectionBias));
  }
  all->insert(all->end(), bias.begin(), bias.end());
  return absl::OkStatus();
}

}  // namespace

bool IsSelectionBias(const ModelConfig& config, std::string_view name) {
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!config.is_moe_layer[static_cast<size_t>(layer)]) continue;
    for (const char* module : ModulesOf(config)) {
      if (name == NameOf(layer, module)) return true;
    }
  }
  return false;
}

bool TakesSelectionBias(const ModelConfig& config) {
  return config.routing.scheme == RoutingScheme::kSigmoidBias || config.routing.scheme == RoutingScheme::kGroupLimited;
}

absl::StatusOr<std::vector<float>> ReadSelectionBias(const CheckpointFiles& files, const ModelConfig& config) {
  std::vector<float> all;
  if (!TakesSelectionBias(config) || !config.routing.selection_bias.empty()) return all;
  const char* module = ModulesOf(config).front();  // of the layer that was found last
  int64_t without = -1;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!config.is_moe_layer[static_cast<size_t>(layer)]) continue;
    const StoredTensor* const tensor = FindOf(files, config, layer, &module);
    if (tensor == nullptr) {
      without = layer;
    } else {
      CADRE_RETURN_IF_ERROR(AppendBias(files, *tensor, config.num_experts, &all));
    }
  }
  if (without < 0 || all.empty()) return all;
  return absl::InvalidArgumentError(absl::StrCat(files.index_name(), ": tensor ", Quoted(NameOf(without, module)),
                                                 " is missing, and other layers have one"));
}

}  // namespace cadre
