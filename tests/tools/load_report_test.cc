// What the recorder makes of requests, and what reports and charts make of that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tools/loadgen/load_plot.h"
#include "tools/loadgen/load_recorder.h"
#include "tools/loadgen/load_text.h"
#include "tools/loadgen/svg_chart.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1000 * kMs;

RequestRecord Completed(int64_t intended, int64_t started, int64_t first, int64_t ended, bool measured = true) {
  return {.intended = intended,
          .started = started,
          .first_token = first,
          .last_token = ended,
          .ended = ended,
          .longest_gap = (ended - first) / 4,
          .output_tokens = 5,
          .measured = measured};
}

TEST(LoadRecorderTest, LatenciesCountFromWhenARequestShouldHaveBeenSent) {
  LoadRecorder recorder(*LatencyTargets::Parse("ttft:100ms"));
  recorder.SetWindow(0, 10 * kSecond);
  // The generator was late by 300 ms: the user has waited that long, too.
  recorder.OnSent(0, 300 * kMs, true);
  recorder.OnEnded(Completed(0, 300 * kMs, 310 * kMs, 350 * kMs));
  recorder.OnSent(kSecond, kSecond, true);
  recorder.OnEnded(Completed(kSecond, kSecond, kSecond + 10 * kMs, kSecond + 50 * kMs));
  const LoadReport report = recorder.Finish(12 * kSecond, 0.2);
  EXPECT_EQ(report.ttft.max(), 310 * kMs);
  EXPECT_EQ(report.e2e.max(), 350 * kMs);
  EXPECT_EQ(report.send_lag.max(), 300 * kMs);
  EXPECT_EQ(report.tpot.max(), 10 * kMs);
  EXPECT_EQ(report.good, 1);
  EXPECT_DOUBLE_EQ(report.window_seconds, 10.0);
  EXPECT_DOUBLE_EQ(report.PerSecond(report.completed_in_window), 0.2);
}

TEST(LoadRecorderTest, WarmUpIsCountedButNotMeasured) {
  LoadRecorder recorder({});
  recorder.SetWindow(kSecond, 2 * kSecond);
  recorder.OnSent(0, 0, false);
  recorder.OnStarted(10 * kMs, 7, 3);
  recorder.OnTokens(10 * kMs, -1, 1, false);
  recorder.OnTokens(kSecond + 1, 5 * kMs, 2, false);  // within the window: throughput, but no latency
  recorder.OnEnded(Completed(0, 0, 10 * kMs, kSecond + 1, false));
  recorder.OnSent(kSecond, kSecond, true);
  recorder.OnStarted(kSecond + 10, 8, 4);
  recorder.OnTokens(kSecond + 10 * kMs, -1, 1, true);
  recorder.OnTokens(kSecond + 30 * kMs, 20 * kMs, 2, true);
  recorder.OnTokens(3 * kSecond, kSecond, 1, true);  // after the window: latency, but no throughput
  recorder.OnEnded(Completed(kSecond, kSecond, kSecond + 10 * kMs, 3 * kSecond));
  const LoadReport report = recorder.Finish(3 * kSecond, 1.0);
  EXPECT_EQ(report.total.sent, 2);
  EXPECT_EQ(report.total.completed, 2);
  EXPECT_EQ(report.total_output_tokens, 7);
  EXPECT_EQ(report.requests.sent, 1);
  EXPECT_EQ(report.requests.completed, 1);
  EXPECT_EQ(report.completed_in_window, 1);
  EXPECT_EQ(report.output_tokens, 2 + 1 + 2);
  EXPECT_EQ(report.prompt_tokens, 8);
  EXPECT_EQ(report.cached_prompt_tokens, 4);
  EXPECT_EQ(report.ttft.count(), 1);
  EXPECT_EQ(report.itl.count(), 3);  // a gap counts once for each of its tokens
  EXPECT_EQ(report.itl.min(), 10 * kMs);
  EXPECT_EQ(report.itl.max(), kSecond);
}

