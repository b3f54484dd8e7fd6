// Statistics, models, health, ports and draining, through a real channel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

constexpr auto kServing = grpc::health::v1::HealthCheckResponse::SERVING;
constexpr auto kNotServing = grpc::health::v1::HealthCheckResponse::NOT_SERVING;
constexpr auto kUnknown = grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;

int64_t Sum(const google::protobuf::RepeatedField<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

TEST(ExpertServiceTest, CountsEveryAssignment) {
  InProcessServer server("sim:layers=3,experts=8,top_k=2");
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3, 4}, 10)).status.ok());
  grpc::ClientContext context;
  v1::GetExpertStatsResponse response;
  ASSERT_TRUE(server.experts->GetExpertStats(&context, v1::GetExpertStatsRequest(), &response).ok());
  const v1::ExpertStats& stats = response.stats();
  EXPECT_EQ(stats.num_experts(), 8);
  EXPECT_EQ(stats.top_k(), 2);
  EXPECT_EQ(stats.window_tokens(), 4 + 10 - 1);
  ASSERT_EQ(stats.total_size(), 3);
  ASSERT_EQ(stats.window_size(), 3);
  for (const v1::LayerStats& layer : stats.total()) {
    EXPECT_EQ(layer.tokens(), 4 + 10 - 1);
    EXPECT_EQ(layer.processed_size(), 8);
    EXPECT_EQ(Sum(layer.processed()), layer.tokens() * 2);
    EXPECT_GT(layer.health().load_entropy(), 0.0);
    EXPECT_LE(layer.health().load_entropy(), 1.0);
  }
}

TEST(ExpertServiceTest, AnswersOnlyWhatWasAskedFor) {
  InProcessServer server("sim:layers=3");
  v1::GetExpertStatsRequest request;
  request.set_scope(v1::STATS_SCOPE_TOTAL);
  request.add_layers(2);
  request.set_include_experts(false);
  grpc::ClientContext context;
  v1::GetExpertStatsResponse response;
  ASSERT_TRUE(server.experts->GetExpertStats(&context, request, &response).ok());
  ASSERT_EQ(response.stats().total_size(), 1);
  EXPECT_EQ(response.stats().total(0).layer(), 2);
  EXPECT_EQ(response.stats().total(0).processed_size(), 0);
  EXPECT_EQ(response.stats().window_size(), 0);

  request.add_layers(3);
  grpc::ClientContext bad_context;
  const grpc::Status status = server.experts->GetExpertStats(&bad_context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field(), "layers[1]");
}

TEST(ExpertServiceTest, ADeltaStreamAddsUpToTheTotal) {
  InProcessServer server("sim:layers=2,top_k=2,step_ms=2");
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_nanos(100'000'000);
  request.set_delta(true);
  request.set_scope(v1::STATS_SCOPE_TOTAL);
  grpc::ClientContext context;
  auto reader = server.experts->WatchExpertStats(&context, request);
  std::thread client([&] { EXPECT_TRUE(Generate(server, IdsRequest({1, 2, 3}, 100)).status.ok()); });
  int64_t tokens = 0;
  int messages = 0;
  v1::WatchExpertStatsResponse message;
  while (tokens < 102 && reader->Read(&message)) {
    ++messages;
    tokens += message.stats().total(1).tokens();
    EXPECT_EQ(Sum(message.stats().total(1).processed()), message.stats().total(1).tokens() * 2);
  }
  EXPECT_EQ(tokens, 102);
  EXPECT_GE(messages, 2);
  client.join();
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(ExpertServiceTest, ADeltaStreamIsNotMovedByAReset) {
  InProcessServer server("sim");
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3}, 8)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_nanos(200'000'000);
  request.set_delta(true);
  grpc::ClientContext context;
  auto reader = server.experts->WatchExpertStats(&context, request);
  v1::WatchExpertStatsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.stats().total(0).tokens(), 10);
  server.host().ResetExperts();
  // More tokens than before the reset.
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3}, 18)).status.ok());
  int64_t tokens = 0;
  while (tokens < 20 && reader->Read(&message)) {
    EXPECT_GE(message.stats().total(0).tokens(), 0);
    tokens += message.stats().total(0).tokens();
    EXPECT_EQ(Sum(message.stats().total(0).processed()), message.stats().total(0).tokens() * message.stats().top_k());
    if (message.stats().total(0).tokens() == 0 && server.IsAtRest() && tokens > 0) break;
  }
  EXPECT_EQ(tokens, 20);
  context.TryCancel();
  reader->Finish();
}

