// What the benchmarks of whole steps stand on: random weights, and the work that bounds a step.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/transformer_runner.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/random_weights.h"
#include "tests/bench/step_work.h"
#include "tests/support/random_model.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

constexpr char kShapes[] = "tests/gpu/shapes/";  // tests run in the root of the repository

ModelConfig Shape(const std::string& name) {
  auto config = LoadModelConfig(kShapes + name);
  EXPECT_TRUE(config.ok()) << config.status();
  return *std::move(config);
}

// Every layer uses its first `experts` experts.
StepRouting Routing(const ModelConfig& config, int64_t experts) {
  StepRouting routing;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (int64_t e = 0; e < config.num_experts; ++e) routing.assignments.push_back(e < experts ? 3 : 0);
  }
  return routing;
}

struct Expected {
  const char* shape;
  double decode_gb;      // one row at position 1,024
  double prefill_tflop;  // of 2,048 rows
  double weight_gb;      // of the whole model
};

// Worked out beforehand from the sizes of the published models.
constexpr Expected kExpected[] = {
    {"olmoe-1b-7b", 2.49, 4.68, 13.84},
    {"qwen3-30b-a3b", 6.18, 12.83, 61.06},
    {"mixtral-8x7b", 25.63, 52.78, 93.40},
};

TEST(StepWorkTest, IsThatOfThePublishedModels) {
  for (const Expected& expected : kExpected) {
    SCOPED_TRACE(expected.shape);
    const ModelConfig config = Shape(expected.shape);
    const StepWork decode = WorkOfStep(config, 1, 1, 1024, Routing(config, config.router.top_k));
    EXPECT_NEAR(decode.bytes * 1e-9, expected.decode_gb, 0.006);
    const StepWork prefill = WorkOfStep(config, 1, 2048, 0, Routing(config, config.num_experts));
    EXPECT_NEAR(prefill.flops * 1e-12, expected.prefill_tflop, 0.006);
  }
}

TEST(StepWorkTest, GrowsWithRowsAndSequences) {
  const ModelConfig config = Shape("olmoe-1b-7b");
  const StepRouting routing = Routing(config, 8);
  const StepWork one = WorkOfStep(config, 1, 1, 100, routing);
  const StepWork four = WorkOfStep(config, 4, 1, 100, routing);
  const double kv_bytes = 16.0 * 2 * 2048 * 2;  // of a position
  EXPECT_DOUBLE_EQ(four.bytes - one.bytes, 3 * 101 * kv_bytes);
  EXPECT_DOUBLE_EQ(four.flops, 4 * one.flops);
}

TEST(RandomWeightsTest, TakeWhatTheirSummarySays) {
  for (const Expected& expected : kExpected) {
    const CheckpointSummary summary = RandomWeightsSummary(Shape(expected.shape));
    EXPECT_NEAR(static_cast<double>(summary.dense_bytes + summary.expert_bytes) * 1e-9, expected.weight_gb, 0.02);
  }
}

TEST(RandomWeightsTest, HaveTheVarianceThatKeepsValuesNearOne) {
  const auto device = CreateCpuDevice({.num_threads = 1});
  ASSERT_TRUE(device.ok());
  const ModelConfig config = SmallConfig(ModelFamily::kQwen2Moe);
  const auto weights = RandomWeights(config, **device);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto moments = [](ConstView view) {
    double sum = 0.0;
    double squares = 0.0;
    for (int64_t i = 0; i < view.num_elements(); ++i) {
      const double value = ToFloat(view.data<const BFloat16>()[i]);
      sum += value;
      squares += value * value;
    }
    const double mean = sum / static_cast<double>(view.num_elements());
    return std::pair(mean, std::sqrt(squares / static_cast<double>(view.num_elements()) - mean * mean));
  };
  const LayerWeights& layer = weights->layers.back();
  const auto [embedding_mean, embedding_deviation] = moments(weights->embedding);
  EXPECT_NEAR(embedding_mean, 0.0, 0.01);
  EXPECT_NEAR(embedding_deviation, 1.0 / std::sqrt(40.0), 0.01);
  EXPECT_NEAR(moments(layer.experts.at(1).down).second, 1.0 / std::sqrt(20.0), 0.03);
  EXPECT_NEAR(moments(layer.router).second, 2.0 / std::sqrt(40.0), 0.06);
  EXPECT_NEAR(moments(layer.attention_norm).first, 1.0, 0.06);
  EXPECT_NEAR(moments(layer.q_bias).first, 0.0, 0.06);
  EXPECT_NE(ToFloat(layer.experts.at(0).gate.data<const BFloat16>()[0]),
            ToFloat(layer.experts.at(1).gate.data<const BFloat16>()[0]));
}

