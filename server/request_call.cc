#include "server/request_call.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/translate.h"

namespace cadre {
namespace {

constexpr size_t kMaxTraceStateBytes = 512;  // W3C Trace Context, section 3.3.1.5

std::optional<CallTrace> BeginTrace(const ServiceContext& services, const std::optional<TraceContext>& trace_context,
                                    const grpc::CallbackServerContext& context, std::string_view method) {
  if (services.tracer == nullptr) return std::nullopt;
  std::optional<CallTrace> trace = services.tracer->Begin(trace_context);
  if (!trace) return std::nullopt;
  if (trace_context) trace->trace_state = MetadataOf(context, "tracestate");
  // Half of one could not be read, and longer ones are more than anybody has to pass on.
  if (trace->trace_state.size() > kMaxTraceStateBytes) trace->trace_state.clear();
  trace->method = method;
  return trace;
}

// The call's deadline on the engine's clock, which wall clock changes do not move. Far ones count as none.
absl::Time EngineDeadline(const grpc::CallbackServerContext& context, const Clock& clock) {
  constexpr absl::Duration kFar = absl::Hours(24 * 365);
  const absl::Duration left = absl::FromChrono(context.deadline()) - absl::Now();
  return left > kFar ? absl::InfiniteFuture() : clock.Now() + left;
}

}  // namespace

RequestCall::RequestCall(const ServiceContext& services, grpc::CallbackServerContext* context, std::string_view path)
    : services_(services),
      context_(*context),
      path_(path),
      metadata_id_(MetadataOf(*context, kRequestIdKey)),
      watch_(std::make_shared<ReadingWatch>(services, context, path)),
      stream_(std::make_shared<TokenStream>(this, services.host, services.metrics, services.stream,
                                            EngineDeadline(*context, services.host->clock()))) {
  const std::optional<TraceContext> trace_context = ParseTraceparent(MetadataOf(*context, "traceparent"));
  trace_ = BeginTrace(services, trace_context, *context, path);
  if (trace_) {
    stream_->SetTrace(Hex(trace_->trace_id), Hex(trace_->span_id));
  } else if (trace_context) {
    stream_->SetTrace(Hex(trace_context->trace_id), "");
  }
}

// Its key was good a moment ago, but may have been withdrawn since.
absl::Status RequestCall::FindCaller() {
  CADRE_ASSIGN_OR_RETURN(std::string name, CallerOf(services_, context_));
  stream_->SetCaller(std::move(name));
  return absl::OkStatus();
}

void RequestCall::Read() {
  if (const absl::Status status = FindCaller(); !status.ok()) {
    is_read_->store(true);
    RefuseUnreadCall(services_, *stream_, metadata_id_, status);
    return;
  }
  if (const auto charge = ChargeReading(services_, /*message_bytes=*/0); !charge.ok()) {
    is_read_->store(true);
    RefuseUnreadCall(services_, *stream_, metadata_id_, charge.status());
    return;
  }
  OnArrival(metadata_id_);
  read_timeout_.Set(services_.request_timeout,
                    [services = services_, stream = stream_, is_read = is_read_, metadata_id = metadata_id_] {
                      if (is_read->exchange(true)) return;
                      RefuseUnreadCall(services, *stream, metadata_id, RequestTimeout(services.request_timeout));
                    });
  StartRead(&request_);
}

void RequestCall::OnReadDone(bool ok) {
  if (is_read_->exchange(true)) return;
  read_timeout_.Cancel();
  // The request may have come long after the headers, by which the key was judged.
  if (const absl::Status status = CheckAccess(services_, context_, path_); !status.ok()) {
    return RefuseUnreadCall(services_, *stream_, metadata_id_, status);
  }
  services_.host->CallOpened();
  is_counted_ = true;
  if (!ok) request_.Clear();
  AdmitRequest(services_, stream_, request_, MakeReader(), metadata_id_);
  request_.Clear();
}

void RequestCall::OnDone() {
  stream_->Detach();
  watch_->End();
  EndTrace(absl::CancelledError(), std::nullopt);  // nobody was left to be told an end
  if (is_counted_) services_.host->CallClosed();
  delete this;
}

void RequestCall::SetRequestId(const std::string& id) {
  request_id_ = id;
  if (trace_) trace_->request_id = id;
}

// Before an answer alone: a refusal with initial metadata of its own is not trailers-only, and gRPC's clients take it
// for the beginning of an answer, after which they do not try again.
void RequestCall::SendInitialMetadata() {
  AddInitialMetadata();
  StartSendInitialMetadata();
}

void RequestCall::AddInitialMetadata() {
  if (std::exchange(is_metadata_added_, true)) return;
  context_.AddInitialMetadata(kRequestIdKey, request_id_);
}

void RequestCall::EndTrace(const absl::Status& status, const std::optional<RequestTotals>& totals) {
  if (trace_) services_.tracer->End(*trace_, status, totals);
  trace_.reset();
}

void RequestCall::AddTrailers(const absl::Status& status, const std::optional<RequestTotals>& totals) {
  if (!is_metadata_added_ && !request_id_.empty()) context_.AddTrailingMetadata(kRequestIdKey, request_id_);
  if (totals.has_value()) {
    context_.AddTrailingMetadata("server-timing", ServerTiming(totals->timings));
    context_.AddTrailingMetadata("cadre-routing-report", RoutingTrailer(totals->routing));
  }
  EndTrace(status, totals);
  if (const auto delay = ErrorRetryDelay(status); delay.has_value()) {
    context_.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(*delay)));
  }
}

}  // namespace cadre
