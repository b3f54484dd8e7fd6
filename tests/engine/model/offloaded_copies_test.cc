// Experts move between the memories while steps are under way, which the host never waits for: a step must find each
// expert whole wherever its table leads, whether copies are done as late or as early as may be. On the emulated GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/model/offloaded_experts.h"
#include "kernels/cuda/cuda_device.h"
#include "tests/support/lone_experts.h"
#include "tests/support/random_model.h"
#include "tests/support/simt/runtime_control.h"

namespace cadre {
namespace {

constexpr int64_t kLayers = 2;
constexpr int64_t kExperts = 4;
constexpr int64_t kHidden = 32;
constexpr int64_t kFfn = 32;
constexpr int64_t kRows = 2;

ModelConfig Config() {
  ModelConfig config = SmallConfig(ModelFamily::kOlmoe);
  config.num_experts = kExperts;
  config.hidden_size = kHidden;
  config.expert_ffn_size = kFfn;
  return config;
}

// The layers of experts alone, driven as a runner would.
class Steps {
 public:
  Steps(int64_t num_slots, EvictionPolicyKind policy) {
    EXPECT_TRUE(device_->ops().Reserve(LimitsOfLoneExperts(kRows, kExperts, kHidden, kFfn)).ok());
    std::mt19937 rng(7);
    FillWithWeights(DType::kF32, {hosted_.data(), hosted_.size_bytes()}, rng);
    std::normal_distribution<float> normal(0.0f, 0.2f);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (int64_t e = 0; e < kExperts; ++e) {
        experts_[static_cast<size_t>(layer)].push_back(
            layout_.At(hosted_.data() + (layer * kExperts + e) * layout_.size_bytes()));
      }
    }
    std::vector<float> rows(kRows * kHidden);
    for (float& value : rows) value = normal(rng);
    device_->CopyToDevice(x_.view(DType::kF32, {kRows, kHidden}), rows.data());
    if (num_slots > 0) {
      offloaded_ = OffloadedExperts::Create(layout_, {experts_.begin(), experts_.end()},
                                            {.num_slots = num_slots, .policy = policy}, device_.get())
                       .value();
    }
    // Once op by op, so that it can be recorded.
    OrderFfn();
    EXPECT_TRUE(device_->Synchronize().ok());
    work_ = device_->Record([&] { OrderFfn(); }).value();
  }

  // Row r of layer l goes to expert ids[l * kRows + r]. Nothing is waited for.
  void Order(const std::vector<int32_t>& ids) {
    device_->CopyToDevice(ids_.view(DType::kI32, {kLayers * kRows}), ids.data());
    device_->Replay(*work_);
    outputs_.push_back(*device_->AllocateStaging(kLayers * kRows * kHidden * sizeof(float)));
    device_->CopyToHost(outputs_.back().data(), y_.view(DType::kF32, {kLayers * kRows, kHidden}));
    if (offloaded_ == nullptr) return;
    StepRouting routing;
    routing.num_layers = kLayers;
    routing.num_experts = kExperts;
    routing.assignments.resize(kLayers * kExperts);
    for (size_t i = 0; i < ids.size(); ++i) {
      ++routing.assignments[i / kRows * kExperts + static_cast<size_t>(ids[i])];
    }
    EndStep(routing);
  }
  void EndStep(const StepRouting& routing) {
    offloaded_->EndStep(routing);
    const absl::Status audit = offloaded_->Audit();
    EXPECT_TRUE(audit.ok()) << audit;
    // However slow the copies are: what is being filled helps nobody.
    const ExpertCacheReport report = Report();
    EXPECT_LE(report.loading_slots, std::max<int64_t>(1, report.num_slots / 16));
  }
  std::vector<std::vector<float>> Finish() {
    EXPECT_TRUE(device_->Synchronize().ok());
    std::vector<std::vector<float>> results;
    for (const DeviceBuffer& output : outputs_) {
      const auto* const values = reinterpret_cast<const float*>(output.data());
      results.emplace_back(values, values + kLayers * kRows * kHidden);
    }
    return results;
  }
  ExpertCacheReport Report() const { return offloaded_->Report(); }

 private:
  void OrderFfn() {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const View order = order_.view(DType::kI32, {kRows});
      const View offsets = offsets_.view(DType::kI32, {kExperts + 1});
      device_->ops().GroupByExpert(
          order, offsets, ids_.view(DType::kI32, {kRows, 1}, static_cast<size_t>(layer) * kRows * sizeof(int32_t)));
      device_->ops().ExpertFfn(y_.view(DType::kF32, {kLayers * kRows, kHidden}).Rows(layer * kRows, kRows),
                               x_.view(DType::kF32, {kRows, kHidden}), order, offsets,
                               experts_[static_cast<size_t>(layer)]);
    }
  }

