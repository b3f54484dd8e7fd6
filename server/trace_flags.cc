#include "server/trace_flags.h"

#include "server/capacity_flags.h"

namespace cadre {

void TraceFlags::AddTo(CLI::App& app) {
  app.add_option("--otlp-endpoint", endpoint,
                 "Collector of OpenTelemetry that is sent spans of the calls, by OTLP over gRPC: host:port, or "
                 "https://host:port for TLS");
  app.add_option("--trace-sample-ratio", sample_ratio,
                 "Share of the calls that are traced, of those whose caller sends no traceparent; the others are if "
                 "their caller says so")
      ->check(NumberIn(0.0, 1.0));
}

}  // namespace cadre
