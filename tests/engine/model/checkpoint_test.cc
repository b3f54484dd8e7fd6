// Checkpoints that are right: every family and layout loads, and every weight arrives where it belongs.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/fake_device.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

float ElementOf(ConstView view, int64_t i) {
  switch (view.dtype()) {
    case DType::kBF16:
      return ToFloat(view.data<BFloat16>()[i]);
    case DType::kF16:
      return ToFloat(view.data<Float16>()[i]);
    default:
      return view.data<float>()[i];
  }
}

float Round(float x, DType dtype) {
  if (dtype == DType::kBF16) return ToFloat(ToBFloat16(x));
  if (dtype == DType::kF16) return ToFloat(ToFloat16(x));
  return x;
}

// A checkpoint in a folder of its own, and the weights loaded from it.
class LoadedCheckpoint {
 public:
  explicit LoadedCheckpoint(CheckpointSpec spec, WeightsOptions options = {}) : spec_(std::move(spec)) {
    WriteCheckpoint(dir_.path(), spec_);
    Load(std::move(options));
  }

  const Weights& weights() const { return *weights_; }
  const LayerWeights& layer(size_t i) const { return weights_->layers[i]; }
  const CheckpointSummary& summary() const { return checkpoint_->summary(); }
  const FakeDevice& device() const { return device_; }
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  // Expects the values that the writer gave the tensor `name`, stored as `stored` and held as `held`.
  void Expect(ConstView view, const std::string& name, DType stored, DType held) const {
    ASSERT_FALSE(view.empty()) << name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.raw()) % 64, 0u) << name;
    EXPECT_EQ(view.dtype(), held) << name;
    std::vector<int64_t> shape;
    for (int i = 0; i < view.shape().rank(); ++i) shape.push_back(view.shape()[i]);
    const std::vector<float> expected = MakeValues(spec_, name, shape);
    ASSERT_EQ(static_cast<size_t>(view.num_elements()), expected.size()) << name;
    int num_different = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      if (ElementOf(view, static_cast<int64_t>(i)) != Round(Round(expected[i], stored), held)) ++num_different;
    }
    EXPECT_EQ(num_different, 0) << name;
  }

  void ExpectMlp(const MlpWeights& mlp, const std::string& prefix, DType stored, DType held) const {
    const bool is_mixtral = spec_.family == ModelFamily::kMixtral;
    Expect(mlp.gate, prefix + (is_mixtral ? "w1.weight" : "gate_proj.weight"), stored, held);
    Expect(mlp.up, prefix + (is_mixtral ? "w3.weight" : "up_proj.weight"), stored, held);
    Expect(mlp.down, prefix + (is_mixtral ? "w2.weight" : "down_proj.weight"), stored, held);
  }

  void ExpectAttention(size_t index, DType held, DType small_held) const {
    const DType stored = spec_.dtype;
    const DType small = spec_.small_dtype.value_or(stored);
    const LayerWeights& weights = layer(index);
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    Expect(weights.attention_norm, prefix + "input_layernorm.weight", small, small_held);
    Expect(weights.ffn_norm, prefix + "post_attention_layernorm.weight", small, small_held);
    const std::string attention = prefix + "self_attn.";
    Expect(weights.q, attention + "q_proj.weight", stored, held);
    Expect(weights.k, attention + "k_proj.weight", stored, held);
    Expect(weights.v, attention + "v_proj.weight", stored, held);
    Expect(weights.o, attention + "o_proj.weight", stored, held);
    const bool has_output_bias = spec_.extra_config.value("attention_bias", false);
    const bool has_bias = spec_.family == ModelFamily::kQwen2Moe || has_output_bias;
    const bool has_norm = spec_.family == ModelFamily::kOlmoe || spec_.family == ModelFamily::kQwen3Moe;
    EXPECT_EQ(weights.q_bias.empty(), !has_bias);
    EXPECT_EQ(weights.o_bias.empty(), !has_output_bias);
    EXPECT_EQ(weights.q_norm.empty(), !has_norm);
    if (has_output_bias) Expect(weights.o_bias, attention + "o_proj.bias", small, small_held);
    if (has_bias) {
      Expect(weights.q_bias, attention + "q_proj.bias", small, small_held);
      Expect(weights.k_bias, attention + "k_proj.bias", small, small_held);
      Expect(weights.v_bias, attention + "v_proj.bias", small, small_held);
    }
    if (has_norm) {
      Expect(weights.q_norm, attention + "q_norm.weight", small, small_held);
      Expect(weights.k_norm, attention + "k_norm.weight", small, small_held);
    }
  }

  // Everything, with matrices held as `held` and norms, biases, routers and gates as `small_held`.
  void ExpectAll(DType held, DType small_held) const {
    const DType small = spec_.small_dtype.value_or(spec_.dtype);
    EXPECT_EQ(weights_->expert_dtype, held);
    Expect(weights_->embedding, "model.embed_tokens.weight", spec_.dtype, held);
    Expect(weights_->final_norm, "model.norm.weight", small, small_held);
    if (!spec_.tie_word_embeddings) Expect(weights_->head, "lm_head.weight", spec_.dtype, held);
    ASSERT_EQ(weights_->layers.size(), static_cast<size_t>(spec_.num_layers));
    for (size_t i = 0; i < weights_->layers.size(); ++i) {
      ExpectAttention(i, held, small_held);
      const std::string mlp = absl::StrCat("model.layers.", i, ".mlp.");
      if (!config_.is_moe_layer[i]) {
        EXPECT_TRUE(layer(i).experts.empty());
        ExpectMlp(layer(i).dense, mlp, spec_.dtype, held);
        continue;
      }
      EXPECT_TRUE(layer(i).dense.gate.empty());
      Expect(layer(i).router, mlp + "gate.weight", small, small_held);
      ASSERT_EQ(layer(i).experts.size(), static_cast<size_t>(spec_.num_experts));
      for (size_t e = 0; e < layer(i).experts.size(); ++e) {
        ExpectMlp(layer(i).experts[e], absl::StrCat(mlp, "experts.", e, "."), spec_.dtype, held);
      }
      EXPECT_EQ(layer(i).shared_expert.gate.empty(), spec_.family != ModelFamily::kQwen2Moe);
      if (spec_.family == ModelFamily::kQwen2Moe) {
        ExpectMlp(layer(i).shared_expert, mlp + "shared_expert.", spec_.dtype, held);
        Expect(layer(i).shared_expert_gate, mlp + "shared_expert_gate.weight", small, small_held);
      }
    }
  }

 private:
  void Load(WeightsOptions options) {
    auto load = [&]() -> absl::Status {
      absl::StatusOr<ModelConfig> config = LoadModelConfig(dir_.path());
      if (!config.ok()) return config.status();
      config_ = *std::move(config);
      auto checkpoint = Checkpoint::Open(dir_.path(), config_, std::move(options));
      if (!checkpoint.ok()) return checkpoint.status();
      checkpoint_ = *std::move(checkpoint);
      absl::StatusOr<Weights> weights = checkpoint_->Load(device_);
      if (!weights.ok()) return weights.status();
      weights_ = *std::move(weights);
      return absl::OkStatus();
    };
    status_ = load();
    ASSERT_TRUE(status_.ok()) << status_;
    EXPECT_EQ(static_cast<int64_t>(device_.allocated_bytes()), summary().dense_bytes + summary().expert_bytes);
  }

  const TempDir dir_;
  const CheckpointSpec spec_;
  FakeDevice device_;
  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::optional<Weights> weights_;
  absl::Status status_;
};

