#include <cstring>
#include <string>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/host_memory.h"
#include "tests/kernels/emulated_amx.h"

namespace cadre {
namespace {

const CpuKernels& EmulatedKernels() {
  static const CpuKernels kernels = [] {
    const CpuKernels* const avx512 = FindCpuKernels(CpuIsa::kAvx512Bf16);
    CADRE_CHECK(avx512 != nullptr);
    CpuKernels emulated = *avx512;
    emulated.bf16 = EmulatedAmxMatmul();
    return emulated;
  }();
  return kernels;
}

class EmulatedAmxDevice final : public Device {
 public:
  explicit EmulatedAmxDevice(int num_threads)
      : ops_(EmulatedKernels(), num_threads, [this](size_t size_bytes) { return memory_.Allocate(size_bytes); }) {}

  std::string name() const override { return "cpu"; }
  std::string kernels() const override { return "emulated amx, " + std::to_string(ops_.num_threads()) + " threads"; }
  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override { return memory_.Allocate(size_bytes); }
  size_t AvailableBytes() const override { return memory_.AvailableBytes(); }
  void CopyToDevice(View to, const void* from) override { std::memcpy(to.raw(), from, to.size_bytes()); }
  void CopyToHost(void* to, ConstView from) override { std::memcpy(to, from.raw(), from.size_bytes()); }
  absl::Status Synchronize() override { return absl::OkStatus(); }
  Ops& ops() override { return ops_; }

 private:
  HostMemory memory_;
  CpuOps ops_;
};

}  // namespace

std::unique_ptr<Device> MakeEmulatedAmxDevice(int num_threads) {
  return std::make_unique<EmulatedAmxDevice>(num_threads);
}

}  // namespace cadre