TEST(RandomWeightsTest, MakeAModelThatRuns) {
  const auto device = CreateCpuDevice({.num_threads = 1});
  ASSERT_TRUE(device.ok());
  const ModelConfig config = SmallConfig(ModelFamily::kQwen3Moe);
  RunnerOptions options;
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = 8;
  options.expert_cache_bytes = RandomWeightsSummary(config).expert_bytes;
  const auto plan = PlanMemory(config, RandomWeightsSummary(config), options, **device, (*device)->ops());
  ASSERT_TRUE(plan.ok()) << plan.status();
  auto weights = RandomWeights(config, **device);
  ASSERT_TRUE(weights.ok());
  const auto runner = CreateTransformerRunner(config, *std::move(weights), *plan, options, device->get());
  ASSERT_TRUE(runner.ok()) << runner.status();
  ForwardBatch batch;
  batch.token_ids = {1, 2, 3};
  batch.positions = {0, 1, 2};
  batch.row_sequence = {0, 0, 0};
  batch.kv_slots = {0, 1, 2};
  batch.block_tables = {0};
  batch.logit_rows = {2};
  batch.num_sequences = 1;
  batch.max_blocks = 1;
  ForwardResult result;
  ASSERT_TRUE((*runner)->Forward(batch, &result).ok());
  double squares = 0.0;
  for (const float logit : result.logits) squares += static_cast<double>(logit) * static_cast<double>(logit);
  const double deviation = std::sqrt(squares / static_cast<double>(result.logits.size()));
  EXPECT_GT(deviation, 0.3);
  EXPECT_LT(deviation, 3.0);
}

TEST(CeilingsTest, AreReadFromTheLinesOfTheCalibration) {
  const TempDir folder;
  const auto file = folder.path() / "calibration";
  std::ofstream(file) << "GPU: some card\n"
                      << R"({"name": "gpu", "is": "some card"})"
                      << "\n"
                      << R"({"name": "read", "value": 3200.5, "unit": "GB/s"})"
                      << "\n"
                      << R"({"name": "dense", "skipped": "no cuBLAS"})"
                      << "\n{broken\n"
                      << R"({"name": "copy", "value": 3000, "unit": "GB/s"})"
                      << "\n";
  const auto ceilings = ReadCeilings(file);
  ASSERT_TRUE(ceilings.ok()) << ceilings.status();
  EXPECT_EQ(ceilings->read_gb_s, 3200.5);
  EXPECT_EQ(ceilings->copy_gb_s, 3000.0);
  EXPECT_TRUE(std::isnan(ceilings->dense_tflop_s));
  EXPECT_EQ(ReadCeilings(folder.path() / "none").status().code(), absl::StatusCode::kNotFound);
  std::ofstream(file) << "{}\n";
  EXPECT_EQ(ReadCeilings(file).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CeilingsTest, BoundIsTheSlowerOfMemoryAndProducts) {
  EXPECT_DOUBLE_EQ(BoundUs(3e9, 3000, 1e9, 800), 1000.0);
  EXPECT_DOUBLE_EQ(BoundUs(3e6, 3000, 8e11, 800), 1000.0);
  EXPECT_TRUE(std::isnan(BoundUs(3e6, 3000, 8e11, std::nan(""))));
  EXPECT_TRUE(std::isnan(BoundUs(3e6, std::nan(""), 8e11, 800)));
}

}  // namespace
}  // namespace cadre
