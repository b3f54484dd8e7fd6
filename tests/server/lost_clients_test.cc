// Clients that vanish, alone or all together, and calls that differ from others in odd ways: deadlines, ids.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/simulated_runner.h"
#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

using Reader = grpc::ClientReader<v1::GenerateResponse>;

// A call of a client of its own, with a connection of its own.
struct Client {
  Client(InProcessServer& server, const v1::GenerateRequest& request) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub = v1::GenerationService::NewStub(grpc::CreateCustomChannel(HostPort("127.0.0.1", server.grpc().port()),
                                                                    grpc::InsecureChannelCredentials(), arguments));
    reader = stub->Generate(&context, request);
  }
  ~Client() {
    context.TryCancel();
    reader->Finish();
  }

  grpc::ClientContext context;
  std::unique_ptr<v1::GenerationService::Stub> stub;
  std::unique_ptr<Reader> reader;
};

bool IsAtRest(InProcessServer& server) { return server.IsAtRest() && server.host().num_open_calls() == 0; }

// Everybody who waits gives up: nothing of what they asked is computed, and who runs hears nothing of it.
TEST(LostClientsTest, AFullQueueOfTheDeadIsNeverComputed) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=4");
  config.max_num_seqs = 1;
  config.max_queue_requests = 40;
  InProcessServer server(config);
  const std::vector<int32_t> prompt = {1, 2, 3};
  Client running(server, IdsRequest(prompt, 150));
  v1::GenerateResponse event;
  ASSERT_TRUE(running.reader->Read(&event));
  std::vector<std::unique_ptr<Client>> waiting;
  waiting.reserve(40);
  for (int32_t i = 0; i < 40; ++i) waiting.push_back(std::make_unique<Client>(server, IdsRequest({i, 7, 8, 9}, 100)));
  ASSERT_TRUE(Eventually([&] { return server.host().Snapshot().waiting_requests == 40; }));
  waiting.clear();
  EXPECT_TRUE(Eventually([&] { return server.host().Snapshot().waiting_requests == 0; }));
  const StreamResult result = [&] {
    StreamResult rest;
    while (running.reader->Read(&event)) {
      rest.token_ids.insert(rest.token_ids.end(), event.delta().token_ids().begin(), event.delta().token_ids().end());
    }
    return rest;
  }();
  EXPECT_EQ(result.token_ids, SimulatedRunner::ExpectedTokens(prompt, 150, 1024));
  EXPECT_TRUE(Eventually([&] { return IsAtRest(server); }));
  const EngineSnapshot snapshot = server.host().Snapshot();
  EXPECT_EQ(snapshot.finished_ok, 1);
  EXPECT_EQ(snapshot.finished_cancelled, 40);
  EXPECT_EQ(snapshot.prefill_tokens + snapshot.decode_tokens, 3 + 149);
}

// Connections of their own: what ends with one of them is its own call and nothing else.
TEST(LostClientsTest, ManyClientsThatLeaveAtOnceLeaveNothing) {
  InProcessServer server("sim:step_ms=3");
  for (int round = 0; round < 5; ++round) {
    std::vector<std::unique_ptr<Client>> clients;
    clients.reserve(30);
    for (int32_t i = 0; i < 30; ++i) clients.push_back(std::make_unique<Client>(server, IdsRequest({i, 1}, 4000)));
    ASSERT_TRUE(Eventually([&] { return server.host().Snapshot().running_requests == 30; }));
    clients.clear();
    ASSERT_TRUE(Eventually([&] { return IsAtRest(server); }));
  }
  EXPECT_EQ(server.host().Snapshot().finished_cancelled, 150);
}

// An id is for logs: two calls with the same one are two calls.
TEST(LostClientsTest, CallsWithTheSameIdAreStrangers) {
  InProcessServer server("sim:step_ms=2");
  v1::GenerateRequest first_request = IdsRequest({1, 2, 3}, 4000);
  v1::GenerateRequest second_request = IdsRequest({4, 5, 6}, 20);
  first_request.set_request_id("twin");
  second_request.set_request_id("twin");
  auto first = std::make_unique<Client>(server, first_request);
  Client second(server, second_request);
  v1::GenerateResponse event;
  ASSERT_TRUE(first->reader->Read(&event));
  first.reset();
  std::vector<int32_t> tokens;
  while (second.reader->Read(&event)) {
    tokens.insert(tokens.end(), event.delta().token_ids().begin(), event.delta().token_ids().end());
  }
  EXPECT_EQ(tokens, SimulatedRunner::ExpectedTokens(std::vector<int32_t>{4, 5, 6}, 20, 1024));
}

TEST(LostClientsTest, AbsurdDeadlinesAreDeadlines) {
  InProcessServer server("sim");
  const auto code = [&](std::chrono::system_clock::time_point deadline) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    return ReadAll(*server.generation->Generate(&context, IdsRequest({1, 2}, 3))).status.error_code();
  };
  using std::chrono::system_clock;
  const auto now = system_clock::now();
  ASSERT_TRUE(Generate(server, IdsRequest({1}, 40)).status.ok());  // the pace is known from here on
  EXPECT_EQ(code(now), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(code(now - std::chrono::hours(24 * 365 * 50)), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(code(now + std::chrono::hours(24 * 365 * 100)), grpc::StatusCode::OK);
  EXPECT_EQ(code(system_clock::time_point::max()), grpc::StatusCode::OK);
  EXPECT_TRUE(Eventually([&] { return IsAtRest(server); }));
}

// The longer the queue, the later refused clients are asked to come again, and not all at once.
TEST(LostClientsTest, TheTimeToRetryRisesWithTheQueueAndIsSpread) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=20");
  config.max_num_seqs = 1;
  config.max_queue_requests = 1000;
  config.max_tenant_queue_share = 1.0;
  InProcessServer server(config);
  absl::Time now = server.host().clock().Now();
  server.host().ObserveProgress(now);
  ASSERT_TRUE(Generate(server, IdsRequest({1}, 1)).status.ok());
  ASSERT_TRUE(Generate(server, IdsRequest({1}, 1)).status.ok());
  now += absl::Milliseconds(400);
  server.host().ObserveProgress(now);  // at least 5 a second
  // Nothing to do is no slowness: after an idle minute it is still so fast.
  for (int i = 0; i < 60; ++i) server.host().ObserveProgress(now += absl::Seconds(1));
  std::vector<std::unique_ptr<Client>> clients;
  absl::Duration previous = absl::ZeroDuration();
  for (const int64_t num_waiting : {5, 15, 45}) {
    while (std::ssize(clients) < num_waiting + 1) {
      clients.push_back(std::make_unique<Client>(server, IdsRequest({2}, 4000)));
    }
    ASSERT_TRUE(Eventually([&] { return server.host().Snapshot().waiting_requests == num_waiting; }));
    absl::Duration least = absl::InfiniteDuration(), most = absl::ZeroDuration();
    for (int i = 0; i < 200; ++i) {
      const absl::Duration delay = server.host().RetryDelay();
      least = std::min(least, delay);
      most = std::max(most, delay);
    }
    EXPECT_GT(least, previous);
    EXPECT_LT(most, absl::Seconds(static_cast<double>(num_waiting)));
    EXPECT_GT(most, 1.2 * least);
    previous = most;
  }
}

}  // namespace
}  // namespace cadre
