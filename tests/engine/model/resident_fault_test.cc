// A device whose kernels fail in the middle of a layer with three tiers: the step fails, and the next one does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/expert_layout.h"
#include "engine/model/memory_plan.h"
#include "engine/model/transformer_runner.h"
#include "tests/support/memory_experts.h"
#include "tests/support/random_model.h"
#include "tests/support/simt/runtime_control.h"
#include "tests/support/test_sequence.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

// The first read of an expert after it was told to has the next kernel fail: one of the layer that the read is for.
class TreacherousExperts final : public ExpertSource {
 public:
  TreacherousExperts(std::vector<std::vector<std::byte>> experts, std::atomic<bool>* is_on)
      : experts_(std::move(experts)), is_on_(is_on) {}

  int64_t expert_bytes() const override { return experts_.expert_bytes(); }
  absl::Status Read(ExpertId expert, std::span<std::byte> to, ReadPace pace) const override {
    if (is_on_->exchange(false)) simt::FailNext("kernel", cudaErrorLaunchOutOfResources);
    return experts_.Read(expert, to, pace);
  }
  std::string Describe(ExpertId expert) const override { return experts_.Describe(expert); }

 private:
  const MemoryExperts experts_;
  std::atomic<bool>* const is_on_;
};

RunnerOptions Options(int64_t device_experts, int64_t host_experts) {
  const int64_t expert_bytes = ExpertLayout(WideConfig(), DType::kF32).size_bytes();
  RunnerOptions options;
  options.max_model_len = 32;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 16;
  options.kv_block_size = 4;
  options.expert_cache_bytes = device_experts * expert_bytes;
  options.expert_host_bytes = host_experts * expert_bytes;
  return options;
}

TEST(ResidentFaultTest, AStepThatTheDeviceFailsLeavesTheCacheAsItWas) {
  std::atomic<bool> is_on = false;
  const std::unique_ptr<Device> device = TestTargets().front().make_for_model(1);
  const RunnerOptions options = Options(2, 3);
  const CheckpointSummary summary = SummaryOf(WideConfig(), DType::kF32);
  const MemoryPlan plan = PlanMemory(WideConfig(), summary, options, *device, device->ops()).value();
  ASSERT_EQ(plan.num_resident_experts, 2);
  Weights weights = MakeRandomWeights(WideConfig(), DType::kF32, /*seed=*/3, *device);
  weights.expert_source = std::make_unique<TreacherousExperts>(TakeExperts(WideConfig(), &weights), &is_on);
  const auto runner = CreateTransformerRunner(WideConfig(), std::move(weights), plan, options, device.get()).value();

  TestSequence sequence;
  for (int32_t i = 0; i < 8; ++i) sequence.tokens.push_back((i * 37 + 5) % 101);
  sequence.blocks = {0, 1, 2, 3, 4, 5, 6, 7};
  TestSequence again = sequence;
  TestSequence last = sequence;
  const auto forward = [&](TestSequence* of, ForwardResult* result) {
    const std::vector<Chunk> chunks = {{.sequence = of, .num_tokens = 8}};
    return runner->Forward(NextBatch(chunks, 4), result);
  };
  ForwardResult result;
  is_on = true;
  const absl::Status status = forward(&sequence, &result);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_FALSE(runner->is_lost());
  EXPECT_EQ(runner->expert_cache()->pinned_slots, 0);
  runner->KeepExperts({5});
  runner->PlaceExperts();
  ASSERT_TRUE(forward(&again, &result).ok());
  const std::vector<float> found = result.logits;
  EXPECT_TRUE(result.faults.empty());
  ASSERT_TRUE(forward(&last, &result).ok());
  EXPECT_EQ(result.logits, found);
}

}  // namespace
}  // namespace cadre