TEST(LoadRecorderTest, EveryRequestEndsInOneCount) {
  LoadRecorder recorder({});
  recorder.SetWindow(0, LoadRecorder::kOpenEnd);
  for (int i = 0; i < 10; ++i) recorder.OnSent(i * kMs, i * kMs, true);
  for (int i = 0; i < 10; ++i) {
    RequestRecord record{.intended = i * kMs, .started = i * kMs, .ended = (i + 2) * kMs, .measured = true};
    record.end = i < 4   ? RequestEnd::kRejected
                 : i < 7 ? RequestEnd::kFailed
                 : i < 9 ? RequestEnd::kUnfinished
                         : RequestEnd::kCompleted;
    record.why = i < 3 ? "RESOURCE_EXHAUSTED QUEUE_FULL" : i < 4 ? "UNAVAILABLE DRAINING" : "DEADLINE_EXCEEDED";
    recorder.OnEnded(record);
  }
  const LoadReport report = recorder.Finish(kSecond, 0.0);
  const RequestCounts& counts = report.requests;
  EXPECT_EQ(counts.sent, counts.completed + counts.rejected + counts.failed + counts.unfinished);
  EXPECT_EQ(report.rejects.at("RESOURCE_EXHAUSTED QUEUE_FULL"), 3);
  EXPECT_EQ(report.rejects.at("UNAVAILABLE DRAINING"), 1);
  EXPECT_EQ(report.failures.at("DEADLINE_EXCEEDED"), 3);
  EXPECT_EQ(report.reject.count(), 4);
  EXPECT_EQ(report.reject.max(), 2 * kMs);
  EXPECT_EQ(report.ttft.count(), 0);
  EXPECT_DOUBLE_EQ(report.window_seconds, 0.011);  // up to the last end
}

TEST(LoadRecorderTest, TheTimelineStaysShortAndLosesNothing) {
  LoadRecorder recorder({});
  recorder.SetWindow(0, LoadRecorder::kOpenEnd);
  for (int64_t i = 0; i < 5000; ++i) {
    const int64_t at = i * 77 * kMs;  // 385 seconds
    recorder.OnSent(at, at, true);
    recorder.OnTokens(at, i % 3 == 0 ? kMs : -1, 2, true);
    recorder.OnEnded(Completed(at, at, at + kMs, at + 2 * kMs));
  }
  const LoadReport report = recorder.Finish(400 * kSecond, 0.0);
  EXPECT_LE(report.timeline.size(), 200u);
  EXPECT_GE(static_cast<double>(report.timeline.size()) * report.slot_seconds, 384.9);
  TimelineSlot sum;
  for (const TimelineSlot& slot : report.timeline) sum.Add(slot);
  EXPECT_EQ(sum.requests.sent, 5000);
  EXPECT_EQ(sum.requests.completed, 5000);
  EXPECT_EQ(sum.output_tokens, 10000);
  EXPECT_EQ(sum.ttft.count(), 5000);
  EXPECT_EQ(sum.itl.count(), 2 * 1667);
  // Whichever slot: its requests are those of its time.
  const auto per_slot = report.slot_seconds / 0.077;
  for (size_t i = 0; i + 1 < report.timeline.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(report.timeline[i].requests.sent), per_slot, 1.0) << i;
  }
}

TEST(LoadTextTest, TheReportSaysWhatWasCounted) {
  LoadRecorder recorder(*LatencyTargets::Parse("ttft:1s"));
  recorder.SetWindow(0, 2 * kSecond);
  for (int i = 0; i < 10; ++i) {
    recorder.OnSent(i * kMs, i * kMs, true);
    recorder.OnEnded(Completed(i * kMs, i * kMs, (i + 10) * kMs, (i + 50) * kMs));
  }
  const LoadReport report = recorder.Finish(2 * kSecond, 5.0);
  const std::string text = FormatLoadReport(report, *LatencyTargets::Parse("ttft:1s"), 80);
  EXPECT_THAT(text, HasSubstr("10 sent in 2.0 s: 10 completed, 0 rejected, 0 failed, 0 unfinished"));
  EXPECT_THAT(text, HasSubstr("goodput     5.000 requests/s, 100.0 % of those sent (ttft <= 1s)"));
  EXPECT_THAT(text, Not(HasSubstr("time to reject")));
  const auto json = LoadReportJson(report);
  EXPECT_EQ(json["ttft"]["max_ms"], 10.0);
  EXPECT_EQ(json["requests"]["completed"], 10);
  EXPECT_EQ(json["reject"]["count"], 0);
  EXPECT_FALSE(json["reject"].contains("p50_ms"));
}

