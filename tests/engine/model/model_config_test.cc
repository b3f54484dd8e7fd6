#include "engine/model/model_config.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig MustParse(const std::string& text) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig();
}

TEST(ModelConfigTest, ReadsOlmoe1B7B) {
  const ModelConfig config = MustParse(R"({
    "architectures": ["OlmoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "clip_qkv": null,
    "eos_token_id": 50279, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 1024, "max_position_embeddings": 4096, "model_type": "olmoe", "norm_topk_prob": false,
    "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16,
    "num_key_value_heads": 16, "pad_token_id": 1, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
    "transformers_version": "4.43.0.dev0", "vocab_size": 50304})");
  EXPECT_EQ(config.family, ModelFamily::kOlmoe);
  EXPECT_EQ(config.hidden_size, 2048);
  EXPECT_EQ(config.num_layers, 16);
  EXPECT_EQ(config.num_heads, 16);
  EXPECT_EQ(config.num_kv_heads, 16);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.vocab_size, 50304);
  EXPECT_EQ(config.max_position_embeddings, 4096);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.qk_norm, QkNorm::kFullWidth);
  EXPECT_FALSE(config.clip_qkv.has_value());
  EXPECT_EQ(config.sliding_window, 0);
  EXPECT_EQ(config.num_experts, 64);
  EXPECT_EQ(config.expert_ffn_size, 1024);
  EXPECT_EQ(config.router.top_k, 8);
  EXPECT_EQ(config.router.score, RouterScore::kSoftmax);
  EXPECT_EQ(config.router.norm, WeightNorm::kNone);
  EXPECT_EQ(config.shared_expert_ffn_size, 0);
  EXPECT_EQ(config.num_moe_layers(), 16);
  EXPECT_EQ(config.rope.inverse_frequencies.size(), 64u);
  EXPECT_EQ(ModelFamilyName(config.family), "olmoe");
}

TEST(ModelConfigTest, ReadsQwen15Moe) {
  const ModelConfig config = MustParse(R"({
    "architectures": ["Qwen2MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21, "model_type": "qwen2_moe",
    "moe_intermediate_size": 1408, "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 60,
    "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_sliding_window": false, "vocab_size": 151936})");
  EXPECT_EQ(config.family, ModelFamily::kQwen2Moe);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_EQ(config.qk_norm, QkNorm::kNone);
  EXPECT_EQ(config.sliding_window, 0);
  EXPECT_EQ(config.expert_ffn_size, 1408);
  EXPECT_EQ(config.shared_expert_ffn_size, 5632);
  EXPECT_EQ(config.router.norm, WeightNorm::kNone);
  EXPECT_EQ(config.num_moe_layers(), 24);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6f);
}

TEST(ModelConfigTest, ReadsQwen3Moe) {
  const ModelConfig config = MustParse(R"({
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
    "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true,
    "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
    "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_sliding_window": false,
    "vocab_size": 151936})");
  EXPECT_EQ(config.family, ModelFamily::kQwen3Moe);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.num_heads * config.head_dim, 4096);
  EXPECT_EQ(config.qk_norm, QkNorm::kPerHead);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.router.norm, WeightNorm::kSum);
  EXPECT_EQ(config.expert_ffn_size, 768);
}

TEST(ModelConfigTest, ReadsMixtral8x7B) {
  const ModelConfig config = MustParse(R"({
    "architectures": ["MixtralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
    "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "num_local_experts": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": 4096,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 32000})");
  EXPECT_EQ(config.family, ModelFamily::kMixtral);
  EXPECT_EQ(config.num_experts, 8);
  EXPECT_EQ(config.expert_ffn_size, 14336);
  EXPECT_EQ(config.router.norm, WeightNorm::kSum);
  EXPECT_EQ(config.sliding_window, 4096);
  EXPECT_EQ(config.qk_norm, QkNorm::kNone);
}

