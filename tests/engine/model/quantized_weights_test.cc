// Weights that are quantized while they are loaded: which ones, to what, and what a model is with them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/config_reader.h"
#include "engine/model/transformer_runner.h"
#include "engine/model/weights.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/quantized.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/fake_device.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_sequence.h"

namespace cadre {
namespace {

using testing::HasSubstr;

Weights LoadWeights(const std::filesystem::path& folder, const WeightsOptions& options, Device& device) {
  const ModelConfig config = LoadModelConfig(folder).value();
  return Checkpoint::Open(folder, config, options).value()->Load(device).value();
}

// `held` is what quantizing makes of `exact`, or the very same where it is not quantized.
void ExpectMadeOf(ConstView exact, ConstView held, std::optional<DType> quantized, const std::string& what) {
  SCOPED_TRACE(what);
  ASSERT_EQ(held.shape(), exact.shape());
  if (!quantized.has_value()) {
    ASSERT_EQ(held.dtype(), exact.dtype());
    EXPECT_EQ(std::memcmp(held.raw(), exact.raw(), exact.size_bytes()), 0);
    return;
  }
  ASSERT_EQ(held.dtype(), *quantized);
  ASSERT_EQ(exact.dtype(), DType::kF32);
  const int64_t k = exact.dim(1);
  std::vector<std::byte> row(static_cast<size_t>(RowBytes(*quantized, k)));
  for (int64_t i = 0; i < exact.dim(0); ++i) {
    ASSERT_TRUE(QuantizeRow(*quantized, exact.data<float>() + i * k, k, row.data()));
    ASSERT_EQ(std::memcmp(held.raw() + i * std::ssize(row), row.data(), row.size()), 0) << "row " << i;
  }
}

void ExpectMadeOf(const MlpWeights& exact, const MlpWeights& held, std::optional<DType> quantized,
                  const std::string& what) {
  if (exact.gate.empty()) {
    EXPECT_TRUE(held.gate.empty());
    return;
  }
  ExpectMadeOf(exact.gate, held.gate, quantized, what + " gate");
  ExpectMadeOf(exact.up, held.up, quantized, what + " up");
  ExpectMadeOf(exact.down, held.down, quantized, what + " down");
}

// Every weight of `held` against `exact`, which is in float32.
void ExpectMadeOf(const Weights& exact, const Weights& held, DType expert, std::optional<DType> other,
                  std::optional<DType> head) {
  EXPECT_EQ(held.expert_dtype, expert);
  ExpectMadeOf(exact.embedding, held.embedding, std::nullopt, "embedding");
  ExpectMadeOf(exact.final_norm, held.final_norm, std::nullopt, "final norm");
  const bool is_tied = exact.head.raw() == exact.embedding.raw();
  ExpectMadeOf(exact.head, held.head, is_tied ? std::nullopt : head, "head");
  ASSERT_EQ(held.layers.size(), exact.layers.size());
  for (size_t i = 0; i < exact.layers.size(); ++i) {
    const LayerWeights& a = exact.layers[i];
    const LayerWeights& b = held.layers[i];
    ExpectMadeOf(a.attention_norm, b.attention_norm, std::nullopt, "norm");
    for (const auto& member : {&LayerWeights::q, &LayerWeights::k, &LayerWeights::v, &LayerWeights::o}) {
      ExpectMadeOf(a.*member, b.*member, other, "attention");
    }
    if (!a.router.empty()) ExpectMadeOf(a.router, b.router, std::nullopt, "router");
    ASSERT_EQ(b.experts.size(), a.experts.size());
    for (size_t e = 0; e < a.experts.size(); ++e) ExpectMadeOf(a.experts[e], b.experts[e], expert, "expert");
    ExpectMadeOf(a.shared_expert, b.shared_expert, other, "shared expert");
    ExpectMadeOf(a.dense, b.dense, other, "dense layer");
  }
}

TEST(QuantizedWeightsTest, AreThoseOfTheExpertsOrOfAllMatrices) {
  for (const CheckpointSpec& spec :
       {CheckpointSpec{.family = ModelFamily::kQwen2Moe, .hidden_size = 40, .expert_ffn_size = 150, .num_shards = 3},
        CheckpointSpec{.family = ModelFamily::kQwen3Moe, .mlp_only_layers = {1}, .dtype = DType::kBF16},
        CheckpointSpec{.family = ModelFamily::kMixtral, .hidden_size = 160, .fused_experts = true},
        CheckpointSpec{.family = ModelFamily::kOlmoe, .tie_word_embeddings = true, .dtype = DType::kF16}}) {
    const TempDir dir;
    WriteCheckpoint(dir.path(), spec);
    FakeDevice device;
    const Weights exact = LoadWeights(dir.path(), {.dtype = DType::kF32}, device);
    for (const DType dtype : {DType::kQ8, DType::kQ4}) {
      WeightsOptions options = {.dtype = DType::kF32, .quantized = dtype};
      ExpectMadeOf(exact, LoadWeights(dir.path(), options, device), dtype, std::nullopt, std::nullopt);
      options.quantized_parts = QuantizedParts::kAll;
      ExpectMadeOf(exact, LoadWeights(dir.path(), options, device), dtype, DType::kQ8, DType::kQ8);
      options.quantized_parts = QuantizedParts::kAllAlike;
      ExpectMadeOf(exact, LoadWeights(dir.path(), options, device), dtype, dtype, DType::kQ8);
    }
  }
}

// What is read at a time ends within tensors, between rows.
TEST(QuantizedWeightsTest, LargeMatricesAreReadInPieces) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), {.hidden_size = 136, .num_layers = 1, .vocab_size = 9001, .num_experts = 2});
  FakeDevice device;
  const Weights exact = LoadWeights(dir.path(), {.dtype = DType::kF32}, device);
  ASSERT_GT(exact.head.size_bytes(), size_t{1} << 22);
  ExpectMadeOf(
      exact,
      LoadWeights(dir.path(), {.dtype = DType::kF32, .quantized = DType::kQ4, .quantized_parts = QuantizedParts::kAll},
                  device),
      DType::kQ4, DType::kQ8, DType::kQ8);
}