TEST(LoadTextTest, HistogramRowsAddUpAndFit) {
  LatencyHistogram histogram;
  for (int64_t i = 1; i <= 1000; ++i) histogram.Record(i * i * kMs);
  const std::string text = FormatHistogram(histogram, "title", 60);
  int64_t sum = 0;
  size_t begin = text.find('\n') + 1;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    EXPECT_LE(line.size(), 60u);
    sum += std::stoll(line.substr(15));
  }
  EXPECT_EQ(sum, 1000);
  LatencyHistogram single;
  single.Record(5, 7);
  EXPECT_THAT(FormatHistogram(single, "t", 10), HasSubstr(" 7 ########"));
}

// Whether every tag is closed in order, and no text holds a character of markup.
bool IsWellFormed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at)) {
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos) return false;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (tag[0] != '?' && tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end;
  }
  return open.empty();
}

TEST(SvgChartTest, IsWellFormedWhateverTheTextsAndNumbersAre) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const std::string hostile = "</text><script>&\"'\x01\xff]]>";
  for (bool log_y : {false, true}) {
    for (const std::vector<ChartPoint>& points :
         std::vector<std::vector<ChartPoint>>{{},
                                              {{1, 1}},
                                              {{0, 0}},
                                              {{kNan, kInf}},
                                              {{0, 1}, {1, kNan}, {2, 3}, {3, -kInf}, {4, 1e-300}},
                                              {{1, 1e-320}},
                                              {{1e308, 1e308}, {1, 2}},
                                              {{5, -3}, {6, -2}}}) {
      const std::string svg = RenderSvg(hostile, {{.title = hostile,
                                                   .x_label = hostile,
                                                   .y_label = hostile,
                                                   .series = {{.name = hostile, .points = points}},
                                                   .log_y = log_y}});
      EXPECT_TRUE(IsWellFormed(svg)) << svg;
      EXPECT_THAT(svg, Not(HasSubstr("script>")));
      EXPECT_THAT(svg, Not(HasSubstr("nan")));
      EXPECT_THAT(svg, Not(HasSubstr("inf")));
    }
  }
}

TEST(SvgChartTest, ALineIsBrokenWhereAValueIsMissing) {
  const double gap = std::nan("");
  const std::string svg = RenderSvg(
      "t", {{.title = "p",
             .x_label = "x",
             .y_label = "y",
             .series = {{.name = "s", .points = {{0, 1}, {1, 2}, {2, gap}, {3, 4}, {4, gap}, {5, 1}, {6, 1}}}}}});
  const auto count = [&](const std::string& what) {
    int found = 0;
    for (size_t at = svg.find(what); at != std::string::npos; at = svg.find(what, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("<polyline"), 2);
  EXPECT_EQ(count("<circle"), 1);
}

TEST(SvgChartTest, TicksAreRound) {
  EXPECT_EQ(NiceTicks(10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(NiceTicks(9, 4), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(NiceTicks(400, 4), (std::vector<double>{0, 100, 200, 300, 400}));
  EXPECT_EQ(NiceTicks(0.07, 7).size(), 8u);
}

TEST(LoadPlotTest, EveryKindIsWellFormed) {
  LoadRecorder recorder({});
  recorder.SetWindow(0, LoadRecorder::kOpenEnd);
  for (int64_t i = 0; i < 500; ++i) {
    recorder.OnSent(i * 10 * kMs, i * 10 * kMs, true);
    recorder.OnEnded(Completed(i * 10 * kMs, i * 10 * kMs, (i * 10 + 3) * kMs, (i * 10 + 9) * kMs));
  }
  const std::vector<LoadReport> reports = {recorder.Finish(5 * kSecond, 100.0), LoadReport()};
  EXPECT_TRUE(IsWellFormed(PlotOverTime(reports[0], "title")));
  EXPECT_TRUE(IsWellFormed(PlotOverTime(reports[1], "title")));
  EXPECT_TRUE(IsWellFormed(PlotDistribution(reports[0], "title")));
  EXPECT_TRUE(IsWellFormed(PlotDistribution(reports[1], "title")));
  EXPECT_TRUE(IsWellFormed(PlotSweep(reports, "title")));
  EXPECT_THAT(PlotOverTime(reports[0], "title"), HasSubstr("Time to first token"));
}

}  // namespace
}  // namespace cadre
