// What the kernel knows of this process.
#ifndef CADRE_SERVER_PROCESS_STATS_H_
#define CADRE_SERVER_PROCESS_STATS_H_

#include <cstdint>

namespace cadre {

// Zero where the kernel does not tell.
struct ProcessStats {
  double cpu_seconds = 0.0;  // user and system
  int64_t resident_bytes = 0;
  int64_t open_fds = 0;
  int64_t max_fds = 0;              // soft limit
  double start_time_seconds = 0.0;  // since the Unix epoch
};

// Reads /proc/self. Any thread.
ProcessStats ReadProcessStats();

}  // namespace cadre

#endif  // CADRE_SERVER_PROCESS_STATS_H_
