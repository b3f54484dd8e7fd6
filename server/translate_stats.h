// Expert statistics on the wire.
#ifndef CADRE_SERVER_TRANSLATE_STATS_H_
#define CADRE_SERVER_TRANSLATE_STATS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cadre/v1/expert_service.pb.h"
#include "engine/experts/expert_stats.h"
#include "engine/tenant_ledger.h"
#include "server/model_card.h"

namespace cadre {

// What part of a snapshot is wanted.
struct StatsSelection {
  bool total = true;
  bool window = true;
  bool experts = true;          // the lists by expert, or router health alone
  bool as_matrix = false;       // those lists as one matrix
  std::vector<int32_t> layers;  // indices of MoE layers, rising
};

// INVALID_ARGUMENT names a layer that is not a MoE layer of the model, more layers than it has, or an unknown scope.
absl::StatusOr<StatsSelection> SelectStats(v1::StatsScope scope, const google::protobuf::RepeatedField<int32_t>& layers,
                                           bool experts, const ModelCard& card);

// `total` [num_layers]: the snapshot's, or a part of them. `time`: when the snapshot was taken.
void FillExpertStats(const ExpertSnapshot& snapshot, const std::vector<LayerCounters>& total,
                     const StatsSelection& selection, const ModelCard& card, absl::Time time, v1::ExpertStats* stats);

void FillTenant(const TenantRouting& tenant, v1::TenantStats* wire);

// `now` - `before`, counter by counter; all of `now` when `before` is empty. Of counters that are never set back.
std::vector<LayerCounters> Difference(const std::vector<LayerCounters>& now, const std::vector<LayerCounters>& before);

}  // namespace cadre

#endif  // CADRE_SERVER_TRANSLATE_STATS_H_