TEST(QuantizedWeightsTest, TakeWhatTheSummarySays) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), {.hidden_size = 256, .expert_ffn_size = 128, .dtype = DType::kBF16});
  const ModelConfig config = LoadModelConfig(dir.path()).value();
  for (const auto& [dtype, row_256, row_128] : {std::tuple(DType::kQ8, 264, 132), std::tuple(DType::kQ4, 144, 72)}) {
    const auto checkpoint = Checkpoint::Open(dir.path(), config, {.quantized = dtype}).value();
    const CheckpointSummary& summary = checkpoint->summary();
    EXPECT_EQ(summary.one_expert_bytes, 2 * 128 * row_256 + 256 * row_128);
    EXPECT_EQ(summary.expert_bytes, 2 * 8 * summary.one_expert_bytes);
    EXPECT_EQ(summary.dtype, DType::kBF16);  // what the KV cache is like
    EXPECT_EQ(summary.matrix_dtype, DType::kBF16);
    EXPECT_EQ(summary.expert_dtype, dtype);
    FakeDevice device;
    const absl::StatusOr<Weights> weights = checkpoint->Load(device);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_EQ(static_cast<int64_t>(device.allocated_bytes()), summary.dense_bytes + summary.expert_bytes);
  }
}

// Of each --quantize-parts: types of the matrices that are not experts', and bytes of everything but experts.
TEST(QuantizedWeightsTest, TheHeadKeepsEightBits) {
  for (const bool is_tied : {false, true}) {
    const TempDir dir;
    WriteCheckpoint(dir.path(), {.hidden_size = 256, .tie_word_embeddings = is_tied, .dtype = DType::kBF16});
    const ModelConfig config = LoadModelConfig(dir.path()).value();
    const DType head = is_tied ? DType::kBF16 : DType::kQ8;
    int64_t last_bytes = std::numeric_limits<int64_t>::max();
    for (const auto& [parts, matrix_dtype, head_dtype] :
         {std::tuple(QuantizedParts::kExperts, DType::kBF16, DType::kBF16),
          std::tuple(QuantizedParts::kAll, DType::kQ8, head),
          std::tuple(QuantizedParts::kAllAlike, DType::kQ4, head)}) {
      const WeightsOptions options = {.quantized = DType::kQ4, .quantized_parts = parts};
      const auto checkpoint = Checkpoint::Open(dir.path(), config, options).value();
      const CheckpointSummary& summary = checkpoint->summary();
      EXPECT_EQ(summary.matrix_dtype, matrix_dtype);
      EXPECT_EQ(summary.head_dtype, head_dtype);
      EXPECT_EQ(summary.dtype, DType::kBF16);
      EXPECT_LT(summary.dense_bytes, last_bytes);
      last_bytes = summary.dense_bytes;
      FakeDevice device;
      const absl::StatusOr<Weights> weights = checkpoint->Load(device);
      ASSERT_TRUE(weights.ok()) << weights.status();
      EXPECT_EQ(static_cast<int64_t>(device.allocated_bytes()), summary.dense_bytes + summary.expert_bytes);
    }
  }
}

TEST(QuantizedWeightsTest, WeightsThatAreNotFiniteAreNamed) {
  const TempDir dir;
  const CheckpointSpec spec{.dtype = DType::kF32};
  std::vector<FileTensor> tensors = MakeTensors(spec);
  const std::string name = "model.layers.1.mlp.experts.3.up_proj.weight";
  for (FileTensor& tensor : tensors) {
    const float infinity = std::numeric_limits<float>::infinity();
    if (tensor.name == name) std::memcpy(tensor.bytes.data() + 40, &infinity, sizeof(infinity));
  }
  WriteFile(dir.path() / "config.json", MakeConfigJson(spec).dump());
  WriteTensors(dir.path(), tensors, 1);
  const auto checkpoint =
      Checkpoint::Open(dir.path(), LoadModelConfig(dir.path()).value(), {.quantized = DType::kQ8}).value();
  FakeDevice device;
  const absl::Status whole = checkpoint->Load(device).status();
  // Where experts are read when they are needed, that one is missing.
  const Weights dense = checkpoint->Load(device, ExpertPlace::kCheckpoint).value();
  std::vector<std::byte> slot(static_cast<size_t>(checkpoint->summary().one_expert_bytes));
  const auto go_on = [] { return absl::OkStatus(); };
  EXPECT_TRUE(dense.expert_source->Read(8 + 2, slot, go_on).ok());
  const absl::Status lone = dense.expert_source->Read(8 + 3, slot, go_on);
  for (const absl::Status& status : {whole, lone}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    EXPECT_THAT(std::string(status.message()), HasSubstr("int8"));
  }
}

