// A load report for people, and for programs.
#ifndef CADRE_TOOLS_LOADGEN_LOAD_TEXT_H_
#define CADRE_TOOLS_LOADGEN_LOAD_TEXT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/loadgen/latency_targets.h"
#include "tools/loadgen/load_report.h"

namespace cadre {

// Counts, rates, percentiles and a histogram of the time to first token, in at most `columns` columns.
std::string FormatLoadReport(const LoadReport& report, const LatencyTargets& targets, int columns);

// One line for each report, for runs at several rates.
std::string FormatSweep(const std::vector<LoadReport>& reports);

// Bars of the values of `histogram`, in rows of equal ratio from its smallest to its largest.
std::string FormatHistogram(const LatencyHistogram& histogram, const std::string& title, int columns);

// Everything in the report; times in milliseconds, names as in the documentation of `cadre bench`.
nlohmann::ordered_json LoadReportJson(const LoadReport& report);

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LOAD_TEXT_H_
