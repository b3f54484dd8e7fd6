#include "kernels/cpu/cpu_device.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/host_limits.h"
#include "kernels/cpu/host_memory.h"

namespace cadre {
namespace {

// More threads than any machine has are a slip of the pen.
constexpr int kMaxCpuThreads = 4096;

class CpuDevice final : public Device {
 public:
  CpuDevice(const CpuKernels& kernels, int num_threads)
      : name_of_kernels_(kernels.name),
        ops_(kernels, num_threads, [this](size_t size_bytes) { return memory_.Allocate(size_bytes); }) {}

  std::string name() const override { return "cpu"; }
  std::string kernels() const override {
    const int n = ops_.num_threads();
    return absl::StrCat(name_of_kernels_, ", ", n, n == 1 ? " thread" : " threads");
  }

  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes) override { return memory_.Allocate(size_bytes); }
  size_t AvailableBytes() const override { return memory_.AvailableBytes(); }

  absl::Status CommitMemory() override { return memory_.Commit(); }
  absl::StatusOr<DeviceBuffer> Reserve(size_t size_bytes, size_t counted_bytes) override {
    return memory_.Reserve(size_bytes, counted_bytes);
  }
  absl::Status CommitPages(View view) override {
    return HostMemory::CommitPages(static_cast<std::byte*>(view.raw()), view.size_bytes());
  }
  void ReleasePages(View view) override {
    HostMemory::ReleasePages(static_cast<std::byte*>(view.raw()), view.size_bytes());
  }

  void CopyToDevice(View to, const void* from) override {
    if (to.size_bytes() > 0) std::memcpy(to.raw(), from, to.size_bytes());
  }
  void CopyToHost(void* to, ConstView from) override {
    if (from.size_bytes() > 0) std::memcpy(to, from.raw(), from.size_bytes());
  }

  // Every op has ended when its call returns, and host memory has no errors to report.
  absl::Status Synchronize() override { return absl::OkStatus(); }

  Ops& ops() override { return ops_; }

 private:
  const std::string name_of_kernels_;
  HostMemory memory_;
  CpuOps ops_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CreateCpuDevice(const CpuDeviceOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxCpuThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_threads is ", options.num_threads, ", not in [0, ", kMaxCpuThreads, "]"));
  }
  const CpuKernels* const kernels = FindCpuKernels(options.isa);
  if (kernels == nullptr) {
    std::string supported;
    for (const CpuIsa isa : SupportedCpuIsas()) absl::StrAppend(&supported, " ", std::string(CpuIsaName(isa)));
    return absl::InvalidArgumentError(absl::StrCat("this machine lacks instruction set ",
                                                   std::string(CpuIsaName(options.isa)), "; it has:", supported));
  }
  const int num_threads = options.num_threads == 0 ? UsableCpus() : options.num_threads;
  return std::make_unique<CpuDevice>(*kernels, num_threads);
}

}  // namespace cadre
