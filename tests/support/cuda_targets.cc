// The GPU; in the build for the host, its emulation.
#include <utility>

#include "gtest/gtest.h"
#include "kernels/cuda/cuda_device.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

std::unique_ptr<Device> MakeDevice(bool host_readable) {
  absl::StatusOr<std::unique_ptr<Device>> device = CreateCudaDevice({.host_readable = host_readable});
  EXPECT_TRUE(device.ok()) << device.status().ToString();
  return *std::move(device);
}

#if defined(CADRE_SIMT_EMULATOR)
constexpr bool kIsEmulated = true;
#else
constexpr bool kIsEmulated = false;
#endif

}  // namespace

std::vector<TestTarget> TestTargets() {
  return {{.name = "cuda",
           .make = [](int /*num_threads*/) { return MakeDevice(/*host_readable=*/true); },
           .make_for_model = [](int /*num_threads*/) { return MakeDevice(/*host_readable=*/false); },
           .thread_counts = {1},
           .num_rounds = kIsEmulated ? 1 : 8,
           .rounds_attention = true,
           .dies_of_wrong_ids = kIsEmulated,
           .reads_host_memory = kIsEmulated}};
}

}  // namespace cadre
