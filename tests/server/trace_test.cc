// What a collector is told of calls, and what it takes to be told.
#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <string>

#include "absl/time/clock.h"
#include "opentelemetry/trace_service.grpc.pb.h"
#include "server/call_trace.h"

namespace cadre {
namespace {

using testing::HasSubstr;

constexpr char kParent[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceparentTest, IsReadAsTheStandardHasIt) {
  const auto context = ParseTraceparent(kParent);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(Hex(context->trace_id), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(Hex(context->span_id), "b7ad6b7169203331");
  EXPECT_TRUE(context->is_sampled);
  EXPECT_FALSE(ParseTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02")->is_sampled);
  EXPECT_TRUE(ParseTraceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").has_value());
}

TEST(TraceparentTest, WhatIsNoneIsNone) {
  for (const char* header : {
           "",
           "00",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
           "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
           "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "00-00000000000000000000000000000000-b7ad6b7169203331-01",
           "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
           "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
       }) {
    EXPECT_FALSE(ParseTraceparent(header).has_value()) << header;
  }
}

std::map<std::string, otlp::Span> ByName(const std::vector<otlp::Span>& spans) {
  std::map<std::string, otlp::Span> by_name;
  for (const otlp::Span& span : spans) by_name[span.name()] = span;
  return by_name;
}

std::string AttributeOf(const otlp::Span& span, const std::string& key) {
  for (const otlp::KeyValue& attribute : span.attributes()) {
    if (attribute.key() != key) continue;
    return attribute.value().has_int_value() ? std::to_string(attribute.value().int_value())
                                             : attribute.value().string_value();
  }
  return "none";
}

CallTrace MakeCall(absl::Time begin) {
  CallTrace call;
  const TraceContext context = *ParseTraceparent(kParent);
  call.trace_id = context.trace_id;
  call.parent = context.span_id;
  call.span_id = RandomSpanId();
  call.method = "/cadre.v1.GenerationService/Generate";
  call.request_id = "r1";
  call.begin = begin;
  return call;
}

TEST(CallTraceTest, PhasesFollowEachOtherToTheEnd) {
  const absl::Time begin = absl::FromUnixSeconds(1000);
  const CallTrace call = MakeCall(begin);
  RequestTotals totals;
  totals.timings = {
      .queue = absl::Seconds(1), .prefill = absl::Seconds(2), .decode = absl::Seconds(5), .total = absl::Seconds(8)};
  totals.routing.cache_wait = absl::Seconds(3);
  totals.routing.cache_misses = 7;
  totals.usage = {.prompt_tokens = 11, .cached_prompt_tokens = 4, .generated_tokens = 22};
  const auto spans = ByName(MakeSpans(call, begin + absl::Seconds(9), absl::OkStatus(), totals));
  ASSERT_EQ(spans.size(), 5u);
  const otlp::Span& whole = spans.at("cadre.v1.GenerationService/Generate");
  EXPECT_EQ(whole.kind(), otlp::Span::SPAN_KIND_SERVER);
  EXPECT_EQ(whole.parent_span_id(), std::string(call.parent->begin(), call.parent->end()));
  EXPECT_EQ(whole.status().code(), otlp::Status::STATUS_CODE_UNSET);
  EXPECT_EQ(AttributeOf(whole, "rpc.service"), "cadre.v1.GenerationService");
  EXPECT_EQ(AttributeOf(whole, "rpc.method"), "Generate");
  EXPECT_EQ(AttributeOf(whole, "gen_ai.usage.input_tokens"), "11");
  EXPECT_EQ(AttributeOf(whole, "gen_ai.usage.output_tokens"), "22");
  EXPECT_EQ(AttributeOf(whole, "cadre.request_id"), "r1");
  const auto expect = [&](const char* name, int first, int last) {
    const otlp::Span& span = spans.at(name);
    EXPECT_EQ(span.start_time_unix_nano(), (1000 + static_cast<uint64_t>(first)) * 1'000'000'000) << name;
    EXPECT_EQ(span.end_time_unix_nano(), (1000 + static_cast<uint64_t>(last)) * 1'000'000'000) << name;
    EXPECT_EQ(span.trace_id(), whole.trace_id());
    if (&span != &whole) {
      EXPECT_EQ(span.parent_span_id(), whole.span_id());
    }
  };
  expect("cadre.v1.GenerationService/Generate", 0, 9);
  expect("queue", 1, 2);
  expect("prefill", 2, 4);
  expect("decode", 4, 9);
  expect("expert load", 6, 9);
  EXPECT_EQ(AttributeOf(spans.at("expert load"), "cadre.expert_cache.misses"), "7");
}

TEST(CallTraceTest, ARefusalHasNoPhasesAndTellsNoMessage) {
  const CallTrace call = MakeCall(absl::Now());
  const std::vector<otlp::Span> spans =
      MakeSpans(call, absl::Now(), absl::InvalidArgumentError("the prompt \"secret\" is wrong"), std::nullopt);
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].status().code(), otlp::Status::STATUS_CODE_ERROR);
  EXPECT_EQ(AttributeOf(spans[0], "rpc.grpc.status_code"), "3");
  EXPECT_THAT(spans[0].DebugString(), testing::Not(HasSubstr("secret")));
}

class Collector final : public otlp::TraceService::Service {
 public:
  grpc::Status Export(grpc::ServerContext*, const otlp::ExportTraceServiceRequest* request,
                      otlp::ExportTraceServiceResponse* response) override {
    const std::lock_guard lock(mutex);
    for (const otlp::ResourceSpans& resource : request->resource_spans()) {
      service_name = resource.resource().attributes(0).value().string_value();
      for (const otlp::ScopeSpans& scope : resource.scope_spans()) num_spans += scope.spans_size();
    }
    response->mutable_partial_success()->set_rejected_spans(rejects);
    return grpc::Status::OK;
  }
  std::mutex mutex;
  std::string service_name;
  int num_spans = 0;
  int64_t rejects = 0;
};

class TracerTest : public testing::Test {
 protected:
  TracerTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&collector_);
    server_ = builder.BuildAndStart();
    endpoint_ = "http://127.0.0.1:" + std::to_string(port);
  }

  std::unique_ptr<Tracer> MakeTracer(double sample_ratio = 1.0, size_t max_queued = 4096) {
    TracerOptions options = {.exporter = {.endpoint = endpoint_}, .sample_ratio = sample_ratio};
    options.exporter.max_queued = max_queued;
    return Tracer::Create(options).value();
  }

  Collector collector_;
  std::unique_ptr<grpc::Server> server_;
  std::string endpoint_;
};

TEST_F(TracerTest, WhatIsLeftIsSentAtTheEnd) {
  auto tracer = MakeTracer();
  for (int i = 0; i < 3; ++i) tracer->End(*tracer->Begin(std::nullopt), absl::OkStatus(), std::nullopt);
  tracer.reset();
  EXPECT_EQ(collector_.num_spans, 3);
  EXPECT_EQ(collector_.service_name, "cadre");
}

TEST_F(TracerTest, TheCallerDecidesAndElseTheShare) {
  const auto tracer = MakeTracer(/*sample_ratio=*/0.0);
  EXPECT_FALSE(tracer->Begin(std::nullopt).has_value());
  TraceContext context = *ParseTraceparent(kParent);
  const auto call = tracer->Begin(context);
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(Hex(call->trace_id), Hex(context.trace_id));
  EXPECT_EQ(*call->parent, context.span_id);
  context.is_sampled = false;
  EXPECT_FALSE(MakeTracer(1.0)->Begin(context).has_value());
  EXPECT_TRUE(MakeTracer(1.0)->Begin(std::nullopt).has_value());
}

TEST_F(TracerTest, WhatIsTooMuchIsDroppedAndCounted) {
  const auto tracer = MakeTracer(1.0, /*max_queued=*/2);
  for (int i = 0; i < 5; ++i) tracer->End(*tracer->Begin(std::nullopt), absl::OkStatus(), std::nullopt);
  EXPECT_EQ(tracer->counts().dropped, 3);
}

TEST_F(TracerTest, WhatTheCollectorRejectsHasFailed) {
  collector_.rejects = 1;
  TracerOptions options = {.exporter = {.endpoint = endpoint_}};
  options.exporter.interval = absl::Milliseconds(1);
  const auto tracer = Tracer::Create(options).value();
  tracer->End(*tracer->Begin(std::nullopt), absl::OkStatus(), std::nullopt);
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (tracer->counts().failed == 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(tracer->counts().failed, 1);
  EXPECT_EQ(tracer->counts().exported, 0);
}

TEST(TracerEndpointTest, WhatIsWrongIsNamed) {
  const auto problem = [](const char* endpoint) {
    return std::string(Tracer::Create({.exporter = {.endpoint = endpoint}}).status().message());
  };
  EXPECT_THAT(problem("collector"), HasSubstr("--otlp-endpoint: \"collector\": has no port"));
  EXPECT_THAT(problem("collector:0"), HasSubstr("must be 1 to 65535"));
  EXPECT_THAT(problem(":4317"), HasSubstr("has no host"));
  EXPECT_THAT(problem("grpc://collector:4317"), HasSubstr("scheme or a path"));
  EXPECT_EQ(problem("https://collector:4317/"), "");
}

}  // namespace
}  // namespace cadre
