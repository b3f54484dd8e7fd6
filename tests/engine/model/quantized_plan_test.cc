// Devices that compute with quantized weights, and those that say so where they do not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/model/transformer_runner.h"
#include "tests/support/random_model.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

class QuantizedPlanTest : public testing::TestWithParam<TestTarget> {};

TEST_P(QuantizedPlanTest, IsRefusedWhereTheDeviceCannotMultiply) {
  const ModelConfig config = SmallConfig(ModelFamily::kOlmoe);
  const auto device = GetParam().make_for_model(1);
  for (const bool is_all : {false, true}) {
    for (const DType dtype : {DType::kQ8, DType::kQ4}) {
      CheckpointSummary summary = SummaryOf(config, DType::kBF16);
      summary.expert_dtype = is_all ? DType::kBF16 : dtype;
      summary.matrix_dtype = is_all ? dtype : DType::kBF16;
      summary.head_dtype = summary.matrix_dtype;
      const auto plan = PlanMemory(config, summary, {}, *device, device->ops());
      if (device->ops().can_multiply(dtype)) {
        ASSERT_TRUE(plan.ok()) << plan.status();
        EXPECT_EQ(plan->expert_dtype, summary.expert_dtype);
        EXPECT_EQ(plan->weight_dtype, summary.matrix_dtype);
      } else {
        EXPECT_EQ(plan.status().code(), absl::StatusCode::kOutOfRange);
        EXPECT_THAT(
            std::string(plan.status().message()),
            testing::AllOf(testing::HasSubstr("--quantize"), testing::HasSubstr(std::string(DTypeName(dtype)))));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTargets, QuantizedPlanTest, testing::ValuesIn(TestTargets()),
                         [](const testing::TestParamInfo<TestTarget>& target) { return target.param.name; });

}  // namespace
}  // namespace cadre
