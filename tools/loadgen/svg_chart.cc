#include "tools/loadgen/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cadre {
namespace {

// Sizes in SVG units, which are pixels at the natural size.
constexpr double kWidth = 900.0;
constexpr double kPanelHeight = 260.0;
constexpr double kHeaderHeight = 44.0;
constexpr double kLeft = 78.0;
constexpr double kRight = 150.0;  // the legend
constexpr double kTop = 34.0;
constexpr double kBottom = 46.0;
constexpr int kXParts = 8;
constexpr int kYParts = 4;
constexpr int kMaxDecades = 12;  // what is smaller lies on the axis

// Okabe and Ito's colors, which people with any color vision tell apart.
constexpr const char* kColors[] = {"#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000"};

std::string Escape(const std::string& text) {
  std::string safe;
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&') {
      safe += "&amp;";
    } else if (c == '<') {
      safe += "&lt;";
    } else if (c == '>') {
      safe += "&gt;";
    } else if (byte < 0x20 || byte >= 0x7f) {
      safe += '?';  // XML has no way to write most of them
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string Text(double x, double y, const char* anchor, int size, const std::string& text) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">%s</text>\n", x, y, anchor,
                         size, Escape(text));
}

std::string Line(double x1, double y1, double x2, double y2, const char* color) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2,
                         color);
}

// Where values are on the page.
struct Axes {
  double x_low = 0.0, x_high = 1.0;
  double y_low = 0.0, y_high = 1.0;
  std::vector<double> x_ticks, y_ticks;
  double top = 0.0;  // of the plotting area
  bool log_y = false;

  double bottom() const { return top + kPanelHeight - kTop - kBottom; }
  double X(double x) const { return kLeft + (x - x_low) / (x_high - x_low) * (kWidth - kLeft - kRight); }
  double Y(double y) const {
    const double share = log_y ? (std::log10(y) - std::log10(y_low)) / (std::log10(y_high) - std::log10(y_low))
                               : (y - y_low) / (y_high - y_low);
    return bottom() - std::clamp(share, 0.0, 1.0) * (bottom() - top);
  }
};

bool IsDrawn(const ChartPoint& point, bool log_y) {
  return std::isfinite(point.x) && std::isfinite(point.y) && (!log_y || point.y > 0.0);
}

Axes MakeAxes(const ChartPanel& panel, double top) {
  double x_high = std::isfinite(panel.x_high) ? panel.x_high : 0.0;
  double y_high = 0.0;
  double y_low = 1e300;
  for (const ChartSeries& series : panel.series) {
    for (const ChartPoint& point : series.points) {
      if (!IsDrawn(point, panel.log_y)) continue;
      x_high = std::max(x_high, point.x);
      y_high = std::max(y_high, point.y);
      y_low = std::min(y_low, point.y);
    }
  }
  Axes axes;
  axes.top = top + kTop;
  axes.log_y = panel.log_y && y_high > 0.0;
  axes.x_ticks = NiceTicks(x_high > 0.0 ? x_high : 1.0, kXParts);
  axes.x_high = x_high > 0.0 ? x_high : 1.0;
  if (axes.log_y) {
    const int last = static_cast<int>(std::ceil(std::log10(y_high)));
    const int first = std::clamp(static_cast<int>(std::floor(std::log10(y_low))), last - kMaxDecades, last - 1);
    for (int power = first; power <= last; ++power) axes.y_ticks.push_back(std::pow(10.0, power));
    axes.y_low = axes.y_ticks.front();
  } else {
    axes.y_ticks = NiceTicks(y_high > 0.0 ? y_high : 1.0, kYParts);
  }
  axes.y_high = axes.y_ticks.back();
  return axes;
}

