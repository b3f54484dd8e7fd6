// Tells in the log how far the cache is with experts that are loaded before a step asks for them.
#ifndef CADRE_SERVER_PLACING_LOG_H_
#define CADRE_SERVER_PLACING_LOG_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "engine/experts/expert_cache.h"

namespace cadre {

class PlacingLog {
 public:
  // The line that is due: when there is something to load, now and then while there is, and when there is no more.
  std::optional<std::string> Observe(const ExpertCacheReport& report, absl::Time now);

 private:
  bool is_under_way_ = false;
  absl::Time begin_;
  absl::Time next_;
  absl::Duration pause_;
  int64_t read_before_ = 0;
};

}  // namespace cadre

#endif  // CADRE_SERVER_PLACING_LOG_H_
