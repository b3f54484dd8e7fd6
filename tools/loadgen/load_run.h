// Sends a workload to a server and measures the answers.
#ifndef CADRE_TOOLS_LOADGEN_LOAD_RUN_H_
#define CADRE_TOOLS_LOADGEN_LOAD_RUN_H_

#include <grpcpp/channel.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "tools/loadgen/arrivals.h"
#include "tools/loadgen/latency_targets.h"
#include "tools/loadgen/load_report.h"
#include "tools/loadgen/trace.h"
#include "tools/loadgen/workload.h"

namespace cadre {

struct LoadRunOptions {
  // When requests are sent: exactly one of `rate` > 0, `concurrency` > 0 and a `trace`, which outlives the run.
  double rate = 0.0;
  int32_t concurrency = 0;
  const std::vector<TraceRequest>* trace = nullptr;
  ArrivalKind arrivals = ArrivalKind::kPoisson;
  double trace_speed = 1.0;  // 2: twice as fast as it was recorded
  uint64_t seed = 1;

  // Requests are measured once both have passed.
  absl::Duration warmup = absl::ZeroDuration();
  int64_t warmup_requests = 0;
  // The measured part ends after so long, or so many requests, or with the trace, whatever is first; zero: no limit.
  absl::Duration duration = absl::ZeroDuration();
  int64_t requests = 0;

  // Of each request, from when it should have been sent; zero: none.
  absl::Duration deadline = absl::ZeroDuration();
  // How long to wait for the last answers; what is not answered then is cancelled and counted as unfinished.
  absl::Duration drain_timeout = absl::Seconds(60);
  // Requests in flight: one more ends as failed without having been sent.
  int32_t max_in_flight = 20000;
  LatencyTargets targets;
};

// What a progress line shows.
struct LoadProgress {
  double seconds = 0.0;
  bool warming_up = false;
  bool draining = false;
  int64_t in_flight = 0;
  RequestCounts total;
  int64_t output_tokens = 0;
};

// Runs on the calling thread, which only sends; answers are read on gRPC's threads. Requests take the channels in turn.
// `progress`, which may be null, is called about twice a second. When `stop` becomes true, sending ends as if the time
// were over, and answers are waited for no longer.
LoadReport RunLoad(const LoadRunOptions& options, Workload& workload,
                   const std::vector<std::shared_ptr<grpc::Channel>>& channels, const std::atomic<bool>& stop,
                   const std::function<void(const LoadProgress&)>& progress);

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LOAD_RUN_H_
