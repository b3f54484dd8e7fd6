// Recorded steps: which are recorded, which batches replay one, and that a replay computes what the ops one by one do.
#include "engine/model/recorded_steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/random_model.h"
#include "tests/support/test_sequence.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;

constexpr int32_t kBlockSize = 4;
constexpr int32_t kMaxSequences = 11;

TEST(RecordedStepsTest, SizesRiseToTheLargestStep) {
  EXPECT_THAT(RecordedSteps::Sizes(0), ElementsAre());
  EXPECT_THAT(RecordedSteps::Sizes(1), ElementsAre(1));
  EXPECT_THAT(RecordedSteps::Sizes(7), ElementsAre(1, 2, 4, 7));
  EXPECT_THAT(RecordedSteps::Sizes(64), ElementsAre(1, 2, 4, 8, 16, 24, 32, 48, 64));
  EXPECT_THAT(RecordedSteps::Sizes(200), ElementsAre(1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 200));
  EXPECT_EQ(RecordedSteps::Sizes(100000).back(), RecordedSteps::kMostRows);
}

ForwardBatch BatchOf(int32_t num_tokens, int32_t num_logit_rows, int32_t max_blocks) {
  ForwardBatch batch;
  batch.num_sequences = num_tokens;
  batch.max_blocks = max_blocks;
  batch.token_ids.resize(static_cast<size_t>(num_tokens));
  batch.logit_rows.resize(static_cast<size_t>(num_logit_rows));
  return batch;
}

TEST(RecordedStepsTest, FindsTheSmallestThatFits) {
  RecordedSteps steps;
  for (const int64_t rows : {1, 4, 6}) {
    steps.Add({.shape = {.num_tokens = rows, .num_sequences = rows, .max_blocks = 9, .num_logit_rows = rows},
               .work = nullptr});
  }
  EXPECT_EQ(steps.Find(BatchOf(1, 1, 9))->shape.num_tokens, 1);
  EXPECT_EQ(steps.Find(BatchOf(2, 2, 1))->shape.num_tokens, 4);
  EXPECT_EQ(steps.Find(BatchOf(5, 5, 9))->shape.num_tokens, 6);
  EXPECT_EQ(steps.Find(BatchOf(7, 7, 9)), nullptr);
  EXPECT_EQ(steps.Find(BatchOf(2, 2, 10)), nullptr);
  EXPECT_EQ(steps.Find(BatchOf(4, 1, 9)), nullptr) << "a prompt";
  ForwardBatch diagnostic = BatchOf(2, 2, 1);
  diagnostic.keep_expert_ids = true;
  EXPECT_EQ(steps.Find(diagnostic), nullptr);
}

// Counts what a device is asked to replay.
class CountingDevice final : public Device {
 public:
  explicit CountingDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}
  int num_replays() const { return num_replays_; }

  std::string name() const override { return device_->name(); }
  std::string kernels() const override { return device_->kernels(); }
  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override { return device_->Allocate(size_bytes); }
  absl::StatusOr<DeviceBuffer> AllocateStaging(size_t size_bytes) override {
    return device_->AllocateStaging(size_bytes);
  }
  size_t AvailableBytes() const override { return device_->AvailableBytes(); }
  void CopyToDevice(View to, const void* from) override { device_->CopyToDevice(to, from); }
  void CopyToHost(void* to, ConstView from) override { device_->CopyToHost(to, from); }
  bool can_record() const override { return device_->can_record(); }
  absl::StatusOr<std::unique_ptr<RecordedWork>> Record(absl::FunctionRef<void()> order) override {
    return device_->Record(order);
  }
  void Replay(const RecordedWork& work) override {
    ++num_replays_;
    device_->Replay(work);
  }
  absl::Status Synchronize() override { return device_->Synchronize(); }
  Ops& ops() override { return device_->ops(); }

 private:
  const std::unique_ptr<Device> device_;
  int num_replays_ = 0;
};

