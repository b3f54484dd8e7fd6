// Sends spans to a collector of OpenTelemetry, by OTLP over gRPC, beside everything else: nobody waits for it.
#ifndef CADRE_SERVER_SPAN_EXPORTER_H_
#define CADRE_SERVER_SPAN_EXPORTER_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "opentelemetry/trace_service.pb.h"
#include "server/span_counts.h"

namespace cadre {

namespace otlp = opentelemetry::proto::collector::trace::v1;

struct SpanExporterOptions {
  // host:port, http://host:port or https://host:port; TLS, with the system's certificates, with https alone.
  std::string endpoint;
  std::string service_name = "cadre";
  std::string service_version = {};
  size_t max_queued = 4096;  // spans; what comes beyond is dropped, and counted
  size_t max_batch = 512;    // spans of a message
  absl::Duration interval = absl::Seconds(5);
  absl::Duration timeout = absl::Seconds(10);  // of one message
};

// Thread-safe.
class SpanExporter {
 public:
  // INVALID_ARGUMENT names what is wrong with the endpoint. It need not be there yet.
  static absl::StatusOr<std::unique_ptr<SpanExporter>> Create(const SpanExporterOptions& options);
  // Sends what is left, for two seconds at most.
  ~SpanExporter();
  SpanExporter(const SpanExporter&) = delete;
  SpanExporter& operator=(const SpanExporter&) = delete;

  // All of them or none.
  void Add(std::vector<otlp::Span> spans);
  SpanCounts counts() const;

 private:
  class Collector;

  SpanExporter(const SpanExporterOptions& options, std::unique_ptr<Collector> collector);
  void Work();
  // At most max_batch of those that wait. REQUIRES: mutex_ is held.
  std::vector<otlp::Span> TakeBatch();
  void Send(std::vector<otlp::Span> spans);
  void Tell(const std::string& problem);

  const SpanExporterOptions options_;
  const std::unique_ptr<Collector> collector_;
  bool is_failing_ = false;  // the thread's: it says so once
  mutable std::mutex mutex_;
  std::condition_variable has_changed_;
  std::vector<otlp::Span> queued_;
  SpanCounts counts_;
  bool must_stop_ = false;
  bool has_ended_ = false;  // the thread has nothing more to do
  std::thread thread_;      // last: it uses all of it
};

}  // namespace cadre

#endif  // CADRE_SERVER_SPAN_EXPORTER_H_
