#include "server/poll_heartbeat.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <latch>
#include <utility>

#include "absl/time/clock.h"

namespace cadre {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(5);

}  // namespace

PollHeartbeat::PollHeartbeat(std::shared_ptr<grpc::Channel> channel, absl::Duration interval)
    : channel_(std::move(channel)), interval_(interval), thread_([this] { Run(); }) {}

PollHeartbeat::~PollHeartbeat() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void PollHeartbeat::Run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, absl::ToChronoNanoseconds(interval_), [this] { return stopping_; })) {
    lock.unlock();
    Beat();
    lock.lock();
  }
}

void PollHeartbeat::Beat() {
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  const grpc::ByteBuffer request(nullptr, 0);  // an empty HealthCheckRequest
  grpc::ByteBuffer response;
  std::latch done(1);
  // Whatever the answer: that it came through one of the threads is what counts.
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                 [&done](const grpc::Status&) { done.count_down(); });
  done.wait();
}

}  // namespace cadre
