// The main of tests that need a real GPU. Without one they end at once with a code of their own, so that nobody takes
// tests that did not run for tests that passed.
#include <cstdio>

#include "gtest/gtest.h"
#include "kernels/cuda/cuda_device.h"

namespace {

constexpr int kExitSkipped = 77;  // "skipped" to ctest (SKIP_RETURN_CODE), automake and meson

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  // A child that is forked from a process that uses the GPU may not use it.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  if (!GTEST_FLAG_GET(list_tests)) {
    const auto device = cadre::CreateCudaDevice();
    if (!device.ok()) {
      std::fprintf(stderr, "%s: not run, there is no GPU to run on: %s\n", argv[0],
                   std::string(device.status().message()).c_str());
      return device.status().code() == absl::StatusCode::kFailedPrecondition ? kExitSkipped : 1;
    }
    std::printf("GPU: %s\n", (*device)->kernels().c_str());
  }
  return RUN_ALL_TESTS();
}