class CheckpointFamilyTest : public testing::TestWithParam<ModelFamily> {};

TEST_P(CheckpointFamilyTest, LoadsOneTensorPerExpert) {
  const LoadedCheckpoint loaded({.family = GetParam()});
  ASSERT_TRUE(loaded.ok());
  loaded.ExpectAll(DType::kF32, DType::kF32);
  EXPECT_EQ(loaded.summary().dtype, DType::kF32);
  EXPECT_EQ(loaded.summary().expert_bytes, 2 * 8 * 3 * 32 * 16 * 4);
}

TEST_P(CheckpointFamilyTest, LoadsFusedExperts) {
  const LoadedCheckpoint loaded({.family = GetParam(), .fused_experts = true});
  ASSERT_TRUE(loaded.ok());
  loaded.ExpectAll(DType::kF32, DType::kF32);
}

TEST_P(CheckpointFamilyTest, LoadsFusedExpertsUnderTheNewModuleName) {
  const LoadedCheckpoint loaded({.family = GetParam(), .fused_experts = true, .renamed_moe = true});
  ASSERT_TRUE(loaded.ok());
  loaded.ExpectAll(DType::kF32, DType::kF32);
}

TEST_P(CheckpointFamilyTest, LoadsSeparateExpertsUnderTheNewModuleName) {
  const LoadedCheckpoint loaded({.family = GetParam(), .renamed_moe = true});
  ASSERT_TRUE(loaded.ok());
  loaded.ExpectAll(DType::kF32, DType::kF32);
}