  const ExpertLayout layout_ = ExpertLayout(Config(), DType::kF32);
  const std::unique_ptr<Device> device_ = *CreateCudaDevice();
  DeviceBuffer hosted_ = *device_->AllocateMapped(static_cast<size_t>(kLayers * kExperts * layout_.size_bytes()));
  DeviceBuffer x_ = *device_->Allocate(kRows * kHidden * sizeof(float));
  DeviceBuffer y_ = *device_->Allocate(kLayers * kRows * kHidden * sizeof(float));
  DeviceBuffer ids_ = *device_->Allocate(kLayers * kRows * sizeof(int32_t));
  DeviceBuffer order_ = *device_->Allocate(kRows * sizeof(int32_t));
  DeviceBuffer offsets_ = *device_->Allocate((kExperts + 1) * sizeof(int32_t));
  std::vector<std::vector<MlpWeights>> experts_ = std::vector<std::vector<MlpWeights>>(kLayers);
  std::unique_ptr<OffloadedExperts> offloaded_;
  std::unique_ptr<RecordedWork> work_;
  std::vector<DeviceBuffer> outputs_;
};

std::vector<std::vector<int32_t>> RandomChoices(int num_steps) {
  std::mt19937 rng(19);
  std::vector<std::vector<int32_t>> steps;
  for (int i = 0; i < num_steps; ++i) {
    std::vector<int32_t>& ids = steps.emplace_back(kLayers * kRows);
    for (int32_t& id : ids) id = static_cast<int32_t>(rng() % kExperts);
  }
  return steps;
}

using Parameters = std::tuple<simt::CopyTime, int64_t>;
class OffloadedExpertStepsTest : public testing::Test {
 protected:
  void SetUp() override { simt::ResetDevice({.memory_bytes = size_t{64} << 20}); }
  void TearDown() override { simt::ResetDevice(); }

  static std::vector<std::vector<float>> Expected(const std::vector<std::vector<int32_t>>& choices) {
    Steps resident(/*num_slots=*/0, EvictionPolicyKind::kLru);
    for (const auto& ids : choices) resident.Order(ids);
    return resident.Finish();
  }
};
class OffloadedCopiesTest : public OffloadedExpertStepsTest, public testing::WithParamInterface<Parameters> {};

TEST_P(OffloadedCopiesTest, NoStepReadsASlotThatIsBeingFilled) {
  const auto [copy_time, num_slots] = GetParam();
  const std::vector<std::vector<int32_t>> choices = RandomChoices(60);
  const std::vector<std::vector<float>> expected = Expected(choices);
  simt::SetCopyTime(copy_time);
  Steps steps(num_slots, EvictionPolicyKind::kLru);
  for (const auto& ids : choices) steps.Order(ids);
  const std::vector<std::vector<float>> found = steps.Finish();
  for (size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], expected[i]) << "step " << i;
  const ExpertCacheReport report = steps.Report();
  EXPECT_GT(report.slots.hits, 0);
  EXPECT_GT(report.slots.evictions, 5);
  EXPECT_GT(report.slots.loads_done, num_slots);
}

// A copy that is refused leaves its slot empty, and the expert where it was.
TEST_P(OffloadedCopiesTest, CopiesThatFailChangeNothing) {
  const auto [copy_time, num_slots] = GetParam();
  const std::vector<std::vector<int32_t>> choices = RandomChoices(20);
  const std::vector<std::vector<float>> expected = Expected(choices);
  simt::SetCopyTime(copy_time);
  Steps steps(num_slots, EvictionPolicyKind::kLfu);
  for (const auto& ids : choices) {
    simt::FailNext("cudaStreamWaitEvent", cudaErrorInvalidValue);
    steps.Order(ids);
  }
  const std::vector<std::vector<float>> found = steps.Finish();
  for (size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], expected[i]) << "step " << i;
  const ExpertCacheReport report = steps.Report();
  EXPECT_GT(report.loads.errors, 0);
  EXPECT_EQ(report.slots.loads_failed, report.loads.errors);
}

// Where experts are limited, those count that computed a row: not the one that lost it, but the one that it went to.
TEST_F(OffloadedExpertStepsTest, LimitedExpertsCountByWhatTheyComputed) {
  Steps steps(/*num_slots=*/1, EvictionPolicyKind::kLru);
  StepRouting routing;
  routing.num_layers = kLayers;
  routing.num_experts = kExperts;
  routing.assignments = {2, 0, 0, 0, 1, 1, 0, 0};
  routing.states.resize(kLayers * kNumAssignmentStates * kExperts);
  const auto count = [&](int64_t layer, AssignmentState state, int64_t expert) -> int64_t& {
    return routing
        .states[static_cast<size_t>((layer * kNumAssignmentStates + static_cast<int64_t>(state)) * kExperts + expert)];
  };
  count(0, AssignmentState::kProcessed, 0) = 1;
  count(0, AssignmentState::kRerouted, 3) = 1;
  count(1, AssignmentState::kProcessed, 0) = 1;
  count(1, AssignmentState::kDropped, 1) = 1;
  steps.EndStep(routing);
  const ExpertCacheReport report = steps.Report();
  EXPECT_EQ(report.slots.hits, 1) << "expert 0 of layer 0 fills the slot at the start";
  EXPECT_EQ(report.slots.misses, 2);
  steps.Finish();
}

INSTANTIATE_TEST_SUITE_P(Times, OffloadedCopiesTest,
                         testing::Combine(testing::Values(simt::CopyTime::kLate, simt::CopyTime::kEarly),
                                          testing::Values(1, 3, 6)),
                         [](const auto& parameters) {
                           const bool is_early = std::get<0>(parameters.param) == simt::CopyTime::kEarly;
                           return std::string(is_early ? "Early" : "Late") +
                                  std::to_string(std::get<1>(parameters.param));
                         });

}  // namespace
}  // namespace cadre
