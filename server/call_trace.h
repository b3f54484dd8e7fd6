// The spans of one call: what OpenTelemetry is told of where its time went.
#ifndef CADRE_SERVER_CALL_TRACE_H_
#define CADRE_SERVER_CALL_TRACE_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/span_exporter.h"
#include "server/trace_context.h"
#include "server/translate.h"

namespace cadre {

// A call from its first byte on.
struct CallTrace {
  TraceId trace_id = {};
  SpanId span_id = {};  // of the call's own span
  std::optional<SpanId> parent;
  std::string trace_state;  // as it came
  std::string method;       // "/cadre.v1.GenerationService/Generate"
  std::string request_id;   // once it is known
  absl::Time begin;
};

// The call's span, and below it `queue`, `prefill` and `decode` as far as the request came, and `expert load` if steps
// that it was in stood still for experts: as long as they did, at the end of what it was in. Never prompts, answers or
// keys. `totals` of a request that the engine ended.
std::vector<otlp::Span> MakeSpans(const CallTrace& call, absl::Time end, const absl::Status& status,
                                  const std::optional<RequestTotals>& totals);

struct TracerOptions {
  SpanExporterOptions exporter;
  double sample_ratio = 1.0;  // of the calls that bring no context of their own
};

// Decides which calls are recorded, and has their spans sent. Thread-safe.
class Tracer {
 public:
  // As SpanExporter::Create.
  static absl::StatusOr<std::unique_ptr<Tracer>> Create(const TracerOptions& options);

  // `context` of the caller, if it brought one: then the caller has decided. Nothing if the call is not recorded.
  std::optional<CallTrace> Begin(const std::optional<TraceContext>& context) const;
  void End(const CallTrace& call, const absl::Status& status, const std::optional<RequestTotals>& totals);
  SpanCounts counts() const { return exporter_->counts(); }

 private:
  Tracer(double sample_ratio, std::unique_ptr<SpanExporter> exporter);

  const double sample_ratio_;
  const std::unique_ptr<SpanExporter> exporter_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_CALL_TRACE_H_
