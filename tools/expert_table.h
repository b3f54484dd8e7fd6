// Expert statistics as text for a terminal.
#ifndef CADRE_TOOLS_EXPERT_TABLE_H_
#define CADRE_TOOLS_EXPERT_TABLE_H_

#include <string>

#include "cadre/v1/expert_service.pb.h"

namespace cadre {

// One line for each layer (more where the experts do not fit into `columns`): router health, and a bar for each expert
// whose height is its load against the mean of the layer.
std::string FormatExpertTable(const v1::ExpertStats& stats, bool total, int columns);

// One line for each expert of a layer: assignments by state, share of the load, gate weight. `layer` must be one of
// stats.total() or stats.window().
std::string FormatLayerTable(const v1::ExpertStats& stats, const v1::LayerStats& layer, bool total, int columns);

}  // namespace cadre

#endif  // CADRE_TOOLS_EXPERT_TABLE_H_