// What transformers 5 writes: `dtype`, `rope_parameters`, `layer_types`, num_local_experts for Qwen3, nulls.
TEST(ModelConfigTest, ReadsTheSpellingsOfTransformers5) {
  const ModelConfig qwen2 = MustParse(R"({
    "architectures": ["Qwen2MoeForCausalLM"], "decoder_sparse_step": 1, "dtype": "float32", "hidden_act": "silu",
    "hidden_size": 32, "intermediate_size": 48, "layer_types": ["full_attention", "full_attention"],
    "max_position_embeddings": 128, "max_window_layers": 28, "mlp_only_layers": [0], "model_type": "qwen2_moe",
    "moe_intermediate_size": 16, "norm_topk_prob": false, "num_attention_heads": 4, "num_experts": 8,
    "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "qkv_bias": true,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "shared_expert_intermediate_size": 24,
    "sliding_window": 0, "use_sliding_window": false, "vocab_size": 64})");
  EXPECT_THAT(qwen2.is_moe_layer, ElementsAre(false, true));
  EXPECT_EQ(qwen2.dense_ffn_size, 48);

  const ModelConfig qwen3 = MustParse(R"({
    "architectures": ["Qwen3MoeForCausalLM"], "dtype": "float16", "head_dim": 16, "hidden_size": 32,
    "intermediate_size": 48, "model_type": "qwen3_moe", "moe_intermediate_size": 16, "norm_topk_prob": true,
    "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "num_local_experts": 8, "rope_parameters": {"factor": 4.0, "original_max_position_embeddings": 32,
    "rope_theta": 1000000.0, "rope_type": "yarn", "type": "yarn"}, "sliding_window": null,
    "tie_word_embeddings": true, "vocab_size": 64})");
  EXPECT_EQ(qwen3.num_experts, 8);
  EXPECT_TRUE(qwen3.tie_word_embeddings);
  EXPECT_GT(qwen3.rope.amplitude, 1.1f);
}

TEST(ModelConfigTest, EachFamilyHasItsOwnNormDefault) {
  for (const auto& [family, norm] :
       std::vector<std::pair<ModelFamily, WeightNorm>>{{ModelFamily::kOlmoe, WeightNorm::kNone},
                                                       {ModelFamily::kQwen2Moe, WeightNorm::kNone},
                                                       {ModelFamily::kQwen3Moe, WeightNorm::kNone},
                                                       {ModelFamily::kMixtral, WeightNorm::kSum}}) {
    json config = MakeConfigJson({.family = family});
    EXPECT_EQ(MustParse(config.dump()).router.norm, norm) << ModelFamilyName(family);
    config["norm_topk_prob"] = true;
    EXPECT_EQ(MustParse(config.dump()).router.norm, WeightNorm::kSum) << ModelFamilyName(family);
    config["norm_topk_prob"] = false;
    EXPECT_EQ(MustParse(config.dump()).router.norm, norm) << ModelFamilyName(family);
  }
}

TEST(ModelConfigTest, FillsInTheDefaultsOfTheClass) {
  json config = MakeConfigJson({.family = ModelFamily::kMixtral});
  for (const char* key : {"num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
                          "torch_dtype", "hidden_act"}) {
    config.erase(key);
  }
  config["num_attention_heads"] = 16;
  const ModelConfig mixtral = MustParse(config.dump());
  EXPECT_EQ(mixtral.num_kv_heads, 8);
  EXPECT_EQ(mixtral.head_dim, 2);
  EXPECT_EQ(mixtral.max_position_embeddings, 131072);
  EXPECT_FLOAT_EQ(mixtral.rms_norm_eps, 1e-5f);
  EXPECT_FALSE(mixtral.tie_word_embeddings);
  config["num_key_value_heads"] = nullptr;
  EXPECT_EQ(MustParse(config.dump()).num_kv_heads, 16);

  json olmoe = MakeConfigJson({.family = ModelFamily::kOlmoe});
  olmoe.erase("num_key_value_heads");
  EXPECT_EQ(MustParse(olmoe.dump()).num_kv_heads, 4);
}

TEST(ModelConfigTest, FamilyComesFromTheArchitectureWhenThereIsNoModelType) {
  json config = MakeConfigJson({.family = ModelFamily::kMixtral});
  config.erase("model_type");
  config["architectures"] = {"MixtralForCausalLM"};
  EXPECT_EQ(MustParse(config.dump()).family, ModelFamily::kMixtral);
}

TEST(ModelConfigTest, SparseStepAndDenseLayersCombine) {
  CheckpointSpec spec{.family = ModelFamily::kQwen3Moe};
  spec.num_layers = 6;
  spec.extra_config = {{"decoder_sparse_step", 2}, {"mlp_only_layers", {3, 3, 0}}};
  EXPECT_THAT(MustParse(MakeConfigJson(spec).dump()).is_moe_layer, ElementsAre(false, true, false, false, false, true));
}

