#include "engine/model/model_config.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/config_reader.h"
#include "engine/model/rope_config.h"
#include "engine/model/routing_scheme.h"

namespace cadre {
namespace {

constexpr int kMaxConfigDepth = 32;

// What the families do not share. The defaults are those of transformers' configuration classes: a file leaves out what
// equals its class.
struct FamilyTraits {
  ModelFamily family;
  std::string_view model_type;
  std::string_view architecture;
  std::string_view expert_width_key;
  int64_t default_kv_heads;  // 0: as many as query heads
  int64_t default_max_positions;
  double default_norm_eps;
  double default_theta;
};

constexpr std::array<FamilyTraits, 4> kFamilies = {{
    {ModelFamily::kOlmoe, "olmoe", "OlmoeForCausalLM", "intermediate_size", 0, 4096, 1e-5, 1e4},
    {ModelFamily::kQwen2Moe, "qwen2_moe", "Qwen2MoeForCausalLM", "moe_intermediate_size", 16, 32768, 1e-6, 1e4},
    {ModelFamily::kQwen3Moe, "qwen3_moe", "Qwen3MoeForCausalLM", "moe_intermediate_size", 4, 32768, 1e-6, 1e4},
    {ModelFamily::kMixtral, "mixtral", "MixtralForCausalLM", "intermediate_size", 8, 131072, 1e-5, 1e6},
}};

const FamilyTraits* FindFamily(std::string_view name, std::string_view FamilyTraits::*field) {
  const auto it = std::find_if(kFamilies.begin(), kFamilies.end(),
                               [&](const FamilyTraits& traits) { return traits.*field == name; });
  return it == kFamilies.end() ? nullptr : &*it;
}

// architectures[0], or nothing.
std::string FirstArchitecture(const nlohmann::json& document) {
  const auto list = document.find("architectures");
  if (list == document.end() || !list->is_array() || list->empty() || !list->front().is_string()) return "";
  return list->front().get<std::string>();
}

absl::StatusOr<FamilyTraits> ReadFamily(const nlohmann::json& document, ConfigReader& reader) {
  const std::string model_type = reader.String("model_type", "");
  const std::string architecture = FirstArchitecture(document);
  CADRE_RETURN_IF_ERROR(reader.status());
  const FamilyTraits* traits = model_type.empty() ? FindFamily(architecture, &FamilyTraits::architecture)
                                                  : FindFamily(model_type, &FamilyTraits::model_type);
  if (traits == nullptr || (!architecture.empty() && architecture != traits->architecture)) {
    return absl::UnimplementedError(
        absl::StrCat("config.json: model_type ", Quoted(model_type), " with architecture ", Quoted(architecture),
                     " is not supported (olmoe, qwen2_moe, qwen3_moe and mixtral for causal language modeling are)"));
  }
  return *traits;
}

void RefuseUnsupportedOptions(ConfigReader& reader) {
  const auto refuse = [&reader](std::string_view key) {
    reader.Fail(absl::StatusCode::kUnimplemented,
                absl::StrCat(ToAbsl(key), " ", reader.Show(key), " is not supported"));
  };
  for (const std::string_view key : {"quantization_config", "compression_config"}) {
    if (reader.Has(key)) refuse(key);
  }
  const std::string activation = reader.String("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") refuse("hidden_act");
}

// The window that every layer has, or 0.
int64_t ReadSlidingWindow(const FamilyTraits& traits, const nlohmann::json& document, ConfigReader& reader) {
  if (traits.family == ModelFamily::kOlmoe) return 0;
  if (traits.family == ModelFamily::kMixtral) return reader.Int({"sliding_window"}, 0, kMaxPositionEmbeddings, 0);
  const bool slides = reader.Bool("use_sliding_window", false);
  // Which layers of Qwen2-MoE slide is told differently by different implementations, so it is not guessed at.
  if (slides && traits.family == ModelFamily::kQwen2Moe) {
    reader.Fail(absl::StatusCode::kUnimplemented, "use_sliding_window true is not supported for qwen2_moe");
  }
  if (const auto types = document.find("layer_types"); types != document.end() && types->is_array()) {
    const bool all_full =
        std::all_of(types->begin(), types->end(), [](const nlohmann::json& type) { return type == "full_attention"; });
    if (!all_full) {
      reader.Fail(absl::StatusCode::kUnimplemented,
                  absl::StrCat("layer_types ", reader.Show("layer_types"), ": only full_attention is supported"));
    }
  }
  return slides ? reader.Int({"sliding_window"}, 1, kMaxPositionEmbeddings, 4096) : 0;
}

void ReadAttention(const FamilyTraits& traits, const nlohmann::json& document, ConfigReader& reader,
                   ModelConfig& config) {
  config.num_heads = reader.Int({"num_attention_heads"}, 1, kMaxHeads);
  // A key that is there as null means one kv head per query head; a key that is not there means the class default.
  const bool is_null = document.contains("num_key_value_heads") && !reader.Has("num_key_value_heads");
  const int64_t default_kv_heads = traits.default_kv_heads == 0 || is_null ? config.num_heads : traits.default_kv_heads;
  config.num_kv_heads = reader.Int({"num_key_value_heads"}, 1, kMaxHeads, default_kv_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    reader.Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("num_attention_heads is ", config.num_heads,
                             ", must be a multiple of num_key_value_heads ", config.num_kv_heads));
  }
  if (!reader.Has("head_dim") && config.hidden_size % config.num_heads != 0) {
    reader.Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("hidden_size is ", config.hidden_size, ", must be a multiple of num_attention_heads ",
                             config.num_heads, " when head_dim is absent"));
  }
  const int64_t default_head_dim = config.hidden_size / config.num_heads;
  config.head_dim = reader.Int({"head_dim"}, 2, kMaxHeadDim, default_head_dim);
  if (config.head_dim < 2 || config.head_dim > kMaxHeadDim || config.head_dim % 2 != 0) {
    reader.Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("head_dim is ", config.head_dim, ", must be an even number from 2 to ", kMaxHeadDim));
  }
  switch (traits.family) {
    case ModelFamily::kOlmoe:
    case ModelFamily::kQwen3Moe:
      config.qkv_bias = config.o_bias = reader.Bool("attention_bias", false);
      break;
    case ModelFamily::kQwen2Moe:
      config.qkv_bias = reader.Bool("qkv_bias", true);
      break;
    case ModelFamily::kMixtral:  // has no such option
      break;
  }
  if (traits.family == ModelFamily::kOlmoe) config.qk_norm = QkNorm::kFullWidth;
  if (traits.family == ModelFamily::kQwen3Moe) config.qk_norm = QkNorm::kPerHead;
  if (traits.family == ModelFamily::kOlmoe && reader.Has("clip_qkv")) {
    config.clip_qkv = static_cast<float>(reader.Number("clip_qkv", 1e-6, 1e6));
  }
  config.sliding_window = ReadSlidingWindow(traits, document, reader);
}

