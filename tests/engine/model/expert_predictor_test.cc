#include "engine/model/expert_predictor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "engine/model/memory_plan.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/random_model.h"

namespace cadre {
namespace {

// The residual stream of a step, and the router's own answer for it.
class ExpertPredictorTest : public testing::TestWithParam<RoutingScheme> {
 protected:
  static constexpr int64_t kRows = 7;

  ExpertPredictorTest() {
    config_.routing.scheme = GetParam();
    config_.routing.hash_seed = 11;
    RunnerOptions options;
    options.max_num_batched_tokens = 64;
    EXPECT_TRUE(device_->ops().Reserve(MakeOpsLimits(config_, options, /*max_model_len=*/64)).ok());
    weights_ = MakeRandomWeights(config_, DType::kF32, 3, *device_);
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    for (float& x : hidden_) x = normal(rng);
    sequences_ = {0, 0, 1, kPadding, 1, 2, 2};
    token_ids_ = {5, 6, 7, 8, 5, 99, 3};
  }

  Activations Fill(const Workspace& workspace, int64_t rows) {
    const Activations act = workspace.For(rows);
    device_->CopyToDevice(act.hidden, hidden_.data());
    return act;
  }
  LayerRouting Routing(int64_t rows) {
    const Shape shape = {rows};
    LayerRouting routing;
    routing.moe_layer = 1;
    routing.row_sequence = View(reinterpret_cast<std::byte*>(sequences_.data()), DType::kI32, shape);
    routing.token_ids = View(reinterpret_cast<std::byte*>(token_ids_.data()), DType::kI32, shape);
    return routing;
  }

  std::unique_ptr<Device> device_ = CreateCpuDevice({.num_threads = 2}).value();
  ModelConfig config_ = SmallConfig(ModelFamily::kOlmoe);
  Weights weights_;
  std::vector<float> hidden_ = std::vector<float>(static_cast<size_t>(64 * config_.hidden_size));
  std::vector<int32_t> sequences_;
  std::vector<int32_t> token_ids_;
};

TEST_P(ExpertPredictorTest, PredictsWhatTheRouterWouldChoose) {
  const Workspace workspace = Workspace::Create(config_, kRows, 1, *device_).value();
  ExpertPredictor predictor = ExpertPredictor::Create(config_, device_.get()).value();
  const Activations act = Fill(workspace, kRows);
  const LayerRouting routing = Routing(kRows);
  const auto predicted = predictor.Predict(weights_.layers[1], routing, act);
  ASSERT_TRUE(predicted.ok());

  Ops& ops = device_->ops();
  ops.RmsNorm(act.normed, act.hidden, weights_.layers[1].ffn_norm, config_.rms_norm_eps);
  ComputeGate(ops, config_, weights_.layers[1], routing, act.normed, act.router_logits);
  ops.RouteTopK(act.expert_ids, act.routing_weights, act.probabilities, act.log_sum_exp, act.router_logits, {},
                routing.row_sequence, config_.router);
  std::map<ExpertId, double> expected;
  const auto* const ids = reinterpret_cast<const int32_t*>(act.expert_ids.raw());
  const auto* const weights = reinterpret_cast<const float*>(act.routing_weights.raw());
  for (int64_t a = 0; a < kRows * config_.router.top_k; ++a) {
    if (ids[a] != kPadding) expected[static_cast<ExpertId>(config_.num_experts) + ids[a]] += weights[a];
  }
  ASSERT_EQ(predicted->size(), expected.size());
  for (const PredictedExpert& each : *predicted) {
    ASSERT_TRUE(expected.contains(each.expert)) << each.expert;
    EXPECT_DOUBLE_EQ(each.score, expected[each.expert]);
  }
}

TEST_P(ExpertPredictorTest, LargeStepsAreNotPredicted) {
  constexpr int64_t kMany = ExpertPredictor::kMaxRows + 1;
  sequences_.resize(kMany);
  token_ids_.resize(kMany);
  const Workspace workspace = Workspace::Create(config_, kMany, 1, *device_).value();
  ExpertPredictor predictor = ExpertPredictor::Create(config_, device_.get()).value();
  const auto many = predictor.Predict(weights_.layers[1], Routing(kMany), Fill(workspace, kMany));
  ASSERT_TRUE(many.ok());
  EXPECT_TRUE(many->empty());
  const auto fewer = predictor.Predict(weights_.layers[1], Routing(kMany - 1), Fill(workspace, kMany - 1));
  ASSERT_TRUE(fewer.ok());
  EXPECT_FALSE(fewer->empty());
}

INSTANTIATE_TEST_SUITE_P(Schemes, ExpertPredictorTest, testing::Values(RoutingScheme::kFamily, RoutingScheme::kHash));

}  // namespace
}  // namespace cadre