TEST(ModelConfigTest, ReadsOptionsOfOneFamily) {
  json olmoe = MakeConfigJson({.family = ModelFamily::kOlmoe});
  olmoe["clip_qkv"] = 8;
  olmoe["sliding_window"] = 16;  // no such option in this family
  EXPECT_EQ(MustParse(olmoe.dump()).clip_qkv, 8.0f);
  EXPECT_EQ(MustParse(olmoe.dump()).sliding_window, 0);

  json qwen2 = MakeConfigJson({.family = ModelFamily::kQwen2Moe});
  qwen2["qkv_bias"] = false;
  EXPECT_FALSE(MustParse(qwen2.dump()).qkv_bias);

  EXPECT_FALSE(MustParse(qwen2.dump()).o_bias);

  json qwen3 = MakeConfigJson({.family = ModelFamily::kQwen3Moe});
  qwen3["attention_bias"] = true;
  qwen3["sliding_window"] = 100;
  EXPECT_TRUE(MustParse(qwen3.dump()).qkv_bias);
  EXPECT_TRUE(MustParse(qwen3.dump()).o_bias);
  EXPECT_EQ(MustParse(qwen3.dump()).sliding_window, 0);
  qwen3["use_sliding_window"] = true;
  EXPECT_EQ(MustParse(qwen3.dump()).sliding_window, 100);
  qwen3.erase("sliding_window");
  EXPECT_EQ(MustParse(qwen3.dump()).sliding_window, 4096);

  json mixtral = MakeConfigJson({.family = ModelFamily::kMixtral});
  mixtral["sliding_window"] = nullptr;
  mixtral["head_dim"] = nullptr;
  mixtral["attention_bias"] = true;  // ignored: Mixtral has none
  EXPECT_EQ(MustParse(mixtral.dump()).sliding_window, 0);
  EXPECT_EQ(MustParse(mixtral.dump()).head_dim, 8);
}

TEST(ModelConfigTest, IgnoresKeysItDoesNotKnow) {
  json config = MakeConfigJson({});
  config["attention_dropout"] = 0.5;
  config["router_jitter_noise"] = "anything";
  config["auto_map"] = {{"AutoModel", "evil.py"}};
  EXPECT_EQ(MustParse(config.dump()).num_layers, 2);
}

