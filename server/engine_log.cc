#include "server/engine_log.h"

#include <spdlog/spdlog.h>

namespace cadre {

void EngineLog::OnExpertFaults(const ExpertFaults& faults) {
  for (const FaultLog::Line& line : fault_log_.Observe(faults, clock_.Now())) {
    spdlog::log(line.is_warning ? spdlog::level::warn : spdlog::level::info, "{}", line.text);
  }
  next_->OnExpertFaults(faults);
}

}  // namespace cadre
