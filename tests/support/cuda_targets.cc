// The GPU; in the build for the host, its emulation.
#include <utility>

#include "gtest/gtest.h"
#include "kernels/cuda/cuda_device.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

std::unique_ptr<Device> MakeDevice(int /*num_threads*/) {
  absl::StatusOr<std::unique_ptr<Device>> device = CreateCudaDevice({.host_readable = true});
  EXPECT_TRUE(device.ok()) << device.status().ToString();
  return *std::move(device);
}

}  // namespace

std::vector<TestTarget> TestTargets() {
  return {{.name = "cuda", .make = MakeDevice, .thread_counts = {1}, .num_rounds = 1, .dies_of_wrong_ids = false}};
}

}  // namespace cadre
