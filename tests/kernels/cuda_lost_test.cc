// A kernel that stops the GPU, on a real one: the process learns it, and a new process finds the GPU well. Each runs in
// a process of its own.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "kernels/cuda/cuda_device.h"
#include "kernels/ops.h"

namespace cadre {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitWrong = 3;

// GatherRows of a row that the table lacks, and what the device says of itself afterwards.
[[noreturn]] void GatherRowsOutOfRange() {
  const std::unique_ptr<Device> device = *CreateCudaDevice();
  const DeviceBuffer table = *device->Allocate(64);
  const DeviceBuffer out = *device->Allocate(64);
  const DeviceBuffer rows = *device->Allocate(64);
  const int32_t beyond = 4;
  device->CopyToDevice(rows.view(DType::kI32, {1}), &beyond);
  device->ops().GatherRows(out.view(DType::kF32, {1, 4}), table.view(DType::kF32, {4, 4}), rows.view(DType::kI32, {1}));
  for (int i = 0; i < 2; ++i) {  // it does not recover
    const absl::Status status = device->Synchronize();
    std::fprintf(stderr, "%s, lost: %d\n", status.ToString().c_str(), device->is_lost());
    if (status.code() != absl::StatusCode::kUnavailable || !device->is_lost()) std::_Exit(kExitWrong);
  }
  std::_Exit(kExitOk);
}

TEST(CudaLostTest, AKernelThatStopsLosesTheDeviceToItsProcessAlone) {
  EXPECT_EXIT(GatherRowsOutOfRange(), testing::ExitedWithCode(kExitOk), "cuda:0 is lost to this process");
  const auto device = CreateCudaDevice();
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_TRUE((*device)->Synchronize().ok());
  EXPECT_FALSE((*device)->is_lost());
}

}  // namespace
}  // namespace cadre