class ReplayTest : public ::testing::TestWithParam<std::tuple<DType, TestTarget>> {
 protected:
  static std::unique_ptr<ModelRunner> MakeRunner(Device* device, bool records) {
    const RunnerOptions options = {.max_model_len = 64,
                                   .max_num_seqs = kMaxSequences,
                                   .max_num_batched_tokens = 64,
                                   .kv_block_size = kBlockSize,
                                   .kv_dtype = {},
                                   .kv_cache_bytes = {},
                                   .record_steps = records};
    return MakeRandomRunner(SmallConfig(ModelFamily::kQwen3Moe), std::get<DType>(GetParam()), 99, options, device);
  }
  static std::vector<TestSequence> MakeSequences() {
    std::mt19937 rng(3);
    std::vector<TestSequence> sequences(kMaxSequences);
    int32_t next_block = 0;
    for (TestSequence& sequence : sequences) {
      sequence.tokens.resize(20);
      for (int32_t& token : sequence.tokens) token = static_cast<int32_t>(rng() % 101);
      sequence.blocks.resize(5);
      std::iota(sequence.blocks.begin(), sequence.blocks.end(), next_block);
      next_block += 5;
    }
    return sequences;
  }
};

// The same steps with recorded work and without: all sequences' prompts, then decode steps of 1 to kMaxSequences.
TEST_P(ReplayTest, ComputesWhatTheOpsDo) {
  const TestTarget& target = std::get<TestTarget>(GetParam());
  CountingDevice device(target.make_for_model(1));
  CountingDevice plain_device(target.make_for_model(1));
  const auto runner = MakeRunner(&device, /*records=*/true);
  const auto plain = MakeRunner(&plain_device, /*records=*/false);
  std::vector<TestSequence> sequences = MakeSequences();
  ForwardResult result;
  ForwardResult expected;
  const auto step = [&](int32_t num_sequences, int32_t num_tokens) {
    std::vector<Chunk> chunks;
    for (int32_t s = 0; s < num_sequences; ++s) {
      chunks.push_back({.sequence = &sequences[static_cast<size_t>(s)], .num_tokens = num_tokens});
    }
    ForwardBatch batch = NextBatch(chunks, kBlockSize);
    batch.keep_expert_ids = false;
    if (num_tokens > 1) batch.logit_rows.resize(1);
    ASSERT_TRUE(runner->Forward(batch, &result).ok());
    ASSERT_TRUE(plain->Forward(batch, &expected).ok());
    EXPECT_EQ(result.logits, expected.logits);
    EXPECT_EQ(result.routing.num_tokens, expected.routing.num_tokens);
    EXPECT_EQ(result.routing.assignments, expected.routing.assignments);
    EXPECT_EQ(result.routing.sequence_assignments, expected.routing.sequence_assignments);
    EXPECT_EQ(result.routing.gate_weight, expected.routing.gate_weight);
    EXPECT_EQ(result.routing.probability, expected.routing.probability);
    EXPECT_EQ(result.routing.squared_log_sum_exp, expected.routing.squared_log_sum_exp);
  };
  step(kMaxSequences, 4);
  EXPECT_EQ(device.num_replays(), 0);
  for (int32_t n = kMaxSequences; n > 0; --n) {
    SCOPED_TRACE(testing::Message() << n << " sequences");
    step(n, 1);
    if (HasFailure()) return;
  }
  EXPECT_EQ(device.num_replays(), device.can_record() ? kMaxSequences : 0);
  EXPECT_EQ(plain_device.num_replays(), 0);
}

std::string ParameterName(const testing::TestParamInfo<std::tuple<DType, TestTarget>>& parameters) {
  const auto& [dtype, target] = parameters.param;
  return std::string(DTypeName(dtype)) + "_" + target.name;
}

INSTANTIATE_TEST_SUITE_P(All, ReplayTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16), testing::ValuesIn(TestTargets())),
                         ParameterName);

}  // namespace
}  // namespace cadre
