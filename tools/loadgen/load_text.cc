#include "tools/loadgen/load_text.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cadre {
namespace {

constexpr double kMillisecondsPerNanosecond = 1e-6;

double Milliseconds(double nanoseconds) { return nanoseconds * kMillisecondsPerNanosecond; }

double Percent(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

// Four significant digits: 0.0123, 1.234, 123.4, 12340.
std::string ShortNumber(double value) {
  const int digits = value > 0.0 ? std::clamp(3 - static_cast<int>(std::floor(std::log10(value))), 0, 4) : 0;
  return absl::StrFormat("%.*f", digits, value);
}

void AppendLatency(std::string& text, const char* name, const LatencyHistogram& histogram) {
  if (histogram.count() == 0) return;
  absl::StrAppendFormat(&text, "%-22s", name);
  for (double q : {0.5, 0.9, 0.95, 0.99}) {
    absl::StrAppendFormat(&text, "%10s", ShortNumber(Milliseconds(static_cast<double>(histogram.Quantile(q)))));
  }
  absl::StrAppendFormat(&text, "%10s%10s\n", ShortNumber(Milliseconds(static_cast<double>(histogram.max()))),
                        ShortNumber(Milliseconds(histogram.mean())));
}

void AppendReasons(std::string& text, const char* name, const std::map<std::string, int64_t>& reasons) {
  for (const auto& [why, count] : reasons) absl::StrAppendFormat(&text, "%-12s%d x %s\n", name, count, why);
}

nlohmann::ordered_json LatencyJson(const LatencyHistogram& histogram) {
  nlohmann::ordered_json json = {{"count", histogram.count()}};
  if (histogram.count() == 0) return json;
  const auto ms = [](int64_t nanoseconds) { return Milliseconds(static_cast<double>(nanoseconds)); };
  json["mean_ms"] = Milliseconds(histogram.mean());
  json["min_ms"] = ms(histogram.min());
  json["p50_ms"] = ms(histogram.Quantile(0.5));
  json["p90_ms"] = ms(histogram.Quantile(0.9));
  json["p95_ms"] = ms(histogram.Quantile(0.95));
  json["p99_ms"] = ms(histogram.Quantile(0.99));
  json["p999_ms"] = ms(histogram.Quantile(0.999));
  json["max_ms"] = ms(histogram.max());
  return json;
}

nlohmann::ordered_json CountsJson(const RequestCounts& counts) {
  return {{"sent", counts.sent},
          {"completed", counts.completed},
          {"rejected", counts.rejected},
          {"failed", counts.failed},
          {"unfinished", counts.unfinished}};
}

nlohmann::ordered_json TimelineJson(const LoadReport& report) {
  auto slots = nlohmann::ordered_json::array();
  for (size_t i = 0; i < report.timeline.size(); ++i) {
    const TimelineSlot& slot = report.timeline[i];
    nlohmann::ordered_json json = {{"seconds", static_cast<double>(i) * report.slot_seconds}};
    json.update(CountsJson(slot.requests));
    json["output_tokens"] = slot.output_tokens;
    json["ttft"] = LatencyJson(slot.ttft);
    json["itl"] = LatencyJson(slot.itl);
    json["e2e"] = LatencyJson(slot.e2e);
    slots.push_back(std::move(json));
  }
  return slots;
}

}  // namespace

std::string FormatLoadReport(const LoadReport& report, const LatencyTargets& targets, int columns) {
  const RequestCounts& requests = report.requests;
  std::string text = absl::StrFormat(
      "requests    %d sent in %.1f s: %d completed, %d rejected, %d failed, %d unfinished\n", requests.sent,
      report.window_seconds, requests.completed, requests.rejected, requests.failed, requests.unfinished);
  AppendReasons(text, "rejected", report.rejects);
  AppendReasons(text, "failed", report.failures);
  absl::StrAppend(&text, "throughput  ", ShortNumber(report.PerSecond(requests.completed)), " requests/s, ",
                  ShortNumber(report.PerSecond(report.prompt_tokens)), " prompt tokens/s, ",
                  ShortNumber(report.PerSecond(report.output_tokens)), " output tokens/s\n");
  if (report.cached_prompt_tokens > 0) {
    absl::StrAppendFormat(&text, "prefixes    %.1f %% of the prompt tokens were cached\n",
                          Percent(report.cached_prompt_tokens, report.prompt_tokens));
  }
  if (targets.any()) {
    absl::StrAppendFormat(&text, "goodput     %s requests/s, %.1f %% of those sent (%s)\n",
                          ShortNumber(report.PerSecond(report.good)), Percent(report.good, requests.sent),
                          targets.Describe());
  }
  absl::StrAppend(&text, "\nlatency, ms                  p50       p90       p95       p99       max      mean\n");
  AppendLatency(text, "time to first token", report.ttft);
  AppendLatency(text, "inter-token", report.itl);
  AppendLatency(text, "per output token", report.tpot);
  AppendLatency(text, "end to end", report.e2e);
  AppendLatency(text, "time to reject", report.reject);
  AppendLatency(text, "sent late by", report.send_lag);
  if (report.ttft.count() > 0) {
    absl::StrAppend(&text, "\n", FormatHistogram(report.ttft, "time to first token, ms", columns));
  }
  return text;
}

std::string FormatSweep(const std::vector<LoadReport>& reports) {
  std::string text =
      "  offered  completed  rejected  failed     good   output  ttft p50  ttft p99   itl p50   itl p99   e2e p99\n"
      "    req/s      req/s         %       %    req/s  token/s        ms        ms        ms        ms        ms\n";
  for (const LoadReport& report : reports) {
    const auto ms = [](const LatencyHistogram& histogram, double q) {
      return ShortNumber(Milliseconds(static_cast<double>(histogram.Quantile(q))));
    };
    absl::StrAppendFormat(
        &text, "%9s%11s%10.1f%8.1f%9s%9s%10s%10s%10s%10s%10s\n", ShortNumber(report.offered_rate),
        ShortNumber(report.PerSecond(report.completed_in_window)),
        Percent(report.requests.rejected, report.requests.sent), Percent(report.requests.failed, report.requests.sent),
        ShortNumber(report.PerSecond(report.good)), ShortNumber(report.PerSecond(report.output_tokens)),
        ms(report.ttft, 0.5), ms(report.ttft, 0.99), ms(report.itl, 0.5), ms(report.itl, 0.99), ms(report.e2e, 0.99));
  }
  return text;
}

std::string FormatHistogram(const LatencyHistogram& histogram, const std::string& title, int columns) {
  constexpr int kRows = 12;
  constexpr int kPrefixColumns = 24;
  if (histogram.count() == 0) return "";
  const double low = std::max<double>(1.0, static_cast<double>(histogram.min()));
  const double ratio = std::max(1.0, static_cast<double>(histogram.max()) / low);
  std::array<int64_t, kRows> rows{};
  histogram.ForEachBucket([&](int64_t from, int64_t to, int64_t count) {
    const double middle = std::max(low, (static_cast<double>(from) + static_cast<double>(to)) / 2);
    const double share = ratio > 1.0 ? std::log(middle / low) / std::log(ratio) : 0.0;
    rows[static_cast<size_t>(std::clamp(static_cast<int>(share * kRows), 0, kRows - 1))] += count;
  });
  const int64_t most = *std::max_element(rows.begin(), rows.end());
  const int cells = std::max(8, std::min(columns, 120) - kPrefixColumns);
  std::string text = title + "\n";
  for (int i = 0; i < kRows; ++i) {
    const int64_t count = rows[static_cast<size_t>(i)];
    const double end = Milliseconds(low * std::pow(ratio, static_cast<double>(i + 1) / kRows));
    const double width = static_cast<double>(count) / static_cast<double>(most) * cells;
    absl::StrAppendFormat(&text, "  <= %9s %8d %s\n", ShortNumber(end), count,
                          std::string(static_cast<size_t>(std::ceil(width)), '#'));
    if (ratio <= 1.0) break;
  }
  return text;
}

nlohmann::ordered_json LoadReportJson(const LoadReport& report) {
  nlohmann::ordered_json json;
  json["offered_rate"] = report.offered_rate;
  json["window_seconds"] = report.window_seconds;
  json["requests"] = CountsJson(report.requests);
  json["completed_in_window"] = report.completed_in_window;
  json["good"] = report.good;
  json["rejects"] = report.rejects;
  json["failures"] = report.failures;
  json["output_tokens"] = report.output_tokens;
  json["prompt_tokens"] = report.prompt_tokens;
  json["cached_prompt_tokens"] = report.cached_prompt_tokens;
  json["throughput"] = {{"requests_per_second", report.PerSecond(report.completed_in_window)},
                        {"prompt_tokens_per_second", report.PerSecond(report.prompt_tokens)},
                        {"output_tokens_per_second", report.PerSecond(report.output_tokens)},
                        {"good_requests_per_second", report.PerSecond(report.good)}};
  json["ttft"] = LatencyJson(report.ttft);
  json["itl"] = LatencyJson(report.itl);
  json["tpot"] = LatencyJson(report.tpot);
  json["e2e"] = LatencyJson(report.e2e);
  json["reject"] = LatencyJson(report.reject);
  json["send_lag"] = LatencyJson(report.send_lag);
  json["total"] = CountsJson(report.total);
  json["total"]["output_tokens"] = report.total_output_tokens;
  json["total"]["seconds"] = report.total_seconds;
  json["slot_seconds"] = report.slot_seconds;
  json["timeline"] = TimelineJson(report);
  return json;
}

}  // namespace cadre
