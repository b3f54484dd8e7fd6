#include "server/engine_log.h"

#include <spdlog/spdlog.h>

#include <string>

namespace cadre {

void EngineLog::OnExpertFaults(const ExpertFaults& faults) {
  for (const FaultLog::Line& line : fault_log_.Observe(faults, clock_.Now())) {
    spdlog::log(line.is_warning ? spdlog::level::warn : spdlog::level::info, "{}", line.text);
  }
  next_->OnExpertFaults(faults);
}

void EngineLog::OnMemoryMove(const MemoryMove& move, const JointBudgetReport& report) {
  if (move.status.ok()) {
    spdlog::info(
        "memory split: {} -> {} experts, {} -> {} KV blocks; in {} of work a step more was worth {:.3f} s to experts "
        "and {:.3f} s to KV blocks",
        move.from.slots, move.to.slots, move.from.blocks, move.to.blocks, absl::FormatDuration(report.stretch),
        report.effects.slots_gain, report.effects.blocks_gain);
  } else {
    spdlog::warn("memory split: {} -> {} experts, {} -> {} KV blocks: a move could not be carried out: {}",
                 move.from.slots, move.to.slots, move.from.blocks, move.to.blocks, std::string(move.status.message()));
  }
  next_->OnMemoryMove(move, report);
}

}  // namespace cadre