struct BadConfig {
  ModelFamily family;
  std::string change;  // laid over a valid config
  absl::StatusCode code;
  std::string message;
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr ModelFamily kOlmoe = ModelFamily::kOlmoe;
constexpr ModelFamily kQwen2 = ModelFamily::kQwen2Moe;
constexpr ModelFamily kQwen3 = ModelFamily::kQwen3Moe;
constexpr ModelFamily kMixtral = ModelFamily::kMixtral;

TEST(ModelConfigErrorsTest, NameTheKeyTheValueAndTheLimit) {
  const std::vector<BadConfig> cases = {
      {kOlmoe, R"({"hidden_size": 0})", kInvalid, "hidden_size is 0, must be a whole number from 1 to 131072"},
      {kOlmoe, R"({"hidden_size": -1})", kInvalid, "hidden_size is -1"},
      {kOlmoe, R"({"hidden_size": 2147483648})", kInvalid, "hidden_size is 2147483648"},
      {kOlmoe, R"({"hidden_size": 1e18})", kInvalid, "hidden_size is 1e+18"},
      {kOlmoe, R"({"hidden_size": 18446744073709551615})", kInvalid, "hidden_size is 18446744073709551615"},
      {kOlmoe, R"({"hidden_size": 32.0})", kInvalid, "hidden_size is 32.0"},
      {kOlmoe, R"({"hidden_size": "32"})", kInvalid, "hidden_size is \"32\""},
      {kOlmoe, R"({"hidden_size": [32]})", kInvalid, "hidden_size is [32]"},
      {kOlmoe, R"({"hidden_size": {"x": 1}})", kInvalid, "hidden_size is {\"x\":1}"},
      {kOlmoe, R"({"hidden_size": true})", kInvalid, "hidden_size is true"},
      {kOlmoe, R"({"hidden_size": null})", kInvalid, "hidden_size is missing"},
      {kOlmoe, R"({"vocab_size": 1000000000})", kInvalid, "vocab_size is 1000000000"},
      {kOlmoe, R"({"vocab_size": null})", kInvalid, "vocab_size is missing"},
      {kOlmoe, R"({"num_hidden_layers": 1000000})", kInvalid, "num_hidden_layers is 1000000"},
      {kOlmoe, R"({"num_hidden_layers": 0})", kInvalid, "num_hidden_layers is 0"},
      {kOlmoe, R"({"num_attention_heads": 0})", kInvalid, "num_attention_heads is 0"},
      {kOlmoe, R"({"num_attention_heads": 5})", kInvalid, "num_attention_heads is 5, must be a multiple of"},
      {kOlmoe, R"({"num_attention_heads": 6})", kInvalid,
       "hidden_size is 32, must be a multiple of num_attention_heads 6"},
      {kOlmoe, R"({"num_key_value_heads": 3})", kInvalid, "must be a multiple of num_key_value_heads 3"},
      {kOlmoe, R"({"num_key_value_heads": 0})", kInvalid, "num_key_value_heads is 0"},
      {kOlmoe, R"({"num_key_value_heads": 8})", kInvalid, "must be a multiple of num_key_value_heads 8"},
      {kOlmoe, R"({"num_attention_heads": 32, "num_key_value_heads": 32})", kInvalid, "head_dim is 1"},
      {kQwen3, R"({"head_dim": 7})", kInvalid, "head_dim is 7, must be an even number"},
      {kQwen3, R"({"head_dim": 0})", kInvalid, "head_dim is 0"},
      {kQwen3, R"({"head_dim": 1000000})", kInvalid, "head_dim is 1000000"},
      {kOlmoe, R"({"max_position_embeddings": 0})", kInvalid, "max_position_embeddings is 0"},
      {kOlmoe, R"({"max_position_embeddings": 1000000000000000000})", kInvalid, "max_position_embeddings is"},
      {kOlmoe, R"({"rms_norm_eps": -1e-5})", kInvalid, "rms_norm_eps is -1e-05"},
      {kOlmoe, R"({"rms_norm_eps": "1e-5"})", kInvalid, "rms_norm_eps is \"1e-5\""},
      {kOlmoe, R"({"num_experts": 0})", kInvalid, "num_experts is 0"},
      {kOlmoe, R"({"num_experts": 100000})", kInvalid, "num_experts is 100000"},
      {kOlmoe, R"({"num_experts": null})", kInvalid, "num_experts is missing"},
      {kOlmoe, R"({"num_local_experts": 16})", kInvalid, "num_local_experts is 16, must be 8 like num_experts"},
      {kOlmoe, R"({"num_experts_per_tok": 9})", kInvalid,
       "num_experts_per_tok is 9, must be a whole number from 1 to 8"},
      {kOlmoe, R"({"num_experts_per_tok": 0})", kInvalid, "num_experts_per_tok is 0"},
      {kOlmoe, R"({"num_experts_per_tok": null})", kInvalid, "num_experts_per_tok is missing"},
      {kOlmoe, R"({"intermediate_size": 0})", kInvalid, "intermediate_size is 0"},
      {kOlmoe, R"({"intermediate_size": null})", kInvalid, "intermediate_size is missing"},
      {kOlmoe, R"({"num_hidden_layers": 1024, "num_experts": 4096})", kInvalid,
       "num_hidden_layers * num_experts is 4194304, limit is 262144"},
      {kOlmoe,
       R"({"num_hidden_layers": 64,
                  "num_experts": 4096, "hidden_size": 131072, "intermediate_size": 1048576, "head_dim": 64})",
       kInvalid, "parameters, limit is 17592186044416"},
      {kOlmoe, R"({"norm_topk_prob": "yes"})", kInvalid, "norm_topk_prob is \"yes\", must be true or false"},
      {kOlmoe, R"({"tie_word_embeddings": 0})", kInvalid, "tie_word_embeddings is 0, must be true or false"},
      {kOlmoe, R"({"clip_qkv": 0})", kInvalid, "clip_qkv is 0"},
      {kOlmoe, R"({"clip_qkv": -8.0})", kInvalid, "clip_qkv is -8.0"},
      {kOlmoe, R"({"model_type": 3})", kInvalid, "model_type is 3, must be a string"},
      {kMixtral, R"({"sliding_window": -1})", kInvalid, "sliding_window is -1"},
      {kMixtral, R"({"sliding_window": "4096"})", kInvalid, "sliding_window is \"4096\""},
      {kQwen2, R"({"decoder_sparse_step": 0})", kInvalid, "decoder_sparse_step is 0"},
      {kQwen2, R"({"mlp_only_layers": [2]})", kInvalid, "mlp_only_layers is 2, must be a whole number from 0 to 1"},
      {kQwen2, R"({"mlp_only_layers": [-1]})", kInvalid, "mlp_only_layers is -1"},
      {kQwen2, R"({"mlp_only_layers": 1})", kInvalid, "mlp_only_layers is 1, must be a list"},
      {kQwen2, R"({"mlp_only_layers": [0, 0, 0]})", kInvalid, "must be a list of at most 2"},
      {kQwen2, R"({"mlp_only_layers": [0], "intermediate_size": 0})", kInvalid, "intermediate_size is 0"},
      {kQwen2, R"({"shared_expert_intermediate_size": -5})", kInvalid, "shared_expert_intermediate_size is -5"},
      {kQwen2, R"({"shared_expert_intermediate_size": null})", kInvalid, "shared_expert_intermediate_size is missing"},
      {kQwen2, R"({"moe_intermediate_size": null})", kInvalid, "moe_intermediate_size is missing"},
      {kQwen2, R"({"mlp_only_layers": [0, 1]})", kUnimplemented, "leave no layer with experts"},
      {kQwen2, R"({"use_sliding_window": true})", kUnimplemented, "use_sliding_window true is not supported"},
      {kQwen3, R"({"use_sliding_window": true, "sliding_window": 0})", kInvalid, "sliding_window is 0"},
      {kQwen2, R"({"layer_types": ["sliding_attention", "full_attention"]})", kUnimplemented,
       "layer_types [\"sliding_attention\",\"full_attention\"]"},
      {kQwen3, R"({"attention_bias": 1})", kInvalid, "attention_bias is 1, must be true or false"},
      {kOlmoe, R"({"hidden_act": "gelu"})", kUnimplemented, "hidden_act \"gelu\" is not supported"},
      {kOlmoe, R"({"quantization_config": {"quant_method": "fp8"}})", kUnimplemented,
       "quantization_config {\"quant_method\":\"fp8\"} is not supported"},
      {kOlmoe, R"({"model_type": "llama"})", kUnimplemented, "model_type \"llama\""},
      {kOlmoe, R"({"model_type": null})", kUnimplemented, "model_type \"\" with architecture \"\""},
      {kOlmoe, R"({"architectures": ["OlmoeForSequenceClassification"]})", kUnimplemented, "SequenceClassification"},
      {kOlmoe, R"({"model_type": null, "architectures": ["DeepseekV3ForCausalLM"]})", kUnimplemented, "DeepseekV3"},
  };
  for (const BadConfig& bad : cases) {
    json config = MakeConfigJson({.family = bad.family});
    config.update(json::parse(bad.change));
    const absl::Status status = ParseModelConfig(config.dump()).status();
    EXPECT_EQ(status.code(), bad.code) << bad.change << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message)) << bad.change;
    EXPECT_THAT(std::string(status.message()), HasSubstr("config.json: ")) << bad.change;
  }
}

