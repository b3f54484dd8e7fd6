// Memory for tensors: aligned, zeroed, on huge pages where it is large.
#ifndef CADRE_KERNELS_CPU_HOST_MEMORY_H_
#define CADRE_KERNELS_CPU_HOST_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
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

  // As Device::Reserve and Device::CommitPages.
  absl::StatusOr<DeviceBuffer> Reserve(size_t size_bytes, size_t counted_bytes);
  static absl::Status CommitPages(std::byte* data, size_t size);

  // Takes the pages of all buffers of Allocate that are still there now. Nobody may allocate or free meanwhile.
  absl::Status Commit();
  // Gives the whole pages of [data, data + size) back; they are zero when they are used again.
  static void ReleasePages(std::byte* data, size_t size);

  // What the machine and the cgroup have left, less what was allocated here and not touched yet.
  size_t AvailableBytes() const;

 private:
  struct Books {
    std::mutex mutex;
    std::map<std::byte*, size_t> mappings;  // of huge pages; guarded by mutex
    std::atomic<size_t> allocated_bytes{0};
  };

  const std::shared_ptr<Books> books_ = std::make_shared<Books>();
};

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_HOST_MEMORY_H_
