#include "server/poll_heartbeat.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

namespace cadre {
namespace {

// Remembers which methods were called, and knows none.
class CallCounter final : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    struct Reactor final : grpc::ServerGenericBidiReactor {
      Reactor() { Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "")); }
      void OnDone() override { delete this; }
    };
    {
      const std::lock_guard lock(mutex_);
      ++num_calls_;
      last_method_ = context->method();
    }
    changed_.notify_all();
    return new Reactor;
  }

  bool AwaitCalls(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return num_calls_ >= count; });
  }
  std::string last_method() {
    const std::lock_guard lock(mutex_);
    return last_method_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_calls_ = 0;
  std::string last_method_;
};

TEST(PollHeartbeatTest, CallsUntilItIsGone) {
  CallCounter counter;
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(&counter);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  {
    PollHeartbeat heartbeat(server->InProcessChannel({}), absl::Milliseconds(1));
    EXPECT_TRUE(counter.AwaitCalls(3));
  }
  EXPECT_EQ(counter.last_method(), "/grpc.health.v1.Health/Check");
  server->Shutdown();
}

TEST(PollHeartbeatTest, DoesNotWaitForItsIntervalToEnd) {
  grpc::ServerBuilder builder;
  CallCounter counter;
  builder.RegisterCallbackGenericService(&counter);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  { PollHeartbeat heartbeat(server->InProcessChannel({}), absl::Hours(1)); }
  EXPECT_FALSE(counter.last_method() == "/grpc.health.v1.Health/Check");
  server->Shutdown();
}

}  // namespace
}  // namespace cadre
