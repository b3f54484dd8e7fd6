// The rules between lists, block tables and pool: Scheduler::Audit.
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/schedule/scheduler.h"

namespace cadre {

absl::Status Scheduler::AuditSequence(const Sequence& sequence, std::vector<int32_t>* holders) const {
  const int64_t covered = sequence.num_computed_tokens() + sequence.num_scheduled_tokens();
  if (static_cast<int32_t>(sequence.block_table().size()) != BlocksFor(covered)) {
    return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " has ", sequence.block_table().size(),
                                            " blocks for ", covered, " tokens"));
  }
  for (int32_t block : sequence.block_table()) {
    if (block < 0 || block >= pool_->num_total()) {
      return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " holds unknown block ", block));
    }
    ++(*holders)[static_cast<size_t>(block)];
  }
  if (covered > sequence.num_tokens() ||
      (sequence.state() == SequenceState::kDecode && sequence.num_uncomputed_tokens() != 1)) {
    return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " in state ",
                                            ToAbsl(SequenceStateName(sequence.state())), " has ", covered, " of ",
                                            sequence.num_tokens(), " tokens computed or scheduled"));
  }
  if (sequence.num_preemptions() > kMaxPreemptions) {
    return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " was preempted ", sequence.num_preemptions(),
                                            " times, limit is ", kMaxPreemptions));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::AuditPlaces() const {
  const auto audit_list = [](const std::vector<Entry*>& list, Place place) -> absl::Status {
    const Entry* previous = nullptr;
    for (const Entry* entry : list) {
      const Sequence& sequence = *entry->sequence;
      const bool waits = sequence.state() == SequenceState::kWaiting;
      if (entry->place != place || waits != (place != Place::kRunning) ||
          sequence.state() == SequenceState::kFinished) {
        return absl::InternalError(absl::StrCat("sequence ", sequence.id(), " is in the wrong list for state ",
                                                ToAbsl(SequenceStateName(sequence.state()))));
      }
      const bool is_ordered = place == Place::kRunning || place == Place::kPreempted;
      if (is_ordered && previous != nullptr && entry->seniority <= previous->seniority) {
        return absl::InternalError(
            absl::StrCat("sequence ", sequence.id(), " stands behind ", previous->sequence->id()));
      }
      previous = entry;
    }
    return absl::OkStatus();
  };
  CADRE_RETURN_IF_ERROR(audit_list(running_, Place::kRunning));
  CADRE_RETURN_IF_ERROR(audit_list(preempted_, Place::kPreempted));
  size_t num_listed = running_.size() + preempted_.size() + static_cast<size_t>(fair_queue_.size());
  for (const auto& [leader, siblings] : parked_) {
    CADRE_RETURN_IF_ERROR(audit_list(siblings, Place::kParked));
    num_listed += siblings.size();
    const auto it = entries_.find(leader);
    if (it == entries_.end() || it->second.sequence->num_generated_tokens() > 0) {
      return absl::InternalError(absl::StrCat("sequences wait for ", leader, ", which is done with its prompt"));
    }
  }
  if (num_listed != entries_.size()) {
    return absl::InternalError(absl::StrCat(entries_.size(), " sequences are known, ", num_listed, " in lists"));
  }
  if (num_running() > options_.max_num_seqs) {
    return absl::InternalError(absl::StrCat(num_running(), " sequences run, limit is ", options_.max_num_seqs));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::AuditHolders() const {
  std::vector<int32_t> holders(static_cast<size_t>(pool_->num_total()), 0);
  for (const auto& [id, entry] : entries_) CADRE_RETURN_IF_ERROR(AuditSequence(*entry.sequence, &holders));
  for (const std::vector<int32_t>& blocks : retired_) {
    for (int32_t block : blocks) ++holders[static_cast<size_t>(block)];
  }
  for (int32_t block = 0; block < pool_->num_total(); ++block) {
    if (pool_->ref_count(block) != holders[static_cast<size_t>(block)]) {
      return absl::InternalError(absl::StrCat("block ", block, " counts ", pool_->ref_count(block), " holders, ",
                                              holders[static_cast<size_t>(block)], " sequences hold it"));
    }
  }
  return absl::OkStatus();
}

absl::Status Scheduler::Audit() const {
  CADRE_RETURN_IF_ERROR(AuditPlaces());
  CADRE_RETURN_IF_ERROR(AuditHolders());
  CADRE_RETURN_IF_ERROR(pool_->Audit());
  CADRE_RETURN_IF_ERROR(cache_.Audit());
  return fair_queue_.Audit();
}

}  // namespace cadre
