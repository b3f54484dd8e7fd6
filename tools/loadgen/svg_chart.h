// Line charts as SVG, without any library.
#ifndef CADRE_TOOLS_LOADGEN_SVG_CHART_H_
#define CADRE_TOOLS_LOADGEN_SVG_CHART_H_

#include <string>
#include <vector>

namespace cadre {

struct ChartPoint {
  double x = 0.0;
  double y = 0.0;  // not finite: the line has a gap here
};

struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;  // x ascending
};

// One coordinate system. The y axis starts at zero, or is logarithmic, where what is not positive is a gap.
struct ChartPanel {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<ChartSeries> series;
  bool log_y = false;
  double x_high = 0.0;  // end of the x axis; 0: that of the data
};

// The panels below each other under a title. The result is one well-formed XML document, whatever the texts and numbers
// are.
std::string RenderSvg(const std::string& title, const std::vector<ChartPanel>& panels);

// Round values that divide [0, high] into `parts` or a few more steps; the last is at least `high`. For high > 0.
std::vector<double> NiceTicks(double high, int parts);

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_SVG_CHART_H_
