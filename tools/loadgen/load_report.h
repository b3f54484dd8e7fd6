// What a load run measured.
#ifndef CADRE_TOOLS_LOADGEN_LOAD_REPORT_H_
#define CADRE_TOOLS_LOADGEN_LOAD_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tools/loadgen/latency_histogram.h"

namespace cadre {

// How a request ended.
enum class RequestEnd {
  kCompleted,   // status OK, and every sequence finished
  kRejected,    // the server said no, with its reason, before the first event
  kFailed,      // any other error
  kUnfinished,  // still running when the run ended, and cancelled by it
};

// Requests by how they ended; each that was sent is in exactly one.
struct RequestCounts {
  int64_t sent = 0;
  int64_t completed = 0;
  int64_t rejected = 0;
  int64_t failed = 0;
  int64_t unfinished = 0;
};

// A piece of the run's time. Requests count where they should have been sent, tokens where they arrived.
struct TimelineSlot {
  static constexpr int kPrecisionBits = 5;

  RequestCounts requests;
  int64_t output_tokens = 0;
  LatencyHistogram ttft{kPrecisionBits};
  LatencyHistogram itl{kPrecisionBits};
  LatencyHistogram e2e{kPrecisionBits};

  void Add(const TimelineSlot& other);
};

// Times are nanoseconds, from the moment a request should have been sent. All but `total` and `timeline` is about the
// measured window; its requests are those that should have been sent in it.
struct LoadReport {
  double offered_rate = 0.0;  // requests per second; 0: closed loop, or a trace
  double window_seconds = 0.0;

  RequestCounts requests;
  // Requests that ended well within the window, those sent before it, too: what throughput counts.
  int64_t completed_in_window = 0;
  int64_t good = 0;                         // completed within all targets
  std::map<std::string, int64_t> rejects;   // "RESOURCE_EXHAUSTED QUEUE_FULL": count
  std::map<std::string, int64_t> failures;  // "DEADLINE_EXCEEDED": count
  // Tokens that arrived within the window, of requests sent before it, too.
  int64_t output_tokens = 0;
  // Prompt tokens of the requests whose first event arrived within the window, and those the prefix cache had.
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  LatencyHistogram ttft;      // of requests that got a token
  LatencyHistogram itl;       // of each token after the first of its request
  LatencyHistogram tpot;      // of completed requests with more than one token
  LatencyHistogram e2e;       // of completed requests
  LatencyHistogram reject;    // of rejected requests
  LatencyHistogram send_lag;  // how late the generator itself was

  // Of the whole run, warm-up and the time after the window included.
  RequestCounts total;
  int64_t total_output_tokens = 0;
  double total_seconds = 0.0;

  // Consecutive pieces of the whole run.
  double slot_seconds = 0.0;
  std::vector<TimelineSlot> timeline;

  double PerSecond(int64_t count) const {
    return window_seconds > 0.0 ? static_cast<double>(count) / window_seconds : 0.0;
  }
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LOAD_REPORT_H_
