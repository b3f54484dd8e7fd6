// What a server does under pressure, as its clients and its operator see it: refusals with their reasons, and the
// watchdog.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "server/admission.h"
#include "server/errors.h"
#include "server/http_pages.h"
#include "tests/server/in_process_server.h"
#include "tests/support/recording_sink.h"

namespace cadre {
namespace {

Request MakeRequest(InProcessServer& server, std::shared_ptr<TokenSink> sink, int32_t max_tokens) {
  Request request;
  request.prompt = {1, 2, 3};
  request.sampling.max_tokens = max_tokens;
  request.wants_text = false;
  request.arrival = server.host().clock().Now();
  request.sink = std::move(sink);
  request.cancel = std::make_shared<CancelFlag>();
  return request;
}

// Keeps the engine thread where it must never be kept, until it is opened.
class BlockingSink final : public TokenSink {
 public:
  void OnStarted(RequestStart) override {}
  void OnTokens(TokenDelta) override {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return is_open_; });
  }
  void OnFinish(FinishSummary) override {}
  void Open() {
    std::lock_guard lock(mutex_);
    is_open_ = true;
    opened_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool is_open_ = false;
};

TEST(WatchdogTest, AnEngineThatStartsNoStepIsNotReady) {
  InProcessServer server("sim");
  Lifecycle lifecycle = server.MakeLifecycle({.stall_timeout = absl::Minutes(10)});
  std::atomic<bool> stop{false};
  std::thread watch([&] { lifecycle.RunUntilSignal(stop); });
  const auto pages = MakeHttpPages(&server.metrics(), [&] { return lifecycle.is_ready(); });
  const auto is_serving = [&] {
    return HealthOf(server, "readiness") == grpc::health::v1::HealthCheckResponse::SERVING;
  };
  ASSERT_TRUE(Eventually([&] { return lifecycle.is_ready() && is_serving(); }));
  EXPECT_EQ(pages.at("/readyz")().status, 200);
  const auto sink = std::make_shared<BlockingSink>();
  EXPECT_TRUE(server.host().Submit(MakeRequest(server, sink, 5)).ok());
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(Eventually([&] { return lifecycle.is_stalled() && !lifecycle.is_ready() && !is_serving(); }));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));  // two, and what a busy machine takes
  EXPECT_EQ(pages.at("/readyz")().status, 503);
  EXPECT_EQ(pages.at("/healthz")().status, 200);
  EXPECT_EQ(HealthOf(server, "liveness"), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_NE(server.metrics().RenderDefaultPage().find("\ncadre_engine_stalled 1\n"), std::string::npos);
  sink->Open();
  EXPECT_TRUE(Eventually([&] { return lifecycle.is_ready() && !lifecycle.is_stalled() && is_serving(); }));
  EXPECT_EQ(pages.at("/readyz")().status, 200);
  EXPECT_NE(server.metrics().RenderDefaultPage().find("\ncadre_engine_stalled 0\n"), std::string::npos);
  stop = true;
  watch.join();
}

TEST(WatchdogTest, ALongStepIsNoStall) {
  InProcessServer server("sim:step_ms=2500");
  Lifecycle lifecycle = server.MakeLifecycle({.stall_timeout = absl::Minutes(10)});
  std::atomic<bool> stop{false};
  std::atomic<bool> was_stalled{false};
  std::thread watch([&] { lifecycle.RunUntilSignal(stop); });
  const auto sink = std::make_shared<RecordingSink>();
  EXPECT_TRUE(server.host().Submit(MakeRequest(server, sink, 1)).ok());
  EXPECT_TRUE(Eventually([&] {
    was_stalled = was_stalled || lifecycle.is_stalled();
    return sink->finished();
  }));
  EXPECT_FALSE(was_stalled);
  stop = true;
  watch.join();
}

TEST(LoadControlTest, ATenantIsToldThatItHasItsShare) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=50");
  config.max_num_seqs = 1;
  config.max_queue_requests = 4;
  InProcessServer server(config);
  absl::Status status;
  for (int i = 0; i < 8 && status.ok(); ++i) {
    Request request = MakeRequest(server, std::make_shared<RecordingSink>(), 20);
    request.tenant = "greedy";
    status = server.host().Submit(std::move(request));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), "TENANT_QUEUE_FULL") << status;
  EXPECT_TRUE(ErrorRetryDelay(status).has_value());
  EXPECT_EQ(ClassifyRejection(status), RejectReason::kTenantQueueFull);
  EXPECT_TRUE(server.host().Submit(MakeRequest(server, std::make_shared<RecordingSink>(), 1)).ok());
}

TEST(LoadControlTest, ADeadlineOutOfReachIsRefusedAtOnce) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=5");
  config.max_num_seqs = 1;
  InProcessServer server(config);
  const auto submit = [&](int32_t max_tokens, absl::Duration time) {
    Request request = MakeRequest(server, std::make_shared<RecordingSink>(), max_tokens);
    request.deadline = request.arrival + time;
    return server.host().Submit(std::move(request));
  };
  const auto warm_up = std::make_shared<RecordingSink>();
  ASSERT_TRUE(server.host().Submit(MakeRequest(server, warm_up, 30)).ok());
  ASSERT_TRUE(Eventually([&] { return warm_up->finished(); }));

  const absl::Status never = submit(2000, absl::Seconds(1));  // ten seconds
  EXPECT_EQ(never.code(), absl::StatusCode::kDeadlineExceeded) << never;
  EXPECT_EQ(ErrorReason(never), "DEADLINE_UNREACHABLE");
  EXPECT_FALSE(ErrorRetryDelay(never).has_value());

  for (int i = 0; i < 10; ++i) ASSERT_TRUE(submit(500, absl::Hours(1)).ok());  // 25 seconds
  const absl::Status later = submit(20, absl::Seconds(5));
  EXPECT_EQ(later.code(), absl::StatusCode::kResourceExhausted) << later;
  EXPECT_EQ(ErrorReason(later), "DEADLINE_UNREACHABLE");
  EXPECT_TRUE(ErrorRetryDelay(later).has_value());
  EXPECT_EQ(ClassifyRejection(later), RejectReason::kDeadlineUnreachable);
}

TEST(LoadControlTest, DeadlineAdmissionCanBeTurnedOff) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=5");
  config.deadline_admission = false;
  InProcessServer server(config);
  const auto warm_up = std::make_shared<RecordingSink>();
  ASSERT_TRUE(server.host().Submit(MakeRequest(server, warm_up, 30)).ok());
  ASSERT_TRUE(Eventually([&] { return warm_up->finished(); }));
  Request request = MakeRequest(server, std::make_shared<RecordingSink>(), 2000);
  request.deadline = request.arrival + absl::Milliseconds(100);
  EXPECT_TRUE(server.host().Submit(std::move(request)).ok());
}

}  // namespace
}  // namespace cadre
