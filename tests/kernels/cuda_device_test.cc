// The GPU as a device: its budget, and what goes wrong outside of us, in words. On the emulated runtime.
#include "kernels/cuda/cuda_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/simt/runtime_control.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

class CudaDeviceTest : public testing::Test {
 protected:
  void SetUp() override { simt::ResetDevice({.memory_bytes = 1 << 20}); }
  void TearDown() override { simt::ResetDevice(); }
};

TEST_F(CudaDeviceTest, TellsWhatItIs) {
  simt::ResetDevice({.name = "Some card", .major = 9, .minor = 0, .num_multiprocessors = 78});
  const auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->name(), "cuda:0");
  EXPECT_EQ((*device)->kernels(), "Some card, sm_90, 78 SMs");
  EXPECT_TRUE(IsCudaBuilt());
}

TEST_F(CudaDeviceTest, CopiesThereAndBack) {
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

TEST_F(CudaDeviceTest, AllocatesZerosWithinItsShareOfTheMemory) {
  auto device = CreateCudaDevice({.memory_utilization = 0.5});
  ASSERT_TRUE(device.ok());
  const size_t available = (*device)->AvailableBytes();
  EXPECT_LE(available, size_t{1} << 19);
  EXPECT_GT(available, size_t{1} << 18);
  {
    const auto buffer = (*device)->Allocate(available);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    std::vector<uint8_t> bytes(available, 1);
    (*device)->CopyToHost(bytes.data(), buffer->view(DType::kI32, {static_cast<int64_t>(available / 4)}));
    ASSERT_TRUE((*device)->Synchronize().ok());
    EXPECT_EQ(bytes[0] | bytes[available / 2], 0);
    EXPECT_EQ((*device)->AvailableBytes(), 0u);
    const auto more = (*device)->Allocate(1);
    EXPECT_EQ(more.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(MessageOf(more.status()), HasSubstr("--gpu-memory-utilization"));
  }
  EXPECT_EQ((*device)->AvailableBytes(), available) << "given back";
}

TEST_F(CudaDeviceTest, MemoryThatOthersTookIsAnErrorOfThatAllocationAlone) {
  auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok());
  simt::FailNext("cudaMalloc", cudaErrorMemoryAllocation);
  EXPECT_EQ((*device)->Allocate(64).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE((*device)->Allocate(64).ok());
  EXPECT_TRUE((*device)->Synchronize().ok());
}

TEST_F(CudaDeviceTest, SaysWhatIsMissing) {
  simt::ResetDevice({.num_devices = 0});
  EXPECT_THAT(MessageOf(CreateCudaDevice().status()), HasSubstr("no NVIDIA GPU is visible"));
  simt::ResetDevice();
  simt::FailNext("cudaGetDeviceCount", cudaErrorInsufficientDriver);
  EXPECT_THAT(MessageOf(CreateCudaDevice().status()), HasSubstr("driver is missing, or older"));
  simt::FailNext("kernel", cudaErrorNoKernelImageForDevice);
  EXPECT_THAT(MessageOf(CreateCudaDevice().status()), HasSubstr("no kernels for"));
  EXPECT_EQ(CreateCudaDevice({.memory_utilization = 1.5}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaDeviceTest, RefusesWhatTheKernelsCannotDo) {
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

class CudaOpsErrorTest : public CudaDeviceTest {
 protected:
  void SetUp() override {
    CudaDeviceTest::SetUp();
    device_ = *CreateCudaDevice();
    buffer_ = *device_->Allocate(256);
  }
  void TearDown() override {
    buffer_ = {};
    device_.reset();
    CudaDeviceTest::TearDown();
  }
  void Clamp() { device_->ops().Clamp(buffer_.view(DType::kF32, {8, 8}), 1.0f); }

  std::unique_ptr<Device> device_;
  DeviceBuffer buffer_;
};

TEST_F(CudaOpsErrorTest, ALaunchThatIsRefusedIsTheNextStatusAndThenOver) {
  simt::FailNext("kernel", cudaErrorInvalidConfiguration);
  Clamp();
  const absl::Status status = device_->Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("Clamp"));
  Clamp();
  EXPECT_TRUE(device_->Synchronize().ok());
}

TEST_F(CudaOpsErrorTest, ABrokenKernelLosesTheDevice) {
  simt::BreakNextKernel(cudaErrorIllegalAddress);
  Clamp();
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = device_->Synchronize();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("cuda:0 is lost"));
    Clamp();
  }
}

}  // namespace
}  // namespace cadre
