// Experts that lie in memory of the host, and move while what reads them was recorded before: the same bits from
// everywhere. On a real GPU, or on the emulated runtime.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_device.h"
#include "kernels/ops.h"
#include "tests/support/lone_experts.h"

namespace cadre {
namespace {

constexpr int64_t kHidden = 64;
constexpr int64_t kFfn = 32;
constexpr int64_t kExperts = 3;
constexpr int64_t kMatrix = kHidden * kFfn;

class CudaExpertTableTest : public ::testing::TestWithParam<DType> {
 protected:
  CudaExpertTableTest() {
    EXPECT_TRUE(device_->ops().Reserve(LimitsOfLoneExperts(kMaxRows, kExperts, kHidden, kFfn)).ok());
    std::mt19937 rng(7);
    FillWithWeights(dtype_, {mapped_.data(), static_cast<size_t>(kExperts * expert_bytes())}, rng);
    std::normal_distribution<float> normal(0.0f, 0.2f);
    std::vector<float> rows(kMaxRows * kHidden);
    for (float& value : rows) value = normal(rng);
    Upload(x_, rows.data());
  }

  static constexpr int64_t kMaxRows = 40;
  int64_t expert_bytes() const { return 3 * kMatrix * static_cast<int64_t>(DTypeBytes(dtype_)); }
  // Expert number `slot` of what begins at `base`.
  MlpWeights At(std::byte* base, int64_t slot) const {
    std::byte* const begin = base + slot * expert_bytes();
    const int64_t matrix_bytes = expert_bytes() / 3;
    return {View(begin, dtype_, {kFfn, kHidden}), View(begin + matrix_bytes, dtype_, {kFfn, kHidden}),
            View(begin + 2 * matrix_bytes, dtype_, {kHidden, kFfn})};
  }
  View SlotView(int64_t slot) const { return View(slots_.data() + slot * expert_bytes(), dtype_, {3 * kMatrix}); }
  const std::byte* Mapped(int64_t expert) const { return mapped_.data() + expert * expert_bytes(); }

  void Upload(const DeviceBuffer& to, const void* from) {
    device_->CopyToDevice(to.view(DType::kI32, {static_cast<int64_t>(to.size_bytes() / sizeof(int32_t))}), from);
    ASSERT_TRUE(device_->Synchronize().ok());
  }
  // Row r goes to expert r % kExperts.
  void OrderFfn(int64_t num_rows) {
    device_->ops().ExpertFfn(y_.view(DType::kF32, {num_rows, kHidden}), x_.view(DType::kF32, {num_rows, kHidden}),
                             order_.view(DType::kI32, {num_rows}), offsets_.view(DType::kI32, {kExperts + 1}),
                             experts_);
  }
  void Group(int64_t num_rows) {
    std::vector<int32_t> ids(kMaxRows);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i % kExperts);
    Upload(ids_, ids.data());
    device_->ops().GroupByExpert(order_.view(DType::kI32, {num_rows}), offsets_.view(DType::kI32, {kExperts + 1}),
                                 ids_.view(DType::kI32, {num_rows, 1}));
  }
  std::vector<float> Download(int64_t num_rows) {
    std::vector<float> y(static_cast<size_t>(num_rows * kHidden));
    const View view = y_.view(DType::kF32, {num_rows, kHidden});
    device_->CopyToHost(y.data(), view);
    EXPECT_TRUE(device_->Synchronize().ok());
    const std::vector<float> nothing(y.size());
    device_->CopyToDevice(view, nothing.data());  // what is not computed again is seen
    EXPECT_TRUE(device_->Synchronize().ok());
    return y;
  }

  const DType dtype_ = GetParam();
  const std::unique_ptr<Device> device_ = *CreateCudaDevice();
  DeviceBuffer mapped_ = *device_->AllocateMapped(static_cast<size_t>(kExperts * expert_bytes()));
  DeviceBuffer slots_ = *device_->Allocate(static_cast<size_t>(kExperts * expert_bytes()));
  DeviceBuffer x_ = *device_->Allocate(kMaxRows * kHidden * sizeof(float));
  DeviceBuffer y_ = *device_->Allocate(kMaxRows * kHidden * sizeof(float));
  DeviceBuffer ids_ = *device_->Allocate(kMaxRows * sizeof(int32_t));
  DeviceBuffer order_ = *device_->Allocate(kMaxRows * sizeof(int32_t));
  DeviceBuffer offsets_ = *device_->Allocate((kExperts + 1) * sizeof(int32_t));
  std::vector<MlpWeights> experts_ = std::vector<MlpWeights>(kExperts);
};

TEST_P(CudaExpertTableTest, SameBitsFromEitherMemory) {
  for (int64_t e = 0; e < kExperts; ++e) {
    ASSERT_TRUE(device_->CopyInBackground(SlotView(e), Mapped(e)).ok());
  }
  ASSERT_TRUE(device_->FinishBackgroundCopies().ok());
  EXPECT_EQ(*device_->CountBackgroundCopies(), kExperts);
  for (const int64_t num_rows : {int64_t{1}, int64_t{9}, kMaxRows}) {
    Group(num_rows);
    std::vector<float> expected;
    for (int from_host = 0; from_host < 1 << kExperts; ++from_host) {
      for (int64_t e = 0; e < kExperts; ++e) {
        experts_[static_cast<size_t>(e)] = At((from_host >> e & 1) != 0 ? mapped_.data() : slots_.data(), e);
      }
      OrderFfn(num_rows);
      const std::vector<float> y = Download(num_rows);
      if (expected.empty()) expected = y;
      ASSERT_EQ(y, expected) << from_host;
    }
  }
}

TEST_P(CudaExpertTableTest, ARecordedStepReadsWhatWasPlacedLast) {
  Group(kMaxRows);
  for (int64_t e = 0; e < kExperts; ++e) experts_[static_cast<size_t>(e)] = At(mapped_.data(), e);
  OrderFfn(kMaxRows);
  const std::vector<float> expected = Download(kMaxRows);
  const auto work = device_->Record([&] { OrderFfn(kMaxRows); });
  ASSERT_TRUE(work.ok()) << work.status();
  // Expert 1 moves to a slot, and another one's weights to where it was.
  ASSERT_TRUE(device_->CopyInBackground(SlotView(0), Mapped(1)).ok());
  ASSERT_TRUE(device_->FinishBackgroundCopies().ok());
  experts_[1] = At(slots_.data(), 0);
  device_->ops().PlaceExperts(experts_);
  device_->Replay(**work);
  EXPECT_EQ(Download(kMaxRows), expected);
  std::memcpy(mapped_.data() + expert_bytes(), Mapped(0), static_cast<size_t>(expert_bytes()));
  device_->Replay(**work);
  EXPECT_EQ(Download(kMaxRows), expected) << "the slot is read, and not the host's memory";
  experts_[1] = At(mapped_.data(), 1);
  device_->ops().PlaceExperts(experts_);
  device_->Replay(**work);
  EXPECT_NE(Download(kMaxRows), expected);
}

TEST_P(CudaExpertTableTest, NothingIsCopiedInTheBackgroundOfARecording) {
  absl::Status copied;
  ASSERT_TRUE(device_->Record([&] { copied = device_->CopyInBackground(SlotView(0), Mapped(0)); }).ok());
  EXPECT_EQ(copied.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(*device_->CountBackgroundCopies(), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, CudaExpertTableTest, ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& param_info) { return std::string(DTypeName(param_info.param)); });

}  // namespace
}  // namespace cadre