TEST(ModelConfigErrorsTest, RefusesTextThatIsNoConfig) {
  for (const std::string text : {"", "{", "[]", "7", "null", "\"olmoe\"", "{\"hidden_size\": NaN}", "{} {}",
                                 "{\"model_type\": \"olmoe\", \"model_type\": \"mixtral\"}"}) {
    const absl::Status status = ParseModelConfig(text).status();
    EXPECT_EQ(status.code(), kInvalid) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("config.json")) << text;
  }
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_EQ(ParseModelConfig(deep).status().code(), kInvalid);
  EXPECT_EQ(ParseModelConfig("{\"a\":" + deep + "}").status().code(), kInvalid);
}

TEST(ModelConfigErrorsTest, CutShortAtAnyByteIsRefused) {
  const std::string text = MakeConfigJson({.family = kQwen2}).dump();
  ASSERT_TRUE(ParseModelConfig(text).ok());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_EQ(ParseModelConfig(text.substr(0, size)).status().code(), kInvalid) << size;
  }
}

TEST(ModelConfigErrorsTest, KeepsMessagesShort) {
  json config = MakeConfigJson({});
  config["hidden_size"] = std::string(100'000, 'x');
  EXPECT_LT(ParseModelConfig(config.dump()).status().message().size(), 400u);
  config["hidden_size"] = std::vector<int>(10'000, 1);
  EXPECT_THAT(std::string(ParseModelConfig(config.dump()).status().message()), HasSubstr("a list of 10000"));
}

TEST(LoadModelConfigTest, ReadsTheFileOfTheFolder) {
  const TempDir dir;
  EXPECT_EQ(LoadModelConfig(dir.path()).status().code(), absl::StatusCode::kNotFound);
  WriteFile(dir.path() / "config.json", MakeConfigJson({}).dump());
  EXPECT_TRUE(LoadModelConfig(dir.path()).ok());
}

TEST(LoadModelConfigTest, RefusesALargeFileUnread) {
  const TempDir dir;
  WriteFile(dir.path() / "config.json", "{");
  std::filesystem::resize_file(dir.path() / "config.json", 1 << 30);  // sparse
  const absl::Status status = LoadModelConfig(dir.path()).status();
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 1073741824 bytes, limit is 1048576"));
}

}  // namespace
}  // namespace cadre