std::string Grid(const ChartPanel& panel, const Axes& axes) {
  std::string svg;
  for (double y : axes.y_ticks) {
    absl::StrAppend(&svg, Line(kLeft, axes.Y(y), kWidth - kRight, axes.Y(y), "#dddddd"));
    absl::StrAppend(&svg, Text(kLeft - 8, axes.Y(y) + 4, "end", 12, absl::StrFormat("%g", y)));
  }
  for (double x : axes.x_ticks) {
    if (x > axes.x_high) continue;
    absl::StrAppend(&svg, Line(axes.X(x), axes.bottom(), axes.X(x), axes.bottom() + 4, "#555555"));
    absl::StrAppend(&svg, Text(axes.X(x), axes.bottom() + 18, "middle", 12, absl::StrFormat("%g", x)));
  }
  absl::StrAppend(&svg, Line(kLeft, axes.bottom(), kWidth - kRight, axes.bottom(), "#555555"));
  const double middle = (kLeft + kWidth - kRight) / 2;
  absl::StrAppend(&svg, Text(middle, axes.bottom() + 36, "middle", 12, panel.x_label));
  absl::StrAppend(&svg, Text(kLeft, axes.top - 12, "start", 14, panel.title));
  absl::StrAppendFormat(&svg,
                        "<text transform=\"translate(18 %.1f) rotate(-90)\" text-anchor=\"middle\" "
                        "font-size=\"12\">%s</text>\n",
                        (axes.top + axes.bottom()) / 2, Escape(panel.y_label));
  return svg;
}

// Each run of drawn points is a line; a point alone is a dot.
std::string SeriesPath(const ChartSeries& series, const Axes& axes, const char* color) {
  std::string svg;
  std::string run;
  int run_points = 0;
  ChartPoint last;
  const auto end_run = [&] {
    if (run_points == 1) {
      absl::StrAppendFormat(&svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", axes.X(last.x),
                            axes.Y(last.y), color);
    } else if (run_points > 1) {
      absl::StrAppendFormat(&svg,
                            "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\" "
                            "stroke-linejoin=\"round\"/>\n",
                            run, color);
    }
    run.clear();
    run_points = 0;
  };
  for (const ChartPoint& point : series.points) {
    if (!IsDrawn(point, axes.log_y)) {
      end_run();
      continue;
    }
    absl::StrAppendFormat(&run, "%s%.1f,%.1f", run_points > 0 ? " " : "", axes.X(point.x), axes.Y(point.y));
    ++run_points;
    last = point;
  }
  end_run();
  return svg;
}

std::string RenderPanel(const ChartPanel& panel, double top) {
  const Axes axes = MakeAxes(panel, top);
  std::string svg = Grid(panel, axes);
  for (size_t i = 0; i < panel.series.size(); ++i) {
    const char* color = kColors[i % std::size(kColors)];
    absl::StrAppend(&svg, SeriesPath(panel.series[i], axes, color));
    const double y = axes.top + 8 + 20 * static_cast<double>(i);
    absl::StrAppendFormat(&svg, "<rect x=\"%.1f\" y=\"%.1f\" width=\"18\" height=\"3\" fill=\"%s\"/>\n",
                          kWidth - kRight + 14, y - 1.5, color);
    absl::StrAppend(&svg, Text(kWidth - kRight + 38, y + 4, "start", 12, panel.series[i].name));
  }
  return svg;
}

}  // namespace

std::vector<double> NiceTicks(double high, int parts) {
  const double raw = high / parts;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = power;
  // The widest of 1, 2, 5 x 10^n that still gives so many parts.
  for (double factor : {2.0, 5.0}) {
    if (factor * power <= raw * (1 + 1e-9)) step = factor * power;
  }
  std::vector<double> ticks;
  if (!std::isnormal(step) || !std::isfinite(high + step)) return {0.0, high};
  for (int i = 0; ticks.empty() || ticks.back() < high * (1 - 1e-9); ++i) ticks.push_back(i * step);
  return ticks;
}

std::string RenderSvg(const std::string& title, const std::vector<ChartPanel>& panels) {
  const double height = kHeaderHeight + kPanelHeight * static_cast<double>(panels.size());
  std::string svg = absl::StrFormat(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" "
      "height=\"%g\" viewBox=\"0 0 %g %g\" font-family=\"sans-serif\" fill=\"#222222\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
      kWidth, height, kWidth, height);
  absl::StrAppend(&svg, Text(kLeft, 28, "start", 16, title));
  for (size_t i = 0; i < panels.size(); ++i) {
    absl::StrAppend(&svg, RenderPanel(panels[i], kHeaderHeight + kPanelHeight * static_cast<double>(i)));
  }
  return svg + "</svg>\n";
}

}  // namespace cadre
