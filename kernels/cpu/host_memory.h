// Memory for tensors: aligned, zeroed, on huge pages where it is large.
#ifndef CADRE_KERNELS_CPU_HOST_MEMORY_H_
#define CADRE_KERNELS_CPU_HOST_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace cadre {

// Thread-safe. Buffers may outlive it.
class HostMemory {
 public:
  // 64-byte aligned and zeroed; from 2 MiB on, aligned to 2 MiB and backed by huge pages where the kernel grants them
  // (one stream of 4 KiB pages reads at half the speed). Pages are taken at first touch. RESOURCE_EXHAUSTED with the
  // sizes when more is asked for than is available.
  absl::StatusOr<DeviceBuffer> Allocate(size_t size_bytes);

  // What the machine and the cgroup have left, less what was allocated here and not touched yet.
  size_t AvailableBytes() const;

 private:
  std::shared_ptr<std::atomic<size_t>> allocated_bytes_ = std::make_shared<std::atomic<size_t>>(0);
};

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_HOST_MEMORY_H_
