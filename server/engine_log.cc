#include "server/engine_log.h"

#include <spdlog/spdlog.h>

namespace cadre {

void EngineLog::OnExpertFaults(const ExpertFaults& faults) {
  for (const ExpertFault& fault : faults.told) {
    if (fault.pause == absl::ZeroDuration()) {
      spdlog::info("{} can be read again", fault.message);
    } else {
      spdlog::warn("{}; it is left alone for {}", fault.message, absl::FormatDuration(fault.pause));
    }
  }
  if (faults.num_more > 0) spdlog::warn("the same of {} more experts", faults.num_more);
  next_->OnExpertFaults(faults);
}

}  // namespace cadre
