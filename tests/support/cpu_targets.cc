// The CPU's instruction sets that this machine has, and AMX under emulation where only its tiles are missing.
#include <algorithm>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/kernels/cpu_test_device.h"
#include "tests/support/test_target.h"

namespace cadre {

std::vector<TestTarget> TestTargets() {
  std::vector<CpuIsa> isas = SupportedCpuIsas();
#if defined(__x86_64__)
  if (isas.back() == CpuIsa::kAvx512Bf16) isas.push_back(CpuIsa::kAmxBf16);
#endif
  std::vector<TestTarget> targets;
  for (const CpuIsa isa : isas) {
    std::string name(CpuIsaName(isa));
    std::erase(name, '-');
    const auto make = [isa](int num_threads) { return MakeCpuTestDevice(isa, num_threads); };
    targets.push_back(
        {.name = std::move(name), .make = make, .make_for_model = make, .adds_in_tiles = isa == CpuIsa::kAmxBf16});
  }
  return targets;
}

}  // namespace cadre
