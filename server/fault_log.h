// What the log is told of experts that cannot be read: each one while they are few, and the rest in numbers. A disk
// that gives nothing back, under a model of thousands of experts, fills no log.
#ifndef CADRE_SERVER_FAULT_LOG_H_
#define CADRE_SERVER_FAULT_LOG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/experts/expert_cache.h"

namespace cadre {

class FaultLog {
 public:
  // Lines in a row, ...
  static constexpr int64_t kMostLines = 32;
  // ... of which one comes back after so long: six a minute in the long run.
  static constexpr absl::Duration kPauseForALine = absl::Seconds(10);

  struct Line {
    bool is_warning = true;
    std::string text;
  };

  // What is to be said. `now` does not go back. One thread.
  std::vector<Line> Observe(const ExpertFaults& faults, absl::Time now);

 private:
  // False, once told of, where there have been too many.
  bool MayTell(std::vector<Line>* lines);

  double lines_left_ = static_cast<double>(kMostLines);
  absl::Time last_ = absl::InfinitePast();
  int64_t num_untold_ = 0;
  bool is_flooded_ = false;  // and that was told
};

}  // namespace cadre

#endif  // CADRE_SERVER_FAULT_LOG_H_
