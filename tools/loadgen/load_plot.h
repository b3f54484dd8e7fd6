// Load reports as charts.
#ifndef CADRE_TOOLS_LOADGEN_LOAD_PLOT_H_
#define CADRE_TOOLS_LOADGEN_LOAD_PLOT_H_

#include <string>
#include <vector>

#include "tools/loadgen/load_report.h"

namespace cadre {

// Of one run: latency percentiles and rates over time.
std::string PlotOverTime(const LoadReport& report, const std::string& title);
// Of one run: the share of requests and tokens up to each latency.
std::string PlotDistribution(const LoadReport& report, const std::string& title);
// Of several runs: latency percentiles and rates over the offered rate.
std::string PlotSweep(const std::vector<LoadReport>& reports, const std::string& title);

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LOAD_PLOT_H_