TEST_P(CheckpointFamilyTest, LoadsShards) {
  const LoadedCheckpoint loaded({.family = GetParam(), .num_shards = 5});
  ASSERT_TRUE(loaded.ok());
  loaded.ExpectAll(DType::kF32, DType::kF32);
}

TEST_P(CheckpointFamilyTest, LoadsOtherShapes) {
  CheckpointSpec spec{.family = GetParam()};
  spec.seed = 7;
  spec.hidden_size = 20;  // no multiple of an alignment anywhere
  spec.num_layers = 3;
  spec.num_heads = 3;
  spec.num_kv_heads = 1;
  spec.head_dim = 10;
  spec.vocab_size = 37;
  spec.num_experts = 5;
  spec.top_k = 5;
  spec.expert_ffn_size = 7;
  spec.shared_expert_ffn_size = 9;
  spec.dense_ffn_size = 11;
  const bool is_qwen = GetParam() == ModelFamily::kQwen2Moe || GetParam() == ModelFamily::kQwen3Moe;
  if (is_qwen) spec.mlp_only_layers = {1};
  spec.dtype = DType::kBF16;
  const LoadedCheckpoint loaded(spec);
  ASSERT_TRUE(loaded.ok());
  loaded.ExpectAll(DType::kBF16, DType::kBF16);
}

