// The GPU as a device: copies, its budget, what its kernels cannot do. On a real one, or on the emulated runtime.
#include "kernels/cuda/cuda_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

}  // namespace
}  // namespace cadre
