// The CPU as a device: host memory, a compute pool, and the best instruction set present.
#ifndef CADRE_KERNELS_CPU_CPU_DEVICE_H_
#define CADRE_KERNELS_CPU_CPU_DEVICE_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace cadre {

// Instruction sets with kernels of their own. kPortable compiles everywhere and is the reference of the others.
enum class CpuIsa { kPortable, kAvx512Bf16, kAmxBf16 };

std::string_view CpuIsaName(CpuIsa isa);
// Those that this machine (and its kernel) can run, best last; kPortable is always among them.
std::vector<CpuIsa> SupportedCpuIsas();

struct CpuDeviceOptions {
  int num_threads = 0;  // compute threads, the caller included; 0: one per CPU that the process may use
  CpuIsa isa = SupportedCpuIsas().back();
};

// INVALID_ARGUMENT when the machine lacks `options.isa`.
absl::StatusOr<std::unique_ptr<Device>> CreateCpuDevice(const CpuDeviceOptions& options = {});

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_CPU_DEVICE_H_
