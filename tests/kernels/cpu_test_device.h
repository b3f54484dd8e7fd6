// A device for an instruction set, real or emulated.
#ifndef CADRE_TESTS_KERNELS_CPU_TEST_DEVICE_H_
#define CADRE_TESTS_KERNELS_CPU_TEST_DEVICE_H_

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/device.h"
#include "tests/kernels/emulated_amx.h"

namespace cadre {

inline bool IsSupported(CpuIsa isa) {
  const std::vector<CpuIsa> isas = SupportedCpuIsas();
  return std::find(isas.begin(), isas.end(), isa) != isas.end();
}

inline std::unique_ptr<Device> MakeCpuTestDevice(CpuIsa isa, int num_threads) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAmxBf16 && !IsSupported(isa)) return MakeEmulatedAmxDevice(num_threads);
#endif
  absl::StatusOr<std::unique_ptr<Device>> device = CreateCpuDevice({.num_threads = num_threads, .isa = isa});
  EXPECT_TRUE(device.ok()) << device.status().ToString();
  return *std::move(device);
}

}  // namespace cadre

#endif  // CADRE_TESTS_KERNELS_CPU_TEST_DEVICE_H_