TEST(ExpertServiceTest, TheIntervalHasLimits) {
  InProcessServer server("sim");
  for (const int nanos : {0, 99'999'999, -1}) {
    v1::WatchExpertStatsRequest request;
    request.mutable_interval()->set_nanos(nanos);
    grpc::ClientContext context;
    const grpc::Status status = server.experts->WatchExpertStats(&context, request)->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field(), "interval");
  }
}

TEST(ExpertServiceTest, ResetTellsWhatWasAndStartsAtZero) {
  InProcessServer server("sim");
  ASSERT_TRUE(Generate(server, IdsRequest({1, 2, 3}, 4)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  grpc::ClientContext reset_context;
  v1::ResetStatsResponse reset;
  ASSERT_TRUE(server.experts->ResetStats(&reset_context, v1::ResetStatsRequest(), &reset).ok());
  EXPECT_EQ(reset.last_stats().total(0).tokens(), 6);
  grpc::ClientContext context;
  v1::GetExpertStatsResponse response;
  ASSERT_TRUE(server.experts->GetExpertStats(&context, v1::GetExpertStatsRequest(), &response).ok());
  EXPECT_EQ(response.stats().total(0).tokens(), 0);
}

// A simulated model has experts that cannot be full.
TEST(ExpertServiceTest, AModelWhoseExpertsCannotBeLimitedSaysSo) {
  InProcessServer server("sim");
  const auto set = [&](v1::CapacityScope scope, v1::SetCapacityPolicyResponse* response) {
    grpc::ClientContext context;
    v1::SetCapacityPolicyRequest request;
    request.mutable_policy()->set_scope(scope);
    return server.experts->SetCapacityPolicy(&context, request, response);
  };
  v1::SetCapacityPolicyResponse response;
  const grpc::Status status = set(v1::CAPACITY_SCOPE_REQUEST, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "CAPACITY_POLICY_REFUSED");
  EXPECT_TRUE(set(v1::CAPACITY_SCOPE_OFF, &response).ok());
  EXPECT_EQ(response.previous_policy().scope(), v1::CAPACITY_SCOPE_OFF);

  grpc::ClientContext context;
  const grpc::Status unset = server.experts->SetCapacityPolicy(&context, v1::SetCapacityPolicyRequest(), &response);
  EXPECT_EQ(unset.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(unset)->field_violations(0).field(), "policy");

  v1::GenerateRequest limited = IdsRequest({1, 2, 3, 4}, 10);
  limited.mutable_scheduling()->mutable_capacity()->set_scope(v1::CAPACITY_SCOPE_REQUEST);
  EXPECT_EQ(Generate(server, limited).status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  limited.mutable_scheduling()->mutable_capacity()->set_scope(v1::CAPACITY_SCOPE_OFF);
  EXPECT_TRUE(Generate(server, limited).status.ok());
}

TEST(ModelServiceTest, TellsStateLimitsAndSupportedFields) {
  InProcessServer server(InProcessServer::Config("sim:max_len=512,blocks=16,block_size=16"), /*load=*/false);
  grpc::ClientContext loading_context;
  v1::GetModelResponse response;
  server.host().SetLoadProgress(0.5);
  ASSERT_TRUE(server.models->GetModel(&loading_context, v1::GetModelRequest(), &response).ok());
  EXPECT_EQ(response.model().state(), v1::MODEL_STATE_LOADING);
  EXPECT_EQ(response.model().load_progress(), 0.5);
  EXPECT_EQ(response.model().name(), "test-model");

  server.Load();
  grpc::ClientContext context;
  ASSERT_TRUE(server.models->GetModel(&context, v1::GetModelRequest(), &response).ok());
  const v1::Model& model = response.model();
  EXPECT_EQ(model.state(), v1::MODEL_STATE_READY);
  EXPECT_EQ(model.architecture().family(), "simulated");
  EXPECT_EQ(model.limits().max_model_len(), 256);  // the pool is smaller than the context
  EXPECT_EQ(model.default_sampling().temperature(), 1.0f);
  EXPECT_THAT(std::vector<std::string>(model.supported_fields().begin(), model.supported_fields().end()),
              ::testing::Contains("sampling.temperature"));
  grpc::ClientContext list_context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(server.models->ListModels(&list_context, v1::ListModelsRequest(), &list).ok());
  EXPECT_EQ(list.models_size(), 1);
}

v1::ModelLoad LoadOf(InProcessServer& server) {
  grpc::ClientContext context;
  v1::GetLoadResponse response;
  EXPECT_TRUE(server.models->GetLoad(&context, v1::GetLoadRequest(), &response).ok());
  return response.load();
}

TEST(ModelServiceTest, LoadCountsWhatRunsWaitsAndEnded) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=2,blocks=64,block_size=16");
  config.max_num_seqs = 1;
  config.max_queue_requests = 7;
  InProcessServer server(config, /*load=*/false);
  EXPECT_EQ(LoadOf(server).state(), v1::MODEL_STATE_LOADING);
  EXPECT_EQ(LoadOf(server).kv_blocks_total(), 0);
  server.Load();

  // One runs for as long as the test wants, one waits behind it.
  grpc::ClientContext running_context;
  const auto running = server.generation->Generate(&running_context, IdsRequest({1, 2, 3}, 1000));
  v1::GenerateResponse event;
  ASSERT_TRUE(running->Read(&event) && running->Read(&event) && event.has_delta());
  grpc::ClientContext waiting_context;
  const auto waiting = server.generation->Generate(&waiting_context, IdsRequest({1, 2, 3, 4, 5}, 10));
  ASSERT_TRUE(Eventually([&] { return LoadOf(server).waiting_requests() == 1; }));
  const v1::ModelLoad busy = LoadOf(server);
  EXPECT_EQ(busy.state(), v1::MODEL_STATE_READY);
  EXPECT_EQ(busy.running_requests(), 1);
  EXPECT_EQ(busy.waiting_tokens(), 5);
  EXPECT_GT(busy.oldest_wait().seconds() * 1'000'000'000 + busy.oldest_wait().nanos(), 0);
  EXPECT_EQ(busy.max_running_requests(), 1);
  EXPECT_EQ(busy.max_waiting_requests(), 7);
  EXPECT_EQ(busy.kv_blocks_total(), 64);
  EXPECT_GT(busy.kv_blocks_in_use(), 0);
  EXPECT_EQ(busy.kv_blocks_free() + busy.kv_blocks_in_use() + busy.kv_blocks_cached(), 64);
  EXPECT_EQ(busy.prompt_tokens(), 3);
  EXPECT_GE(busy.generated_tokens(), 1);

  running_context.TryCancel();
  while (running->Read(&event)) continue;
  running->Finish();
  const StreamResult second = ReadAll(*waiting);
  ASSERT_TRUE(second.status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  const v1::ModelLoad idle = LoadOf(server);
  EXPECT_EQ(idle.running_requests() + idle.waiting_requests() + idle.waiting_tokens(), 0);
  EXPECT_EQ(idle.admitted_requests(), 2);
  EXPECT_EQ(idle.finished_requests(), 1);
  EXPECT_EQ(idle.cancelled_requests(), 1);
  EXPECT_EQ(idle.deadline_exceeded_requests() + idle.failed_requests(), 0);
  EXPECT_EQ(idle.prompt_tokens(), 8);
  EXPECT_EQ(idle.prefill_tokens(), 8);
  EXPECT_GT(idle.steps(), busy.steps());
  EXPECT_EQ(idle.kv_blocks_in_use(), 0);
}

TEST(ModelServiceTest, LoadCountsPrefixesThatWereFound) {
  InProcessServer server("sim:block_size=4");
  const std::vector<int32_t> prompt = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  ASSERT_TRUE(Generate(server, IdsRequest(prompt, 2)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  const v1::ModelLoad first = LoadOf(server);
  EXPECT_EQ(first.prefix_cache_query_tokens(), 9);
  EXPECT_EQ(first.prefix_cache_hit_tokens(), 0);
  EXPECT_GT(first.kv_blocks_cached(), 0);
  ASSERT_TRUE(Generate(server, IdsRequest(prompt, 2)).status.ok());
  ASSERT_TRUE(Eventually([&] { return server.IsAtRest(); }));
  EXPECT_EQ(LoadOf(server).prefix_cache_query_tokens(), 18);
  EXPECT_EQ(LoadOf(server).prefix_cache_hit_tokens(), 8);
}

TEST(ModelServiceTest, LoadOfAnotherModelIsNotFound) {
  InProcessServer server("sim");
  v1::GetLoadRequest request;
  request.set_model("somebody-elses");
  grpc::ClientContext context;
  v1::GetLoadResponse response;
  const grpc::Status status = server.models->GetLoad(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(status), "MODEL_NOT_FOUND");
}

TEST(HealthTest, FollowsReadinessFromTheFirstMoment) {
  InProcessServer server(InProcessServer::Config("sim"), /*load=*/false);
  const std::vector<std::string> names = {"", "readiness", "cadre.v1.GenerationService", "cadre.v1.ExpertService",
                                          "cadre.v1.ModelService"};
  for (const std::string& name : names) EXPECT_EQ(HealthOf(server, name), kNotServing) << name;
  EXPECT_EQ(HealthOf(server, "liveness"), kServing);
  EXPECT_EQ(HealthOf(server, "nobody"), kUnknown);
  server.Load();
  for (const std::string& name : names) EXPECT_EQ(HealthOf(server, name), kServing) << name;

  Lifecycle lifecycle = server.MakeLifecycle({.drain_timeout = absl::ZeroDuration()});
  std::atomic<bool> stop{false};
  std::thread stopper([&] {
    EXPECT_TRUE(Eventually([&] { return lifecycle.is_ready(); }));
    stop = true;
  });
  lifecycle.RunUntilSignal(stop);
  stopper.join();
  lifecycle.Drain();
  for (const std::string& name : names) EXPECT_EQ(HealthOf(server, name), kNotServing) << name;
  EXPECT_EQ(HealthOf(server, "liveness"), kServing);
}

TEST(HealthTest, AStuckEngineIsNotReadyButLive) {
  InProcessServer server("sim:step_ms=1500");
  Lifecycle lifecycle = server.MakeLifecycle({.stall_timeout = absl::Milliseconds(200)});
  std::atomic<bool> stop{false};
  std::thread watch([&] { lifecycle.RunUntilSignal(stop); });
  ASSERT_TRUE(Eventually([&] { return lifecycle.is_ready(); }));
  std::thread client([&] { EXPECT_TRUE(Generate(server, IdsRequest({1}, 1)).status.ok()); });
  EXPECT_TRUE(Eventually([&] { return HealthOf(server, "readiness") == kNotServing; }));
  EXPECT_EQ(HealthOf(server, "liveness"), kServing);
  EXPECT_TRUE(lifecycle.is_stalled());
  EXPECT_NE(server.metrics().RenderDefaultPage().find("\ncadre_engine_stalled 1\n"), std::string::npos);
  client.join();
  EXPECT_TRUE(Eventually([&] { return HealthOf(server, "readiness") == kServing; }));
  stop = true;
  watch.join();
}

TEST(DrainTest, AcceptedRequestsFinishAndNewOnesAreSentElsewhere) {
  InProcessServer server("sim:step_ms=5");
  grpc::ClientContext context;
  auto reader = server.generation->Generate(&context, IdsRequest({1, 2}, 60));
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  Lifecycle lifecycle = server.MakeLifecycle({.drain_timeout = absl::Seconds(20)});
  const absl::Time start = absl::Now();
  std::thread drain([&] { lifecycle.Drain(); });
  ASSERT_TRUE(Eventually([&] { return server.host().state() == ModelHost::State::kDraining; }));
  const grpc::Status refused = Generate(server, IdsRequest({1}, 1)).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(refused), "DRAINING");
  EXPECT_TRUE(DetailOf<google::rpc::RetryInfo>(refused).has_value());
  int tokens = 0;
  while (reader->Read(&event)) tokens += event.delta().token_ids_size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 60);
  drain.join();
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST(DrainTest, RequestsAreAcceptedUntilBalancersHaveNoticed) {
  InProcessServer server("sim");
  Lifecycle lifecycle = server.MakeLifecycle({.drain_delay = absl::Milliseconds(500)});
  std::atomic<bool> stop{false};
  std::thread drain([&] {
    lifecycle.RunUntilSignal(stop);
    lifecycle.Drain();
  });
  EXPECT_TRUE(Eventually([&] { return lifecycle.is_ready(); }));
  stop = true;
  EXPECT_TRUE(Eventually([&] { return HealthOf(server, "readiness") == kNotServing; }));
  EXPECT_TRUE(Generate(server, IdsRequest({1}, 3)).status.ok());
  drain.join();
  EXPECT_EQ(ReasonOf(Generate(server, IdsRequest({1}, 3)).status), "DRAINING");
}

// What runs needs it as before, and what was given up for it must come back.
TEST(DrainTest, TheMemoryIsWatchedToTheEnd) {
  InProcessServer server("sim:step_ms=10");
  grpc::ClientContext context;
  auto reader = server.generation->Generate(&context, IdsRequest({1, 2}, 4000));
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  const MonotonicClock clock;
  MemoryGuard memory([] { return HostMemoryUse{.room = int64_t{1} << 40, .resident = 0}; }, &clock);
  int num_readings = 0;
  ModelHost::State last_state = ModelHost::State::kReady;
  Lifecycle lifecycle = server.MakeLifecycle({.drain_delay = absl::Milliseconds(300),
                                              .drain_timeout = absl::Milliseconds(300),
                                              .on_memory =
                                                  [&](const MemoryReading&) {
                                                    ++num_readings;
                                                    last_state = server.host().state();
                                                  }},
                                             &memory);
  lifecycle.Drain();
  EXPECT_GE(num_readings, 2);
  EXPECT_EQ(last_state, ModelHost::State::kDraining);
  server.host().Stop();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(ReasonOf(reader->Finish()), "DRAINING");
}

TEST(DrainTest, WhatStillRunsAfterTheTimeoutEndsWithUnavailable) {
  InProcessServer server("sim:step_ms=10");
  grpc::ClientContext context;
  auto reader = server.generation->Generate(&context, IdsRequest({1, 2}, 4000));
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  Lifecycle lifecycle = server.MakeLifecycle({.drain_timeout = absl::Milliseconds(100)});
  lifecycle.Drain();
  server.host().Stop();
  while (reader->Read(&event)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "DRAINING");
  // Counted, too.
  EXPECT_EQ(server.host().Snapshot().num_finished(), 1);
  EXPECT_TRUE(server.IsAtRest());
}

TEST(DrainTest, WatchersDoNotHoldTheEndUp) {
  auto server = std::make_unique<InProcessServer>("sim");
  grpc::ClientContext health_context;
  grpc::health::v1::HealthCheckRequest health_request;
  auto health = grpc::health::v1::Health::NewStub(server->channel());
  auto health_reader = health->Watch(&health_context, health_request);
  grpc::health::v1::HealthCheckResponse health_message;
  ASSERT_TRUE(health_reader->Read(&health_message));
  grpc::ClientContext context;
  v1::WatchExpertStatsRequest request;
  request.mutable_interval()->set_seconds(3600);
  auto reader = server->experts->WatchExpertStats(&context, request);
  v1::WatchExpertStatsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  const absl::Time start = absl::Now();
  server->grpc().Shutdown(absl::Milliseconds(100));
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_FALSE(reader->Finish().ok());
  while (health_reader->Read(&health_message)) {
  }
  EXPECT_FALSE(health_reader->Finish().ok());
}

TEST(PortTest, ATakenPortIsRefusedWithItsReason) {
  InProcessServer server("sim");
  const absl::Status status = CheckPortFree("127.0.0.1", server.grpc().port());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("in use"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(HostPort("127.0.0.1", server.grpc().port())));
  EXPECT_FALSE(CheckPortFree("192.0.2.1", 0).ok());  // not an address of this machine
  EXPECT_FALSE(CheckPortFree("no such host", 0).ok());
  EXPECT_TRUE(CheckPortFree("127.0.0.1", 0).ok());
}

}  // namespace
}  // namespace cadre
