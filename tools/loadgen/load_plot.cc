#include "tools/loadgen/load_plot.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "tools/loadgen/svg_chart.h"

namespace cadre {
namespace {

constexpr double kMillisecondsPerNanosecond = 1e-6;
constexpr double kGap = std::numeric_limits<double>::quiet_NaN();
// A chart of values further apart than this is drawn logarithmically.
constexpr double kLogRatio = 50.0;
constexpr size_t kMaxTimePoints = 60;

struct Quantile {
  const char* name;
  double q;
};
constexpr Quantile kQuantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}};

double QuantileMs(const LatencyHistogram& histogram, double q) {
  if (histogram.count() == 0) return kGap;
  return static_cast<double>(histogram.Quantile(q)) * kMillisecondsPerNanosecond;
}

void ChooseScale(ChartPanel& panel) {
  double low = std::numeric_limits<double>::infinity();
  double high = 0.0;
  for (const ChartSeries& series : panel.series) {
    for (const ChartPoint& point : series.points) {
      if (!(point.y > 0.0)) continue;
      low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
  }
  panel.log_y = high > low * kLogRatio;
}

// One line for each quantile; `xs` and `at` give the place and the histogram of each point.
ChartPanel QuantilePanel(const char* title, const char* x_label, const std::vector<double>& xs,
                         const std::function<const LatencyHistogram&(size_t)>& at) {
  ChartPanel panel{.title = title, .x_label = x_label, .y_label = "ms", .series = {}};
  for (const Quantile& quantile : kQuantiles) {
    ChartSeries series{.name = quantile.name, .points = {}};
    for (size_t i = 0; i < xs.size(); ++i) series.points.push_back({xs[i], QuantileMs(at(i), quantile.q)});
    panel.series.push_back(std::move(series));
  }
  ChooseScale(panel);
  return panel;
}

ChartSeries MakeSeries(const char* name, const std::vector<double>& xs, const std::function<double(size_t)>& at) {
  ChartSeries series{.name = name, .points = {}};
  for (size_t i = 0; i < xs.size(); ++i) series.points.push_back({xs[i], at(i)});
  return series;
}

// The share of values up to each, of at most so many points.
ChartSeries Distribution(const char* name, const LatencyHistogram& histogram) {
  constexpr int kPoints = 400;
  ChartSeries series{.name = name, .points = {}};
  for (int i = 0; i <= kPoints && histogram.count() > 0; ++i) {
    const double q = static_cast<double>(i) / kPoints;
    series.points.push_back({QuantileMs(histogram, q), 100.0 * q});
  }
  return series;
}

// Each `width` slots as one.
std::vector<TimelineSlot> Widen(const std::vector<TimelineSlot>& slots, size_t width) {
  std::vector<TimelineSlot> wide((slots.size() + width - 1) / width);
  for (size_t i = 0; i < slots.size(); ++i) wide[i / width].Add(slots[i]);
  return wide;
}

}  // namespace

std::string PlotOverTime(const LoadReport& report, const std::string& title) {
  const char* const x_label = "seconds since the start (warm-up included)";
  const size_t width = (report.timeline.size() + kMaxTimePoints - 1) / kMaxTimePoints;
  const std::vector<TimelineSlot> slots = Widen(report.timeline, std::max<size_t>(1, width));
  const double slot_seconds = report.slot_seconds * static_cast<double>(std::max<size_t>(1, width));
  std::vector<double> xs;
  xs.reserve(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) xs.push_back((static_cast<double>(i) + 0.5) * slot_seconds);
  const auto rate = [&](int64_t count) { return static_cast<double>(count) / slot_seconds; };
  ChartPanel requests{
      .title = "Requests by when they should have been sent", .x_label = x_label, .y_label = "1/s", .series = {}};
  requests.series = {MakeSeries("sent", xs, [&](size_t i) { return rate(slots[i].requests.sent); }),
                     MakeSeries("completed", xs, [&](size_t i) { return rate(slots[i].requests.completed); }),
                     MakeSeries("rejected", xs, [&](size_t i) { return rate(slots[i].requests.rejected); }),
                     MakeSeries("failed", xs, [&](size_t i) { return rate(slots[i].requests.failed); })};
  ChartPanel tokens{.title = "Output tokens", .x_label = x_label, .y_label = "1/s", .series = {}};
  tokens.series = {MakeSeries("tokens", xs, [&](size_t i) { return rate(slots[i].output_tokens); })};
  std::vector<ChartPanel> panels = {
      QuantilePanel(
          "Time to first token", x_label, xs, [&](size_t i) -> auto& { return slots[i].ttft; }),
      QuantilePanel(
          "Inter-token latency", x_label, xs, [&](size_t i) -> auto& { return slots[i].itl; }),
      QuantilePanel(
          "End to end", x_label, xs, [&](size_t i) -> auto& { return slots[i].e2e; }),
      requests, tokens};
  for (ChartPanel& panel : panels) panel.x_high = static_cast<double>(slots.size()) * slot_seconds;
  return RenderSvg(title, panels);
}

std::string PlotDistribution(const LoadReport& report, const std::string& title) {
  const auto panel = [](const char* name, std::vector<ChartSeries> series) {
    return ChartPanel{.title = name, .x_label = "ms", .y_label = "% at most", .series = std::move(series)};
  };
  return RenderSvg(title, {panel("Time to first token", {Distribution("ttft", report.ttft)}),
                           panel("Inter-token latency", {Distribution("itl", report.itl)}),
                           panel("End to end", {Distribution("e2e", report.e2e)})});
}

std::string PlotSweep(const std::vector<LoadReport>& reports, const std::string& title) {
  const char* const x_label = "offered requests/s";
  std::vector<double> xs;
  xs.reserve(reports.size());
  for (const LoadReport& report : reports) xs.push_back(report.offered_rate);
  const auto per_second = [&](size_t i, int64_t count) { return reports[i].PerSecond(count); };
  ChartPanel requests{.title = "Requests", .x_label = x_label, .y_label = "1/s", .series = {}};
  requests.series = {
      MakeSeries("completed", xs, [&](size_t i) { return per_second(i, reports[i].completed_in_window); }),
      MakeSeries("good", xs, [&](size_t i) { return per_second(i, reports[i].good); }),
      MakeSeries("rejected", xs, [&](size_t i) { return per_second(i, reports[i].requests.rejected); }),
      MakeSeries("failed", xs, [&](size_t i) { return per_second(i, reports[i].requests.failed); })};
  return RenderSvg(title, {QuantilePanel(
                               "Time to first token", x_label, xs, [&](size_t i) -> auto& { return reports[i].ttft; }),
                           QuantilePanel(
                               "Inter-token latency", x_label, xs, [&](size_t i) -> auto& { return reports[i].itl; }),
                           QuantilePanel(
                               "End to end", x_label, xs, [&](size_t i) -> auto& { return reports[i].e2e; }),
                           requests});
}

}  // namespace cadre
