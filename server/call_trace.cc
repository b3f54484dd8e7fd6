#include "server/call_trace.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/time/clock.h"
#include "engine/base/status_macros.h"
#include "server/random_bits.h"

namespace cadre {
namespace {

using Value = otlp::AnyValue;

Value* Attribute(std::string key, otlp::Span* span) {
  otlp::KeyValue* attribute = span->add_attributes();
  attribute->set_key(std::move(key));
  return attribute->mutable_value();
}

template <size_t kSize>
std::string Bytes(const std::array<uint8_t, kSize>& id) {
  return {id.begin(), id.end()};
}

otlp::Span MakeSpan(const CallTrace& call, std::string name, absl::Time begin, absl::Time end) {
  otlp::Span span;
  span.set_trace_id(Bytes(call.trace_id));
  span.set_name(std::move(name));
  span.set_start_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(begin)));
  span.set_end_time_unix_nano(static_cast<uint64_t>(absl::ToUnixNanos(std::max(begin, end))));
  return span;
}

otlp::Span MakePhase(const CallTrace& call, std::string name, absl::Time begin, absl::Time end) {
  otlp::Span span = MakeSpan(call, std::move(name), begin, end);
  span.set_span_id(Bytes(RandomSpanId()));
  span.set_parent_span_id(Bytes(call.span_id));
  span.set_kind(otlp::Span::SPAN_KIND_INTERNAL);
  return span;
}

otlp::Span MakeCallSpan(const CallTrace& call, absl::Time end, const absl::Status& status,
                        const std::optional<RequestTotals>& totals) {
  const std::string_view method = std::string_view(call.method).substr(call.method.starts_with('/') ? 1 : 0);
  const size_t slash = method.find('/');
  otlp::Span span = MakeSpan(call, std::string(method), call.begin, end);
  span.set_span_id(Bytes(call.span_id));
  if (call.parent) span.set_parent_span_id(Bytes(*call.parent));
  span.set_trace_state(call.trace_state);
  span.set_kind(otlp::Span::SPAN_KIND_SERVER);
  Attribute("rpc.system", &span)->set_string_value("grpc");
  Attribute("rpc.service", &span)->set_string_value(std::string(method.substr(0, slash)));
  if (slash != std::string_view::npos) {
    Attribute("rpc.method", &span)->set_string_value(std::string(method.substr(slash + 1)));
  }
  Attribute("rpc.grpc.status_code", &span)->set_int_value(static_cast<int>(status.code()));
  if (!call.request_id.empty()) Attribute("cadre.request_id", &span)->set_string_value(call.request_id);
  if (totals) {
    Attribute("gen_ai.usage.input_tokens", &span)->set_int_value(totals->usage.prompt_tokens);
    Attribute("gen_ai.usage.output_tokens", &span)->set_int_value(totals->usage.generated_tokens);
    Attribute("cadre.prefix_cache.hit_tokens", &span)->set_int_value(totals->usage.cached_prompt_tokens);
    Attribute("cadre.routing.dropped", &span)->set_int_value(totals->routing.dropped);
  }
  // A cancelled call is nobody's error. What the message may quote of a request is not for a trace.
  if (!status.ok() && !absl::IsCancelled(status)) span.mutable_status()->set_code(otlp::Status::STATUS_CODE_ERROR);
  return span;
}

}  // namespace

std::vector<otlp::Span> MakeSpans(const CallTrace& call, absl::Time end, const absl::Status& status,
                                  const std::optional<RequestTotals>& totals) {
  std::vector<otlp::Span> spans = {MakeCallSpan(call, end, status, totals)};
  if (!totals) return spans;
  // Phases are told as lengths, by a clock that nobody sets: what came before them is the way to the engine.
  absl::Time begin = std::max(call.begin, end - totals->timings.total);
  const struct {
    const char* name;
    absl::Duration length;
  } phases[] = {
      {"queue", totals->timings.queue}, {"prefill", totals->timings.prefill}, {"decode", totals->timings.decode}};
  for (const auto& phase : phases) {
    if (phase.length <= absl::ZeroDuration()) continue;
    spans.push_back(MakePhase(call, phase.name, begin, begin + phase.length));
    begin += phase.length;
  }
  const RoutingReport& routing = totals->routing;
  if (routing.cache_wait > absl::ZeroDuration()) {
    otlp::Span load = MakePhase(call, "expert load", std::max(call.begin, begin - routing.cache_wait), begin);
    Attribute("cadre.expert_cache.hits", &load)->set_int_value(routing.cache_hits);
    Attribute("cadre.expert_cache.misses", &load)->set_int_value(routing.cache_misses);
    Attribute("cadre.expert_cache.loaded_bytes", &load)->set_int_value(routing.cache_bytes);
    spans.push_back(std::move(load));
  }
  return spans;
}

absl::StatusOr<std::unique_ptr<Tracer>> Tracer::Create(const TracerOptions& options) {
  CADRE_ASSIGN_OR_RETURN(std::unique_ptr<SpanExporter> exporter, SpanExporter::Create(options.exporter));
  return std::unique_ptr<Tracer>(new Tracer(options.sample_ratio, std::move(exporter)));
}

Tracer::Tracer(double sample_ratio, std::unique_ptr<SpanExporter> exporter)
    : sample_ratio_(sample_ratio), exporter_(std::move(exporter)) {}

std::optional<CallTrace> Tracer::Begin(const std::optional<TraceContext>& context) const {
  CallTrace call;
  call.begin = absl::Now();
  if (context) {
    if (!context->is_sampled) return std::nullopt;
    call.trace_id = context->trace_id;
    call.parent = context->span_id;
  } else {
    constexpr double kAllBits = 18446744073709551616.0;  // 2^64
    if (static_cast<double>(RandomBits()) >= sample_ratio_ * kAllBits) return std::nullopt;
    call.trace_id = RandomTraceId();
  }
  call.span_id = RandomSpanId();
  return call;
}

void Tracer::End(const CallTrace& call, const absl::Status& status, const std::optional<RequestTotals>& totals) {
  exporter_->Add(MakeSpans(call, absl::Now(), status, totals));
}

}  // namespace cadre