// A layer is MoE iff it is not in mlp_only_layers and (layer + 1) is a multiple of decoder_sparse_step (Qwen).
void ReadMoeLayers(const FamilyTraits& traits, ConfigReader& reader, ModelConfig& config) {
  config.is_moe_layer.assign(static_cast<size_t>(config.num_layers), true);
  if (traits.family != ModelFamily::kQwen2Moe && traits.family != ModelFamily::kQwen3Moe) return;
  const int64_t step = reader.Int({"decoder_sparse_step"}, 1, kMaxLayers, 1);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    config.is_moe_layer[static_cast<size_t>(layer)] = (layer + 1) % step == 0;
  }
  const auto max_dense = static_cast<size_t>(config.num_layers);
  for (const int64_t layer : reader.IntList("mlp_only_layers", 0, config.num_layers - 1, max_dense)) {
    config.is_moe_layer[static_cast<size_t>(layer)] = false;
  }
  if (config.num_moe_layers() == 0) {
    reader.Fail(absl::StatusCode::kUnimplemented,
                "mlp_only_layers and decoder_sparse_step leave no layer with experts");
  }
  if (config.num_moe_layers() < config.num_layers) {
    config.dense_ffn_size = reader.Int({"intermediate_size"}, 1, kMaxFfnSize);
  }
}

void ReadExperts(const FamilyTraits& traits, ConfigReader& reader, ModelConfig& config) {
  config.num_experts = reader.Int({"num_experts", "num_local_experts"}, 1, kMaxExpertsPerLayer);
  config.expert_ffn_size = reader.Int({traits.expert_width_key}, 1, kMaxFfnSize);
  config.router.top_k = reader.Int({"num_experts_per_tok"}, 1, config.num_experts);
  const bool normalizes = traits.family == ModelFamily::kMixtral || reader.Bool("norm_topk_prob", false);
  config.router.norm = normalizes ? WeightNorm::kSum : WeightNorm::kNone;
  if (traits.family == ModelFamily::kQwen2Moe) {
    config.shared_expert_ffn_size = reader.Int({"shared_expert_intermediate_size"}, 0, kMaxFfnSize);
  }
  ReadMoeLayers(traits, reader, config);
  if (config.num_layers * config.num_experts > kMaxExperts) {
    reader.Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat("num_hidden_layers * num_experts is ", config.num_layers * config.num_experts,
                             ", limit is ", kMaxExperts));
  }
}

