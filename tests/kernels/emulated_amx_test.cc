// The emulation of AMX against AMX, where there is one.
#include <cstring>
#include <memory>

#include "gtest/gtest.h"
#include "tests/kernels/cpu_test_device.h"
#include "tests/kernels/op_test.h"

namespace cadre {
namespace {

// The emulation stands in for the instructions, so on machines that have them it must give their bits.
TEST(AmxTest, EmulationMatchesTheInstructions) {
  if (!IsSupported(CpuIsa::kAmxBf16)) GTEST_SKIP() << "this machine has no AMX";
#if defined(__x86_64__)
  const std::unique_ptr<Device> real = MakeCpuTestDevice(CpuIsa::kAmxBf16, 1);
  const std::unique_ptr<Device> emulated = MakeEmulatedAmxDevice(1);
  Tensors tensors(*real, 11);
  for (const int64_t k : {32, 77, 512}) {
    const Tensor x = tensors.Random(DType::kF32, {40, k});
    const Tensor w = tensors.Random(DType::kBF16, {50, k});
    const Tensor out = tensors.Zeros(DType::kF32, {40, 50});
    const Tensor expected = tensors.Zeros(DType::kF32, {40, 50});
    ASSERT_TRUE(real->ops().Reserve(TestLimits()).ok());
    ASSERT_TRUE(emulated->ops().Reserve(TestLimits()).ok());
    real->ops().Linear(out.view, x.view, w.view, ConstView(), false);
    emulated->ops().Linear(expected.view, x.view, w.view, ConstView(), false);
    EXPECT_EQ(std::memcmp(out.view.raw(), expected.view.raw(), out.view.size_bytes()), 0) << "K " << k;
  }
#endif
}

}  // namespace
}  // namespace cadre
