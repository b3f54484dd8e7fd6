#include "server/span_exporter.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/base/status_macros.h"
#include "opentelemetry/trace_service.grpc.pb.h"

namespace cadre {
namespace {

constexpr std::chrono::seconds kStopPatience(2);

struct Endpoint {
  std::string target;  // host:port
  bool is_encrypted = false;
};

absl::StatusOr<Endpoint> ParseEndpoint(const std::string& text) {
  const auto refuse = [&text](const char* problem) {
    return absl::InvalidArgumentError(absl::StrCat("--otlp-endpoint: \"", text, "\": ", problem,
                                                   "; it is host:port, http://host:port or https://host:port"));
  };
  absl::string_view rest = text;
  Endpoint endpoint;
  endpoint.is_encrypted = absl::ConsumePrefix(&rest, "https://");
  if (!endpoint.is_encrypted) absl::ConsumePrefix(&rest, "http://");
  absl::ConsumeSuffix(&rest, "/");
  if (absl::StrContains(rest, '/')) return refuse("has a scheme or a path, and OTLP over gRPC has none");
  const size_t colon = rest.rfind(':');
  int port = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(rest.substr(colon + 1), &port))
    return refuse("has no port");
  if (port < 1 || port > 65535) return refuse("its port must be 1 to 65535");
  if (colon == 0) return refuse("has no host");
  endpoint.target = std::string(rest);
  return endpoint;
}

void SetAttribute(std::string_view key, const std::string& value, otlp::Resource* resource) {
  otlp::KeyValue* attribute = resource->add_attributes();
  attribute->set_key(std::string(key));
  attribute->mutable_value()->set_string_value(value);
}

}  // namespace

class SpanExporter::Collector {
 public:
  explicit Collector(const Endpoint& endpoint)
      : stub_(otlp::TraceService::NewStub(grpc::CreateChannel(
            endpoint.target, endpoint.is_encrypted ? grpc::SslCredentials(grpc::SslCredentialsOptions())
                                                   : grpc::InsecureChannelCredentials()))) {}

  grpc::Status Export(const otlp::ExportTraceServiceRequest& request, absl::Duration timeout,
                      otlp::ExportTraceServiceResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
    context.set_wait_for_ready(true);  // a collector that restarts is waited for
    {
      const std::lock_guard lock(mutex_);
      if (is_cancelled_) return {grpc::StatusCode::CANCELLED, "the server ends"};
      context_ = &context;
    }
    grpc::Status status = stub_->Export(&context, request, response);
    const std::lock_guard lock(mutex_);
    context_ = nullptr;
    return status;
  }

  // Ends the call under way, and all that follow. Any thread.
  void Cancel() {
    const std::lock_guard lock(mutex_);
    is_cancelled_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  std::mutex mutex_;
  grpc::ClientContext* context_ = nullptr;  // of the call under way
  bool is_cancelled_ = false;
  const std::unique_ptr<otlp::TraceService::Stub> stub_;
};

absl::StatusOr<std::unique_ptr<SpanExporter>> SpanExporter::Create(const SpanExporterOptions& options) {
  CADRE_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseEndpoint(options.endpoint));
  return std::unique_ptr<SpanExporter>(new SpanExporter(options, std::make_unique<Collector>(endpoint)));
}

SpanExporter::SpanExporter(const SpanExporterOptions& options, std::unique_ptr<Collector> collector)
    : options_(options), collector_(std::move(collector)), thread_([this] { Work(); }) {}

SpanExporter::~SpanExporter() {
  {
    std::unique_lock lock(mutex_);
    must_stop_ = true;
    has_changed_.notify_all();
    has_changed_.wait_for(lock, kStopPatience, [this] { return has_ended_; });
  }
  collector_->Cancel();
  thread_.join();
}

void SpanExporter::Add(std::vector<otlp::Span> spans) {
  bool is_batch = false;
  {
    const std::lock_guard lock(mutex_);
    if (queued_.size() + spans.size() > options_.max_queued) {
      counts_.dropped += std::ssize(spans);
      return;
    }
    std::move(spans.begin(), spans.end(), std::back_inserter(queued_));
    is_batch = queued_.size() >= options_.max_batch;
  }
  if (is_batch) has_changed_.notify_all();
}

SpanCounts SpanExporter::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::vector<otlp::Span> SpanExporter::TakeBatch() {
  const auto end = queued_.begin() + std::min(std::ssize(queued_), static_cast<std::ptrdiff_t>(options_.max_batch));
  std::vector<otlp::Span> batch(std::make_move_iterator(queued_.begin()), std::make_move_iterator(end));
  queued_.erase(queued_.begin(), end);
  return batch;
}

void SpanExporter::Work() {
  std::unique_lock lock(mutex_);
  while (!must_stop_ || !queued_.empty()) {
    has_changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.interval),
                          [this] { return must_stop_ || queued_.size() >= options_.max_batch; });
    if (queued_.empty()) continue;
    std::vector<otlp::Span> batch = TakeBatch();
    lock.unlock();
    Send(std::move(batch));
    lock.lock();
  }
  has_ended_ = true;
  has_changed_.notify_all();
}

void SpanExporter::Send(std::vector<otlp::Span> spans) {
  const int64_t count = std::ssize(spans);
  otlp::ExportTraceServiceRequest request;
  otlp::ResourceSpans* of_resource = request.add_resource_spans();
  SetAttribute("service.name", options_.service_name, of_resource->mutable_resource());
  SetAttribute("service.version", options_.service_version, of_resource->mutable_resource());
  otlp::ScopeSpans* of_scope = of_resource->add_scope_spans();
  of_scope->mutable_scope()->set_name("cadre");
  of_scope->mutable_scope()->set_version(options_.service_version);
  for (otlp::Span& span : spans) *of_scope->add_spans() = std::move(span);
  otlp::ExportTraceServiceResponse response;
  const grpc::Status status = collector_->Export(request, options_.timeout, &response);
  const otlp::ExportTracePartialSuccess& refused = response.partial_success();
  const int64_t failed = status.ok() ? std::clamp<int64_t>(refused.rejected_spans(), 0, count) : count;
  Tell(status.ok()
           ? (failed > 0 ? absl::StrCat("the collector rejected ", failed, " of them: ", refused.error_message()) : "")
           : status.error_message());
  const std::lock_guard lock(mutex_);
  counts_.exported += count - failed;
  counts_.failed += failed;
}

void SpanExporter::Tell(const std::string& problem) {
  const bool is_failing = !problem.empty();
  if (std::exchange(is_failing_, is_failing) == is_failing) return;
  if (is_failing) {
    spdlog::warn("traces: spans do not reach {}: {}", options_.endpoint, problem);
  } else {
    spdlog::info("traces: spans reach {} again", options_.endpoint);
  }
}

}  // namespace cadre