TEST_P(CheckpointFamilyTest, TiedHeadIsTheEmbedding) {
  for (const bool stored : {false, true}) {
    const LoadedCheckpoint loaded({.family = GetParam(), .tie_word_embeddings = true, .stored_tied_head = stored});
    ASSERT_TRUE(loaded.ok());
    loaded.ExpectAll(DType::kF32, DType::kF32);
    EXPECT_EQ(loaded.weights().head.raw(), loaded.weights().embedding.raw());
    EXPECT_EQ(loaded.weights().head.shape(), loaded.weights().embedding.shape());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, CheckpointFamilyTest,
                         testing::Values(ModelFamily::kOlmoe, ModelFamily::kQwen2Moe, ModelFamily::kQwen3Moe,
                                         ModelFamily::kMixtral),
                         [](const testing::TestParamInfo<ModelFamily>& family) {
                           return std::string(ModelFamilyName(family.param));
                         });

struct Conversion {
  DType stored;
  DType small_stored;
  std::optional<DType> asked;
  DType held;
  DType small_held;
};

TEST(CheckpointDTypeTest, ConvertsWhatItIsAskedTo) {
  constexpr DType kF32 = DType::kF32;
  constexpr DType kBF16 = DType::kBF16;
  constexpr DType kF16 = DType::kF16;
  constexpr DType kF64 = DType::kF64;
  const std::vector<Conversion> conversions = {
      {kBF16, kBF16, std::nullopt, kBF16, kBF16}, {kF16, kF16, std::nullopt, kF16, kF16},
      {kF64, kF64, std::nullopt, kF32, kF32},     {kBF16, kF32, std::nullopt, kBF16, kF32},
      {kF32, kBF16, std::nullopt, kF32, kBF16},   {kF16, kF64, std::nullopt, kF16, kF32},
      {kBF16, kBF16, kF32, kF32, kF32},           {kF16, kF16, kF32, kF32, kF32},
      {kF32, kF32, kBF16, kBF16, kBF16},          {kF32, kF32, kF16, kF16, kF16},
      {kF16, kBF16, kBF16, kBF16, kBF16},         {kBF16, kF32, kF16, kF16, kF16},
      {kF64, kF32, kBF16, kBF16, kBF16},          {kF32, kF64, kF32, kF32, kF32},
  };
  for (const Conversion& c : conversions) {
    SCOPED_TRACE(absl::StrCat(std::string(DTypeName(c.stored)), " as ", std::string(DTypeName(c.held))));
    const LoadedCheckpoint loaded(
        {.family = ModelFamily::kQwen2Moe, .dtype = c.stored, .small_dtype = c.small_stored, .fused_experts = true},
        {.dtype = c.asked, .on_progress = nullptr});
    ASSERT_TRUE(loaded.ok());
    loaded.ExpectAll(c.held, c.small_held);
    EXPECT_EQ(loaded.summary().dtype, c.held);
  }
}

TEST(CheckpointDTypeTest, MatricesThatDifferAreHeldAsFloat32) {
  const TempDir dir;
  const CheckpointSpec spec{.dtype = DType::kBF16};
  std::vector<FileTensor> tensors = MakeTensors(spec);
  const std::vector<FileTensor> wide = MakeTensors({.dtype = DType::kF32});
  ASSERT_EQ(tensors.back().name, "lm_head.weight");
  tensors.back() = wide.back();
  WriteFile(dir.path() / "config.json", MakeConfigJson(spec).dump());
  WriteTensors(dir.path(), tensors, 1);
  const auto checkpoint = Checkpoint::Open(dir.path(), *LoadModelConfig(dir.path()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  FakeDevice device;
  const absl::StatusOr<Weights> weights = (*checkpoint)->Load(device);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->expert_dtype, DType::kF32);
  EXPECT_EQ(weights->embedding.dtype(), DType::kF32);
  EXPECT_EQ(ElementOf(weights->embedding, 5),
            Round(MakeValues(spec, "model.embed_tokens.weight", {64, 32})[5], DType::kBF16));
  EXPECT_EQ(ElementOf(weights->head, 5), MakeValues(spec, "lm_head.weight", {64, 32})[5]);
}

TEST(CheckpointDTypeTest, RefusesTypesThatNothingIsComputedIn) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), {});
  const ModelConfig config = *LoadModelConfig(dir.path());
  for (const DType dtype : {DType::kF64, DType::kI32, DType::kI64}) {
    const absl::Status status = Checkpoint::Open(dir.path(), config, {.dtype = dtype, .on_progress = nullptr}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(DTypeName(dtype))));
  }
}

TEST(CheckpointTest, LoadsBiasesOfTheAttention) {
  for (const ModelFamily family : {ModelFamily::kOlmoe, ModelFamily::kQwen3Moe}) {
    const LoadedCheckpoint loaded({.family = family, .extra_config = {{"attention_bias", true}}});
    ASSERT_TRUE(loaded.ok());
    loaded.ExpectAll(DType::kF32, DType::kF32);
  }
}

TEST(CheckpointTest, OldRotaryBuffersAreIgnored) {
  const TempDir dir;
  const CheckpointSpec spec{.family = ModelFamily::kMixtral};
  std::vector<FileTensor> tensors = MakeTensors(spec);
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {4}, std::string(16, '\0')});
  WriteFile(dir.path() / "config.json", MakeConfigJson(spec).dump());
  WriteTensors(dir.path(), tensors, 1);
  EXPECT_TRUE(Checkpoint::Open(dir.path(), *LoadModelConfig(dir.path())).ok());
}

