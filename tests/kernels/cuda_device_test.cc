// The GPU as a device: copies, its budget, what its kernels cannot do. On a real one, or on the emulated runtime.
#include "kernels/cuda/cuda_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(CudaDeviceTest, CopiesThereAndBack) {
  const auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok());
  const std::vector<int32_t> values = {1, -2, 3};
  DeviceBuffer buffer = *(*device)->Allocate(sizeof(int32_t) * 3);
  const View view = buffer.view(DType::kI32, {3});
  (*device)->CopyToDevice(view, values.data());
  std::vector<int32_t> back(3);
  (*device)->CopyToHost(back.data(), view);
  ASSERT_TRUE((*device)->Synchronize().ok());
  EXPECT_EQ(back, values);
}

TEST(CudaDeviceTest, AllocatesZerosWithinItsShareOfTheMemory) {
  constexpr double kShare = 1e-3;  // some megabytes
  auto device = CreateCudaDevice({.memory_utilization = kShare});
  ASSERT_TRUE(device.ok()) << device.status();
  const size_t available = (*device)->AvailableBytes() / 4 * 4;
  ASSERT_GT(available, size_t{1} << 18);
  {
    const auto buffer = (*device)->Allocate(available);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    std::vector<uint8_t> bytes(available, 1);
    (*device)->CopyToHost(bytes.data(), buffer->view(DType::kI32, {static_cast<int64_t>(available / 4)}));
    ASSERT_TRUE((*device)->Synchronize().ok());
    EXPECT_EQ(std::count(bytes.begin(), bytes.end(), 0), static_cast<std::ptrdiff_t>(available));
    EXPECT_LT((*device)->AvailableBytes(), 4u);
    const auto more = (*device)->Allocate(4);
    EXPECT_EQ(more.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(MessageOf(more.status()), HasSubstr("--gpu-memory-utilization"));
  }
  EXPECT_EQ((*device)->AvailableBytes() / 4 * 4, available) << "given back";
}

TEST(CudaDeviceTest, RefusesWhatTheKernelsCannotDo) {
  const auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok());
  const OpsLimits good = {.max_tokens = 2,
                          .hidden_size = 8,
                          .max_linear_inputs = 8,
                          .num_heads = 2,
                          .head_dim = 256,
                          .max_positions = 8,
                          .num_experts = 512,
                          .top_k = 2,
                          .max_ffn_size = 8};
  EXPECT_TRUE((*device)->ops().Reserve(good).ok());
  for (const auto& [member, value] : {std::pair(&OpsLimits::head_dim, 257), std::pair(&OpsLimits::num_experts, 8192),
                                      std::pair(&OpsLimits::num_heads, 1024)}) {
    OpsLimits limits = good;
    limits.*member = value;
    const absl::Status status = (*device)->ops().Reserve(limits);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(MessageOf(status), HasSubstr("do not support this model"));
  }
}

TEST(CudaDeviceTest, StagingMemoryGoesThereAndBack) {
  const auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok());
  const auto staging = (*device)->AllocateStaging(2 * sizeof(int64_t));
  const auto buffer = (*device)->Allocate(sizeof(int64_t));
  ASSERT_TRUE(staging.ok() && buffer.ok());
  auto* const values = reinterpret_cast<int64_t*>(staging->data());
  EXPECT_EQ(values[0], 0);
  values[0] = 7;
  const View view = buffer->view(DType::kI64, {1});
  (*device)->CopyToDevice(view, values);
  (*device)->CopyToHost(values + 1, view);
  ASSERT_TRUE((*device)->Synchronize().ok());
  EXPECT_EQ(values[1], 7);
}

TEST(CudaDeviceTest, AMarkIsBehindWhatWasOrderedBeforeIt) {
  const auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok());
  ASSERT_TRUE((*device)->can_mark());
  const auto mark = (*device)->CreateMark();
  ASSERT_TRUE(mark.ok());
  const auto staging = (*device)->AllocateStaging(sizeof(int64_t));
  const auto buffer = (*device)->Allocate(sizeof(int64_t));
  ASSERT_TRUE(staging.ok() && buffer.ok());
  auto* const value = reinterpret_cast<int64_t*>(staging->data());
  for (const int64_t next : {7, 8}) {  // a mark is used again and again
    (*device)->CopyToDevice(buffer->view(DType::kI64, {1}), &next);
    (*device)->CopyToHost(value, buffer->view(DType::kI64, {1}));
    (*device)->Mark(mark->get());
    ASSERT_TRUE((*device)->Await(**mark).ok());
    EXPECT_EQ(*value, next);
  }
}

// x += y, as a verb that is easy to see.
class RecordingTest : public ::testing::Test {
 protected:
  void SetUp() override { Set(y_, 1.0f); }
  void Set(const View& view, float value) {
    device_->CopyToDevice(view, &value);
    ASSERT_TRUE(device_->Synchronize().ok());
  }
  float x() {
    float value = -1.0f;
    device_->CopyToHost(&value, x_);
    EXPECT_TRUE(device_->Synchronize().ok());
    return value;
  }
  void AddOnce() { device_->ops().AddGated(x_, y_, {}); }

  const std::unique_ptr<Device> device_ = *CreateCudaDevice();
  DeviceBuffer x_buffer_ = *device_->Allocate(sizeof(float));
  DeviceBuffer y_buffer_ = *device_->Allocate(sizeof(float));
  View x_ = x_buffer_.view(DType::kF32, {1, 1});
  View y_ = y_buffer_.view(DType::kF32, {1, 1});
};

TEST_F(RecordingTest, ReplaysWithWhatTheMemoryHoldsThen) {
  ASSERT_TRUE(device_->can_record());
  const auto work = device_->Record([&] {
    AddOnce();
    AddOnce();
  });
  ASSERT_TRUE(work.ok()) << work.status();
  EXPECT_EQ(x(), 0.0f) << "recording runs nothing";
  device_->Replay(**work);
  EXPECT_EQ(x(), 2.0f);
  Set(y_, 10.0f);
  device_->Replay(**work);
  AddOnce();
  device_->Replay(**work);
  EXPECT_EQ(x(), 52.0f);
}

TEST_F(RecordingTest, RefusesWhatCannotBeRepeated) {
  float value = 0.0f;
  const std::vector<std::pair<std::string, std::function<void()>>> mistakes = {
      {"a copy to the GPU", [&] { device_->CopyToDevice(x_, &value); }},
      {"a copy from the GPU", [&] { device_->CopyToHost(&value, x_); }},
      {"waiting", [&] { static_cast<void>(device_->Synchronize()); }},
  };
  for (const auto& [what, mistake] : mistakes) {
    const auto work = device_->Record([&, &make = mistake] {
      AddOnce();
      make();
    });
    EXPECT_EQ(work.status().code(), absl::StatusCode::kInternal) << what;
    EXPECT_THAT(MessageOf(work.status()), HasSubstr(what));
  }
  absl::Status allocated;
  ASSERT_TRUE(device_->Record([&] { allocated = device_->Allocate(4).status(); }).ok());
  EXPECT_EQ(allocated.code(), absl::StatusCode::kInternal);
  AddOnce();
  EXPECT_EQ(x(), 1.0f) << "the device works as before";
}

TEST(CudaDeviceTest, ADeviceThatWaitsForEachVerbRecordsNothing) {
  const auto device = CreateCudaDevice({.host_readable = true});
  ASSERT_TRUE(device.ok());
  EXPECT_FALSE((*device)->can_record());
  EXPECT_EQ((*device)->Record([] {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace cadre
