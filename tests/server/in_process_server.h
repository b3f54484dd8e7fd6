// A whole server over a simulated model, in the test's own process, and a real channel to it.
#ifndef CADRE_TESTS_SERVER_IN_PROCESS_SERVER_H_
#define CADRE_TESTS_SERVER_IN_PROCESS_SERVER_H_

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cadre/v1/expert_service.grpc.pb.h"
#include "cadre/v1/generation_service.grpc.pb.h"
#include "cadre/v1/model_service.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/grpc_server.h"
#include "server/lifecycle.h"
#include "server/memory_guard.h"
#include "server/metrics.h"
#include "server/model_host.h"
#include "server/model_loader.h"

namespace cadre {

// The detail of a type that came with an error; absent when there is none.
template <typename Detail>
std::optional<Detail> DetailOf(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& any : details.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

inline std::string ReasonOf(const grpc::Status& status) {
  const auto info = DetailOf<google::rpc::ErrorInfo>(status);
  return info.has_value() ? info->reason() : "(no ErrorInfo)";
}

// Waits up to five seconds.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + absl::Seconds(5);
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

class InProcessServer {
 public:
  // `config.model` says which simulator. Loads it unless told to wait for Load.
  // `memory` may be null; else it outlives this.
  explicit InProcessServer(ServerConfig config, bool load = true, TokenStreamOptions stream = {},
                           MemoryGuard* memory = nullptr, absl::Duration request_timeout = absl::Seconds(30))
      : config_(std::move(config)) {
    stream.pump = &stream_pump_;
    auto server =
        GrpcServer::Start({.port = 0, .vllm_engine_api = true, .access = access_}, {.host = &host_,
                                                                                    .metrics = &metrics_,
                                                                                    .work_queue = &work_queue_,
                                                                                    .stream = stream,
                                                                                    .memory = memory,
                                                                                    .request_timeout = request_timeout,
                                                                                    .access = access_.get()});
    EXPECT_TRUE(server.ok()) << server.status();
    grpc_ = *std::move(server);
    channel_ = grpc::CreateChannel(HostPort("127.0.0.1", grpc_->port()), grpc::InsecureChannelCredentials());
    generation = v1::GenerationService::NewStub(channel_);
    experts = v1::ExpertService::NewStub(channel_);
    models = v1::ModelService::NewStub(channel_);
    if (load) Load();
  }
  explicit InProcessServer(const std::string& model) : InProcessServer(Config(model)) {}
  ~InProcessServer() { grpc_->Shutdown(absl::ZeroDuration()); }

  static ServerConfig Config(const std::string& model) {
    ServerConfig config;
    config.model = model;
    config.served_model_name = "test-model";
    return config;
  }

  // `wrap` may put something between the engine and the simulator.
  using Wrap = std::function<std::unique_ptr<ModelRunner>(std::unique_ptr<ModelRunner>)>;
  void Load(const Wrap& wrap = nullptr) {
    auto model = LoadModel(config_, nullptr, [](double) {});
    ASSERT_TRUE(model.ok()) << model.status();
    if (wrap) model->runner = wrap(std::move(model->runner));
    host_.Install(*std::move(model));
    grpc_->health().SetReady(true);
  }

  ModelHost& host() { return host_; }
  Metrics& metrics() { return metrics_; }
  WorkQueue& work_queue() { return work_queue_; }
  GrpcServer& grpc() { return *grpc_; }
  AccessControl& access() { return *access_; }
  const std::shared_ptr<grpc::Channel>& channel() { return channel_; }
  Lifecycle MakeLifecycle(LifecycleOptions options, MemoryGuard* memory = nullptr) {
    return {options, &host_, &grpc_->health(), &metrics_, memory};
  }

  // No request in flight, and no KV block in use.
  bool IsAtRest() const {
    const EngineSnapshot s = host_.Snapshot();
    return s.waiting_requests == 0 && s.running_requests == 0 && s.kv_blocks_in_use == 0 &&
           s.admitted_requests == s.num_finished();
  }

  std::unique_ptr<v1::GenerationService::Stub> generation;
  std::unique_ptr<v1::ExpertService::Stub> experts;
  std::unique_ptr<v1::ModelService::Stub> models;

 private:
  const ServerConfig config_;
  const std::shared_ptr<const Clock> clock_ = std::make_shared<MonotonicClock>();
  Metrics metrics_{{.version = "test", .revision = "test"}};
  ModelHost host_{config_.served_model_name, clock_, &metrics_};
  const std::shared_ptr<AccessControl> access_ = std::make_shared<AccessControl>(/*operator_services=*/true, &metrics_);
  WorkQueue work_queue_{64};
  StreamPump stream_pump_;
  std::unique_ptr<GrpcServer> grpc_;
  std::shared_ptr<grpc::Channel> channel_;
};

// As grpc.health.v1 tells it; SERVICE_UNKNOWN for every error.
inline grpc::health::v1::HealthCheckResponse::ServingStatus HealthOf(InProcessServer& server, const std::string& name) {
  auto stub = grpc::health::v1::Health::NewStub(server.channel());
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(name);
  grpc::health::v1::HealthCheckResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub->Check(&context, request, &response);
  return status.ok() ? response.status() : grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;
}

// All events of one stream.
struct StreamResult {
  grpc::Status status;
  std::optional<v1::StartedEvent> started;
  std::string text;
  std::vector<int32_t> token_ids;
  int num_deltas = 0;
  std::optional<v1::FinishedEvent> finished;
};

// Reads a stream to its end and checks the order of its events.
inline StreamResult ReadAll(grpc::ClientReader<v1::GenerateResponse>& reader) {
  StreamResult result;
  v1::GenerateResponse event;
  while (reader.Read(&event)) {
    EXPECT_FALSE(result.finished.has_value()) << "an event after finished";
    if (event.has_started()) {
      EXPECT_TRUE(!result.started.has_value() && result.num_deltas == 0) << "started is not first, or came twice";
      result.started = event.started();
    } else if (event.has_delta()) {
      EXPECT_TRUE(result.started.has_value()) << "a delta before started";
      ++result.num_deltas;
      result.text += event.delta().text();
      result.token_ids.insert(result.token_ids.end(), event.delta().token_ids().begin(),
                              event.delta().token_ids().end());
    } else {
      result.finished = event.finished();
      result.text += event.finished().text();
    }
  }
  result.status = reader.Finish();
  return result;
}

inline StreamResult Generate(InProcessServer& server, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  return ReadAll(*server.generation->Generate(&context, request));
}

inline v1::GenerateRequest IdsRequest(std::vector<int32_t> ids, int32_t max_tokens) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_sampling()->set_temperature(0);
  return request;
}

inline v1::GenerateRequest TextRequest(const std::string& text, int32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_sampling()->set_temperature(0);
  return request;
}

}  // namespace cadre

#endif  // CADRE_TESTS_SERVER_IN_PROCESS_SERVER_H_
