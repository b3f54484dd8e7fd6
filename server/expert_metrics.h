// Routing and experts as metric families: totals, router health over layers and per layer, the hottest and coldest
// experts, and the matrix of layer x expert. All of one page come from one ExpertSnapshot. `moe_layers` are the indices
// in the model of the snapshot's layers; what a page calls a layer is one of them.
#ifndef CADRE_SERVER_EXPERT_METRICS_H_
#define CADRE_SERVER_EXPERT_METRICS_H_

#include <cstdint>
#include <vector>

#include "engine/experts/expert_placement.h"
#include "engine/experts/expert_stats.h"
#include "engine/tenant_ledger.h"
#include "server/metric_page.h"

namespace cadre {

// Sample lines that one layer adds with WriteLayers.
inline constexpr int64_t kSampleLinesPerLayer = 17;

// An expert's load in the window, divided by the mean load of its layer. 1 in a layer without tokens.
struct ExpertLoad {
  int32_t layer = 0;  // in the snapshot
  int32_t expert = 0;
  double ratio = 1.0;
};

// The `count` hottest experts (fewer where the model has fewer), hottest first, or with `coldest` the coldest, coldest
// first. Ties go to the lower layer, then to the lower expert.
std::vector<ExpertLoad> ExtremeExperts(const ExpertSnapshot& snapshot, int count, bool coldest);

// Totals over layers: tokens, and assignments by state.
void WriteRoutingTotals(const ExpertSnapshot& snapshot, MetricPage& page);
// Mean over layers and the worst layer, in the window.
void WriteRouterHealth(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page);
// Ranks 1 and 2 at both ends.
void WriteExtremeExperts(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page);
// What the expert cache has done for each layer, and where its experts are.
void WriteCacheLayers(const ExpertPlacement& placement, const std::vector<int32_t>& moe_layers, MetricPage& page);
// Health and totals of every layer.
void WriteLayers(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page);
// Assignments by state, gate weight and what was lost of it, of every expert: 6 lines each.
void WriteExpertMatrix(const ExpertSnapshot& snapshot, const std::vector<int32_t>& moe_layers, MetricPage& page);
// The same of every tenant.
void WriteTenants(const std::vector<TenantRouting>& tenants, MetricPage& page);

}  // namespace cadre

#endif  // CADRE_SERVER_EXPERT_METRICS_H_