// The router that the file or the operator wants in place of the family's.
absl::Status ReadRouting(const nlohmann::json& document, std::string_view override_text, ModelConfig& config) {
  constexpr std::string_view kFlag = "--routing-override";
  const auto block = document.find("cadre");
  const bool has_block = block != document.end() && !block->is_null();
  if (has_block) {
    ConfigReader reader(*block, "config.json: cadre");
    CADRE_RETURN_IF_ERROR(reader.status());
    for (const auto& [key, value] : block->items()) {
      if (key == "routing") continue;
      reader.Fail(absl::StatusCode::kInvalidArgument, absl::StrCat("unknown key ", Quoted(key), " (routing is known)"));
    }
    CADRE_RETURN_IF_ERROR(reader.status());
  }
  if (!override_text.empty()) {
    const absl::StatusOr<nlohmann::json> scheme = ParseRoutingOverride(override_text, kFlag);
    const absl::Status status = scheme.ok() ? ApplyRoutingScheme(*scheme, kFlag, &config) : scheme.status();
    return status.ok() ? status : absl::OutOfRangeError(status.message());  // it is no fault of the file
  }
  if (!has_block || !block->contains("routing")) return absl::OkStatus();
  return ApplyRoutingScheme(block->at("routing"), "config.json: cadre.routing", &config);
}

// An upper bound, with every layer counted as MoE and dense at once. Every factor is bounded, so nothing overflows:
// the largest term is kMaxExperts * 3 * 2^37 < 2^58.
int64_t CountParameters(const ModelConfig& config) {
  const int64_t d = config.hidden_size;
  const int64_t attention = 2 * d * (config.num_heads + config.num_kv_heads) * config.head_dim;
  const int64_t mlp = 3 * d * (config.shared_expert_ffn_size + config.dense_ffn_size);
  const int64_t experts = config.num_experts * d * (3 * config.expert_ffn_size + 1);
  return 2 * config.vocab_size * d + config.num_layers * (attention + mlp + experts);
}

}  // namespace

std::string_view ModelFamilyName(ModelFamily family) {
  return std::find_if(kFamilies.begin(), kFamilies.end(),
                      [family](const FamilyTraits& traits) { return traits.family == family; })
      ->model_type;
}

int64_t ModelConfig::num_moe_layers() const { return std::count(is_moe_layer.begin(), is_moe_layer.end(), true); }

int32_t FewestExperts(const ModelConfig& config) {
  if (config.routing.expert_choice.group > 0) return 0;
  const bool varies = config.router.top_p > 0.0f || config.router.threshold > 0.0f;
  return varies ? static_cast<int32_t>(config.router.min_k) : kAlwaysTopK;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view routing_override) {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(json, "config.json", kMaxConfigDepth));
  ConfigReader reader(document, "config.json");
  CADRE_RETURN_IF_ERROR(reader.status());
  CADRE_ASSIGN_OR_RETURN(const FamilyTraits traits, ReadFamily(document, reader));
  RefuseUnsupportedOptions(reader);

  ModelConfig config;
  config.family = traits.family;
  config.hidden_size = reader.Int({"hidden_size"}, 1, kMaxHiddenSize);
  config.num_layers = reader.Int({"num_hidden_layers"}, 1, kMaxLayers);
  config.vocab_size = reader.Int({"vocab_size"}, 1, kMaxVocabSize);
  config.max_position_embeddings =
      reader.Int({"max_position_embeddings"}, 1, kMaxPositionEmbeddings, traits.default_max_positions);
  config.rms_norm_eps = static_cast<float>(reader.Number("rms_norm_eps", 0.0, 1.0, traits.default_norm_eps));
  config.tie_word_embeddings = reader.Bool("tie_word_embeddings", false);
  ReadAttention(traits, document, reader, config);
  ReadExperts(traits, reader, config);
  CADRE_RETURN_IF_ERROR(reader.status());

  CADRE_RETURN_IF_ERROR(ReadRouting(document, routing_override, config));
  if (const int64_t parameters = CountParameters(config); parameters > kMaxParameters) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: the sizes ask for ", parameters, " parameters, limit is ", kMaxParameters));
  }
  CADRE_ASSIGN_OR_RETURN(config.rope,
                         ReadRopeConfig(reader, config.head_dim, config.max_position_embeddings, traits.default_theta));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& model_dir, std::string_view routing_override) {
  CADRE_ASSIGN_OR_RETURN(const std::string text, ReadFileToString(model_dir / "config.json", kMaxConfigBytes));
  return ParseModelConfig(text, routing_override);
}

}  // namespace cadre
