// What this process may use of the machine: CPUs and memory, as the kernel and the container's cgroup (v1 or v2) say.
#ifndef CADRE_KERNELS_CPU_HOST_LIMITS_H_
#define CADRE_KERNELS_CPU_HOST_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace cadre {

// Where the kernel's files are; tests point it at a folder of their own.
struct HostFiles {
  std::string proc = "/proc";
  std::string cgroup = "/sys/fs/cgroup";
};

// CPUs of the affinity mask, bounded by the cgroup's CPU quota rounded up; at least 1.
int UsableCpus(const HostFiles& files = {});

// The tightest CPU quota on the way from the process's cgroup to the root, in CPUs; absent when there is none.
std::optional<double> CgroupCpuQuota(const HostFiles& files = {});

// Bytes that can be allocated without swapping or being killed: MemAvailable, bounded by the room left in each cgroup
// on the way to the root. Page cache in a cgroup counts as room.
size_t AvailableMemoryBytes(const HostFiles& files = {});

// Anonymous memory of this process that is backed by pages.
size_t ResidentAnonymousBytes(const HostFiles& files = {});

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_HOST_LIMITS_H_
