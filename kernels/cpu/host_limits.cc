#include "kernels/cpu/host_limits.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

namespace cadre {
namespace {

std::optional<std::string> FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

// A whole number at the start of a file; absent for "max", "-1" and missing files.
std::optional<uint64_t> ReadNumber(const std::string& path) {
  const std::optional<std::string> line = FirstLine(path);
  if (!line || line->empty() || (*line)[0] < '0' || (*line)[0] > '9') return std::nullopt;
  return std::strtoull(line->c_str(), nullptr, 10);
}

// The value of `key` in a file of lines "key value" or "key: value unit".
std::optional<uint64_t> ReadField(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    uint64_t value = 0;
    if (!(words >> name >> value)) continue;
    if (name.ends_with(':')) name.pop_back();
    if (name == key) return value;
  }
  return std::nullopt;
}

// Of a memory cgroup; the kernel takes all of it back before it ends a process.
uint64_t PageCache(const std::string& folder, std::string_view inactive, std::string_view active) {
  const std::string path = folder + "/memory.stat";
  return ReadField(path, inactive).value_or(0) + ReadField(path, active).value_or(0);
}

// Whether a comma-separated list has `word`.
bool ListHas(const std::string& list, std::string_view word) {
  std::istringstream words(list);
  std::string item;
  while (std::getline(words, item, ',')) {
    if (item == word) return true;
  }
  return false;
}

// The cgroup folders from the process's own up to the mount of `controller`; "" means version 2. Inside a container the
// path of /proc/self/cgroup may not exist in the container's view: the mount itself is then the process's cgroup.
std::vector<std::string> CgroupFolders(const HostFiles& files, std::string_view controller) {
  std::ifstream file(files.proc + "/self/cgroup");
  std::string id;
  std::string controllers;
  std::string path;
  while (std::getline(file, id, ':') && std::getline(file, controllers, ':') && std::getline(file, path)) {
    if (controller.empty() ? !controllers.empty() : !ListHas(controllers, controller)) continue;
    const std::string mount = controller.empty() ? files.cgroup : files.cgroup + "/" + std::string(controller);
    std::vector<std::string> folders;
    for (; path.size() > 1 && path[0] == '/'; path.resize(path.rfind('/'))) folders.push_back(mount + path);
    folders.push_back(mount);
    return folders;
  }
  return {};
}

}  // namespace

std::optional<double> CgroupCpuQuota(const HostFiles& files) {
  std::optional<double> tightest;
  const auto tighten = [&tightest](double cpus) { tightest = std::min(cpus, tightest.value_or(cpus)); };
  for (const std::string& folder : CgroupFolders(files, "")) {
    const std::optional<std::string> line = FirstLine(folder + "/cpu.max");
    if (!line) continue;
    std::istringstream words(*line);
    double quota = 0;
    double period = 0;
    if (words >> quota >> period && quota > 0 && period > 0) tighten(quota / period);
  }
  for (const std::string& folder : CgroupFolders(files, "cpu")) {
    const std::optional<uint64_t> quota = ReadNumber(folder + "/cpu.cfs_quota_us");
    const std::optional<uint64_t> period = ReadNumber(folder + "/cpu.cfs_period_us");
    if (quota && period && *quota > 0 && *period > 0) {
      tighten(static_cast<double>(*quota) / static_cast<double>(*period));
    }
  }
  return tightest;
}

int UsableCpus(const HostFiles& files) {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) cpus = CPU_COUNT(&mask);
  if (const std::optional<double> quota = CgroupCpuQuota(files)) {
    cpus = std::min(cpus, static_cast<int>(std::min(std::ceil(*quota), 1e6)));
  }
  return std::max(cpus, 1);
}

size_t AvailableMemoryBytes(const HostFiles& files) {
  uint64_t available = std::numeric_limits<uint64_t>::max();
  if (const std::optional<uint64_t> kib = ReadField(files.proc + "/meminfo", "MemAvailable")) available = *kib * 1024;
  const auto bound = [&available](std::optional<uint64_t> limit, std::optional<uint64_t> usage, uint64_t reclaimable) {
    if (!limit || !usage) return;
    const uint64_t used = *usage - std::min(*usage, reclaimable);
    available = std::min(available, *limit - std::min(*limit, used));
  };
  for (const std::string& folder : CgroupFolders(files, "")) {
    bound(ReadNumber(folder + "/memory.max"), ReadNumber(folder + "/memory.current"),
          PageCache(folder, "inactive_file", "active_file"));
  }
  for (const std::string& folder : CgroupFolders(files, "memory")) {
    bound(ReadNumber(folder + "/memory.limit_in_bytes"), ReadNumber(folder + "/memory.usage_in_bytes"),
          PageCache(folder, "total_inactive_file", "total_active_file"));
  }
  return available;
}

size_t ResidentAnonymousBytes(const HostFiles& files) {
  return ReadField(files.proc + "/self/status", "RssAnon").value_or(0) * 1024;
}

}  // namespace cadre