TEST(CheckpointTest, OneFileWinsOverAnIndex) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), {});
  WriteFile(dir.path() / "model.safetensors.index.json", "rubbish");
  EXPECT_TRUE(Checkpoint::Open(dir.path(), *LoadModelConfig(dir.path())).ok());
}

TEST(CheckpointTest, FollowsSymbolicLinksToFiles) {
  const TempDir cache;
  const TempDir dir;
  WriteCheckpoint(cache.path(), {.num_shards = 2});
  for (const auto& entry : std::filesystem::directory_iterator(cache.path())) {
    std::filesystem::create_symlink(entry.path(), dir.path() / entry.path().filename());
  }
  EXPECT_TRUE(Checkpoint::Open(dir.path(), *LoadModelConfig(dir.path())).ok());
}

TEST(CheckpointTest, ReportsProgressUpToTheEnd) {
  std::vector<std::pair<int64_t, int64_t>> reports;
  const LoadedCheckpoint loaded({}, {.dtype = std::nullopt, .on_progress = [&](int64_t done, int64_t total) {
                                       reports.emplace_back(done, total);
                                     }});
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back(), std::pair(loaded.summary().file_bytes, loaded.summary().file_bytes));
}

// Large enough for several chunks of the reader in one tensor, and for progress on the way.
TEST(CheckpointTest, LoadsTensorsLargerThanAChunk) {
  CheckpointSpec spec{.dtype = DType::kBF16};
  spec.vocab_size = 50'000;
  spec.hidden_size = 64;
  spec.num_layers = 1;
  int num_reports = 0;
  const LoadedCheckpoint loaded(
      spec, {.dtype = DType::kF32, .num_threads = 1, .on_progress = [&](int64_t, int64_t) { ++num_reports; }});
  ASSERT_TRUE(loaded.ok());
  loaded.ExpectAll(DType::kF32, DType::kF32);
  EXPECT_GE(num_reports, 1);
}

TEST(CheckpointTest, ManyThreadsLoadWhatOneDoes) {
  CheckpointSpec spec{.dtype = DType::kBF16, .num_shards = 3};
  spec.vocab_size = 50'000;
  spec.hidden_size = 256;  // an embedding of seven chunks
  spec.num_layers = 1;
  for (const int num_threads : {2, 5, 64}) {
    std::vector<int64_t> reports;  // by one thread at a time, and never fewer bytes than before
    const LoadedCheckpoint loaded(
        spec, {.num_threads = num_threads, .on_progress = [&](int64_t done, int64_t) { reports.push_back(done); }});
    ASSERT_TRUE(loaded.ok());
    loaded.ExpectAll(DType::kBF16, DType::kBF16);
    EXPECT_TRUE(std::is_sorted(reports.begin(), reports.end()));
    EXPECT_EQ(reports.back(), loaded.summary().file_bytes);
  }
}

TEST(CheckpointTest, TheFirstOfSeveralThreadsThatFailsEndsThemAll) {
  const TempDir dir;
  CheckpointSpec spec{.dtype = DType::kBF16};
  spec.vocab_size = 50'000;
  spec.hidden_size = 256;
  WriteCheckpoint(dir.path(), spec);
  const auto config = LoadModelConfig(dir.path());
  ASSERT_TRUE(config.ok());
  const auto checkpoint = Checkpoint::Open(dir.path(), *config, {.num_threads = 4});
  ASSERT_TRUE(checkpoint.ok());
  FakeDevice device;
  device.FailSynchronize(absl::InternalError("the link broke"), /*calls_before=*/3);
  const absl::Status status = (*checkpoint)->Load(device).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the link broke"));
  EXPECT_EQ(device.allocated_bytes(), 0u);
}

}  // namespace
}  // namespace cadre
