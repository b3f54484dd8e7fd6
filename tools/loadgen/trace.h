// Requests that were recorded somewhere, to be sent again at the same times with the same lengths.
#ifndef CADRE_TOOLS_LOADGEN_TRACE_H_
#define CADRE_TOOLS_LOADGEN_TRACE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre {

struct TraceRequest {
  int64_t offset = 0;  // nanoseconds since the first request of the trace
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  std::string tenant;
  int32_t priority = 0;
};

// Limits of a trace: a file of somebody else must not take all memory.
struct TraceLimits {
  int64_t max_requests = 5'000'000;
  size_t max_line_bytes = 1 << 20;
  size_t max_tenant_bytes = 128;
};

// Reads a trace: lines of JSON objects when the first character is a brace, else CSV. Names of keys and columns, in any
// letter case, with spaces, dashes and underscores ignored:
//   time    `time`, `offset`, `timestamp`, `arrival time`
//   prompt  `prompt tokens`, `input tokens`, `input length`, `context tokens`, `request tokens`
//   output  `output tokens`, `output length`, `generated tokens`, `response tokens`
//   and, where present, `tenant` and `priority`; others are ignored.
// CSV without a line of names has the columns time, prompt, output, tenant, priority, of which the last two may be
// absent. A length of 0, as traces have it for requests that failed, counts as 1. A time is a number of `time_unit`
// nanoseconds, or a date such as 2023-11-16 18:15:46.68. Lines may be out of order; offsets count from the earliest,
// and the result is sorted. Empty lines and CSV lines with # in front are skipped. INVALID_ARGUMENT names the line, the
// field and the value.
absl::StatusOr<std::vector<TraceRequest>> ParseTrace(std::string_view text, double time_unit,
                                                     const TraceLimits& limits = {});

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_TRACE_H_
