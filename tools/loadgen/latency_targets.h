// What a request must keep to count as good.
#ifndef CADRE_TOOLS_LOADGEN_LATENCY_TARGETS_H_
#define CADRE_TOOLS_LOADGEN_LATENCY_TARGETS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace cadre {

// The latencies of one completed request, in nanoseconds since it should have been sent.
struct RequestLatency {
  int64_t first_token = 0;
  int64_t end_to_end = 0;
  int64_t longest_gap = 0;     // between deliveries, divided by the tokens of the later one
  int64_t per_token_mean = 0;  // after the first token; 0 for one token
};

// Each target may be absent; a request is good when it keeps all that are there.
struct LatencyTargets {
  std::optional<int64_t> ttft;  // time to first token
  std::optional<int64_t> itl;   // the longest gap
  std::optional<int64_t> tpot;  // the mean time per output token
  std::optional<int64_t> e2e;   // end to end

  // "ttft:200ms,itl:50ms,tpot:30ms,e2e:2s", any of them. INVALID_ARGUMENT says what is wrong.
  static absl::StatusOr<LatencyTargets> Parse(const std::string& text);

  bool Met(const RequestLatency& latency) const;
  bool any() const { return ttft || itl || tpot || e2e; }
  // "ttft <= 200 ms, itl <= 50 ms"
  std::string Describe() const;
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LATENCY_TARGETS_H_
