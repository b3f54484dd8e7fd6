#include "server/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <system_error>

namespace cadre {
namespace {

// Fields of /proc/self/stat by their numbers in proc(5).
constexpr int kStatStartTime = 22;  // clock ticks after boot
constexpr int kStatResident = 24;   // pages

// Field `number` >= 3; 0 when it is not there. The second field, the program's name in parentheses, may itself hold
// spaces and parentheses: counting starts after the last one.
int64_t StatField(const std::string& stat, int number) {
  size_t begin = stat.rfind(')');
  for (int field = 2; field < number; ++field) {
    if (begin == std::string::npos) return 0;
    begin = stat.find(' ', begin + 1);
  }
  if (begin == std::string::npos) return 0;
  return std::strtoll(stat.c_str() + begin, nullptr, 10);
}

// Unix time of the boot: the line "btime N" of /proc/stat.
double BootTimeSeconds() {
  std::ifstream file("/proc/stat");
  std::string word;
  double seconds = 0.0;
  while (file >> word) {
    if (word == "btime" && file >> seconds) return seconds;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0.0;
}

int64_t CountOpenFds() {
  std::error_code error;
  int64_t count = 0;
  std::filesystem::directory_iterator it("/proc/self/fd", error);
  while (!error && it != std::filesystem::directory_iterator()) {
    ++count;
    it.increment(error);
  }
  return count > 0 ? count - 1 : 0;  // one of them is the directory being read
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

}  // namespace

ProcessStats ReadProcessStats() {
  ProcessStats stats;
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) stats.cpu_seconds = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    const rlim_t largest = std::numeric_limits<int64_t>::max();
    stats.max_fds = static_cast<int64_t>(limit.rlim_cur < largest ? limit.rlim_cur : largest);
  }
  stats.open_fds = CountOpenFds();

  std::ifstream file("/proc/self/stat");
  std::string stat;
  if (std::getline(file, stat)) {
    stats.resident_bytes = StatField(stat, kStatResident) * sysconf(_SC_PAGESIZE);
    static const double boot_time = BootTimeSeconds();
    stats.start_time_seconds =
        boot_time + static_cast<double>(StatField(stat, kStatStartTime)) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  return stats;
}

}  // namespace cadre
