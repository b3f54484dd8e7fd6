// The architecture of a checkpoint, read from config.json once and checked: everything after this line trusts it.
//
//   family      router                                        attention                            shared expert
//   olmoe       softmax, kSum iff norm_topk_prob (false)       q/k norm over the full width, clamp  -
//   qwen2_moe   softmax, kSum iff norm_topk_prob (false)       q, k, v bias                         sigmoid-gated
//   qwen3_moe   softmax, kSum iff norm_topk_prob (file: true)  q/k norm per head, H*d != D          -
//   mixtral     softmax, kSum always                           sliding window if given              -
//
// The router is another where the file or the operator asks for one: routing_scheme.h.
//
// olmoe and qwen3_moe have biases on q, k, v and o iff `attention_bias`; qwen3_moe has a window iff
// `use_sliding_window`.
#ifndef CADRE_ENGINE_MODEL_MODEL_CONFIG_H_
#define CADRE_ENGINE_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/step_routing.h"
#include "kernels/dtype.h"
#include "kernels/ops.h"

namespace cadre {

// Upper bounds of what a config.json may ask for: far above every published model, and low enough that products of
// them stay inside 63 bits and that a file of a few lines cannot make us hold gigabytes.
inline constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;  // of config.json and generation_config.json
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHiddenSize = int64_t{1} << 17;
inline constexpr int64_t kMaxHeads = 1024;
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr int64_t kMaxFfnSize = int64_t{1} << 20;
inline constexpr int64_t kMaxVocabSize = int64_t{1} << 24;
inline constexpr int64_t kMaxPositionEmbeddings = int64_t{1} << 27;
inline constexpr int64_t kMaxExpertsPerLayer = 4096;
inline constexpr int64_t kMaxExperts = int64_t{1} << 18;     // num_layers * num_experts
inline constexpr int64_t kMaxParameters = int64_t{1} << 44;  // of the whole model

enum class ModelFamily { kOlmoe, kQwen2Moe, kQwen3Moe, kMixtral };
std::string_view ModelFamilyName(ModelFamily family);  // the `model_type` of config.json

// Which router: routing_scheme.h.
enum class RoutingScheme {
  kFamily,
  kSoftmaxTopK,
  kSigmoidBias,
  kGroupLimited,
  kSwitch,
  kGshard,
  kNoisyTopK,
  kHash,
  kTopP,
  kThreshold,
  kDense,
  kExpertChoice
};
struct RoutingChoice {
  RoutingScheme scheme = RoutingScheme::kFamily;
  std::string origin;                 // what chose it, as messages name it; empty: nothing did
  std::vector<float> selection_bias;  // [MoE layers, E], or empty
  float noise = 0.0f;                 // standard deviation of what is added to logits
  uint64_t hash_seed = 0;
  ExpertChoiceOptions expert_choice;  // group 0: tokens choose
};

enum class QkNorm { kNone, kPerHead, kFullWidth };

// Rotary embedding, ready to use: theta, scaling and factors are already in the frequencies.
struct RopeConfig {
  std::vector<float> inverse_frequencies;  // [r/2]
  float amplitude = 1.0f;                  // factor on cos and sin (YaRN)
  int64_t scaled_positions = 0;            // YaRN: factor * original_max_position_embeddings, which it reaches; else 0
};

struct ModelConfig {
  ModelFamily family = ModelFamily::kOlmoe;
  int64_t hidden_size = 0;  // D
  int64_t num_layers = 0;
  int64_t num_heads = 0;     // H
  int64_t num_kv_heads = 0;  // G
  int64_t head_dim = 0;      // d
  int64_t vocab_size = 0;    // V
  int64_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-6f;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  std::optional<float> clip_qkv;  // clamp of q, k and v before rope
  int64_t sliding_window = 0;     // 0: none
  RopeConfig rope;

  int64_t num_experts = 0;             // E
  int64_t expert_ffn_size = 0;         // F
  RouterOptions router;                // top_k, score, norm
  RoutingChoice routing;               // whose router it is
  int64_t shared_expert_ffn_size = 0;  // 0: no shared expert
  int64_t dense_ffn_size = 0;          // width of the layers that are not MoE
  std::vector<bool> is_moe_layer;      // [num_layers]

  int64_t num_moe_layers() const;
};

// Of a token, where their number varies; kAlwaysTopK where it does not.
int32_t FewestExperts(const ModelConfig& config);

// Values of generation_config.json: what a request gets for fields that it leaves unset. A file that says `do_sample`
// false is greedy whatever else it says, as in transformers. A file that does not say gets the values in it, as in
// vLLM: transformers would be greedy then, but a server is asked for text more often than for the most likely text.
// Fields that requests do not have (repetition_penalty, num_beams, ...) are not read.
struct GenerationDefaults {
  std::vector<int32_t> eos_token_ids;  // from generation_config.json, else config.json
  float temperature = 1.0f;            // 0: greedy
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  std::optional<int32_t> max_new_tokens;
};

// Parses and checks the text of a config.json; keys that mean nothing here are ignored. INVALID_ARGUMENT names the key,
// the value and the limit; UNIMPLEMENTED names an architecture or option that cadre does not run. Its object `cadre` is
// ours: {"routing": {"scheme": ...}} (routing_scheme.h), where unknown keys are refused. `routing_override` takes the
// place of that scheme, as --routing-override gives it; empty: it does not. OUT_OF_RANGE when it is wrong itself.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view routing_override = {});
// `generation_json` may be empty (no such file); `config_json` supplies eos_token_id then.
absl::StatusOr<GenerationDefaults> ParseGenerationDefaults(std::string_view generation_json,
                                                           std::string_view config_json);

// The same for model_dir/config.json (required: NOT_FOUND) and model_dir/generation_config.json (optional). A file
// above kMaxConfigBytes is refused unread.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& model_dir,
                                            std::string_view routing_override = {});
absl::StatusOr<GenerationDefaults> LoadGenerationDefaults(const std::filesystem::path& model_dir);

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_MODEL_CONFIG_H_