TEST(QuantizedWeightsTest, WhatIsQuantizedDoesNotWidenTheRest) {
  const TempDir dir;
  const CheckpointSpec spec{.dtype = DType::kBF16};
  std::vector<FileTensor> tensors = MakeTensors(spec);
  const std::vector<FileTensor> wide = MakeTensors({.dtype = DType::kF32});
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name.find(".experts.") != std::string::npos) tensors[i] = wide[i];
  }
  WriteFile(dir.path() / "config.json", MakeConfigJson(spec).dump());
  WriteTensors(dir.path(), tensors, 1);
  const ModelConfig config = LoadModelConfig(dir.path()).value();
  EXPECT_EQ(Checkpoint::Open(dir.path(), config).value()->summary().dtype, DType::kF32);
  EXPECT_EQ(Checkpoint::Open(dir.path(), config, {.quantized = DType::kQ8}).value()->summary().dtype, DType::kBF16);
}

TEST(QuantizedWeightsTest, OnlyToEightAndFourBits) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), {});
  const absl::Status status =
      Checkpoint::Open(dir.path(), LoadModelConfig(dir.path()).value(), {.quantized = DType::kI32}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("int32"));
}

// The demo model through its runner: logits of some text, by how the weights are held.
class QuantizedModelTest : public testing::Test {
 protected:
  std::vector<float> Logits(const WeightsOptions& options, std::optional<int64_t> expert_cache_bytes = {}) {
    const ModelConfig config = LoadModelConfig(kFolder).value();
    const auto checkpoint = Checkpoint::Open(kFolder, config, options).value();
    RunnerOptions runner_options;
    runner_options.expert_cache_bytes = expert_cache_bytes;
    runner_options.max_model_len = 64;
    runner_options.max_num_seqs = 1;
    runner_options.max_num_batched_tokens = 64;
    const auto device = CreateCpuDevice({.num_threads = 2}).value();
    const MemoryPlan plan = PlanMemory(config, checkpoint->summary(), runner_options, *device, device->ops()).value();
    was_cached_ = plan.expert_place() == ExpertPlace::kCheckpoint;
    Weights weights = checkpoint->Load(*device, plan.expert_place()).value();
    const auto runner = CreateTransformerRunner(config, std::move(weights), plan, runner_options, device.get()).value();
    std::vector<int32_t> tokens(48);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = 300 + static_cast<int32_t>(i) * 37 % 900;
    return RunAlone(*runner, tokens).logits;
  }

  // Root mean square of the difference over that of the values.
  static double Distance(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0.0, square = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
      difference += std::pow(double{a[i]} - double{b[i]}, 2.0);
      square += double{a[i]} * double{a[i]};
    }
    return std::sqrt(difference / square);
  }

  static constexpr char kFolder[] = "models/demo";
  bool was_cached_ = false;
};

TEST_F(QuantizedModelTest, FewerBitsAreFurtherAway) {
  const std::vector<float> exact = Logits({});
  const double int8 = Distance(exact, Logits({.quantized = DType::kQ8}));
  const double int8_all = Distance(exact, Logits({.quantized = DType::kQ8, .quantized_parts = QuantizedParts::kAll}));
  const double int4 = Distance(exact, Logits({.quantized = DType::kQ4}));
  const double int4_alike =
      Distance(exact, Logits({.quantized = DType::kQ4, .quantized_parts = QuantizedParts::kAllAlike}));
  EXPECT_GT(int8, 0.0);
  EXPECT_LT(int8, 0.1);
  EXPECT_LT(int8_all, 0.1);
  EXPECT_GT(int4, int8);
  EXPECT_LT(int4, 0.25);
  EXPECT_GT(int4_alike, int4);
  EXPECT_LT(int4_alike, 0.3);
}

// The slots of the cache hold what a whole load holds.
TEST_F(QuantizedModelTest, ExpertsThatAreReadWhenNeededGiveTheSameBits) {
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    const std::vector<float> whole = Logits({.quantized = dtype});
    EXPECT_FALSE(was_cached_);
    const std::vector<float> cached = Logits({.quantized = dtype}, int64_t{1} << 20);
    EXPECT_TRUE(was_cached_);
    EXPECT_EQ(std::memcmp(whole.data(), cached.data(), whole.size() * sizeof(float)), 0) << DTypeName(dtype);
  }
}

}  // namespace
}  // namespace cadre
