// What streaming over gRPC costs: tokens per second of N streams that all run at once, as heard by sinks in the
// engine's own process, and as read by a gRPC client over loopback. Client and server share this process and its cores.
//
//   stream_bench [--model sim:step_ms=5] [--streams 64] [--tokens 200] [--repeats 5]
#include <grpcpp/create_channel.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <latch>
#include <memory>
#include <string>
#include <vector>

#include "cadre/v1/generation_service.grpc.pb.h"
#include "kernels/cpu/cpu_device.h"
#include "server/grpc_server.h"
#include "server/metrics.h"
#include "server/model_host.h"
#include "server/model_loader.h"

namespace cadre {
namespace {

struct BenchOptions {
  std::string model = "sim:step_ms=5";
  int streams = 64;
  int tokens = 200;
  int repeats = 5;
  int interval_ms = 5;
};

using Seconds = std::chrono::duration<double>;

std::vector<int32_t> PromptOf(int stream) { return {1 + stream, 2, 3, 4, 5, 6, 7, 8}; }

class CountingSink final : public TokenSink {
 public:
  explicit CountingSink(std::latch* finished) : finished_(finished) {}
  void OnStarted(RequestStart /*start*/) override {}
  void OnTokens(TokenDelta delta) override { num_tokens_ += std::ssize(delta.token_ids); }
  void OnFinish(FinishSummary /*summary*/) override { finished_->count_down(); }
  int64_t num_tokens() const { return num_tokens_; }

 private:
  std::latch* const finished_;
  int64_t num_tokens_ = 0;
};

// Tokens per second without gRPC.
double RunInProcess(const BenchOptions& options, ModelHost* host) {
  std::latch finished(options.streams);
  std::vector<std::shared_ptr<CountingSink>> sinks;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < options.streams; ++i) {
    sinks.push_back(std::make_shared<CountingSink>(&finished));
    Request request;
    request.prompt = PromptOf(i);
    request.sampling.max_tokens = options.tokens;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.arrival = host->clock().Now();
    request.sink = sinks.back();
    request.cancel = std::make_shared<CancelFlag>();
    CADRE_CHECK(host->Submit(std::move(request)).ok());
  }
  finished.wait();
  const double seconds = Seconds(std::chrono::steady_clock::now() - begin).count();
  int64_t num_tokens = 0;
  for (const auto& sink : sinks) num_tokens += sink->num_tokens();
  CADRE_CHECK_EQ(num_tokens, int64_t{options.streams} * options.tokens);
  return static_cast<double>(num_tokens) / seconds;
}

// Reads one stream to its end. Lives until then.
class StreamReader final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  StreamReader(v1::GenerationService::Stub* stub, const BenchOptions& options, int stream, std::latch* finished)
      : finished_(finished) {
    const std::vector<int32_t> prompt = PromptOf(stream);
    request_.mutable_token_ids()->mutable_ids()->Assign(prompt.begin(), prompt.end());
    request_.mutable_stopping()->set_max_tokens(options.tokens);
    request_.mutable_stopping()->set_ignore_eos(true);
    request_.mutable_sampling()->set_temperature(0);
    stub->async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    num_tokens_ += event_.delta().token_ids_size();
    StartRead(&event_);
  }
  void OnDone(const grpc::Status& status) override {
    CADRE_CHECK(status.ok());
    finished_->count_down();
  }
  int64_t num_tokens() const { return num_tokens_; }

 private:
  std::latch* const finished_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse event_;
  int64_t num_tokens_ = 0;
};

double RunOverGrpc(const BenchOptions& options, v1::GenerationService::Stub* stub) {
  std::latch finished(options.streams);
  std::vector<std::unique_ptr<StreamReader>> readers;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < options.streams; ++i) {
    readers.push_back(std::make_unique<StreamReader>(stub, options, i, &finished));
  }
  finished.wait();
  const double seconds = Seconds(std::chrono::steady_clock::now() - begin).count();
  int64_t num_tokens = 0;
  for (const auto& reader : readers) num_tokens += reader->num_tokens();
  CADRE_CHECK_EQ(num_tokens, int64_t{options.streams} * options.tokens);
  return static_cast<double>(num_tokens) / seconds;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Run(const BenchOptions& options) {
  ServerConfig config;
  config.model = options.model;
  config.served_model_name = "bench";
  config.max_num_seqs = std::max(options.streams, config.max_num_seqs);
  Metrics metrics({.version = "bench", .revision = "bench"});
  ModelHost host(config.served_model_name, std::make_shared<MonotonicClock>(), &metrics);
  WorkQueue work_queue(64);
  StreamPump pump;
  auto grpc_server = GrpcServer::Start(
      {.port = 0},
      {&host, &metrics, &work_queue, {.pump = &pump, .min_interval = absl::Milliseconds(options.interval_ms)}});
  CADRE_CHECK(grpc_server.ok());
  std::unique_ptr<Device> device;
  if (!options.model.starts_with("sim")) {
    auto made = CreateCpuDevice({});
    CADRE_CHECK(made.ok());
    device = *std::move(made);
  }
  auto model = LoadModel(config, std::move(device), [](double) {});
  if (!model.ok()) {
    std::fprintf(stderr, "stream_bench: %s\n", model.status().ToString().c_str());
    return 1;
  }
  host.Install(*std::move(model));
  const auto channel =
      grpc::CreateChannel(HostPort("127.0.0.1", (*grpc_server)->port()), grpc::InsecureChannelCredentials());
  const auto stub = v1::GenerationService::NewStub(channel);

  std::vector<double> in_process;
  std::vector<double> over_grpc;
  std::vector<double> ratios;
  RunOverGrpc(options, stub.get());  // connections, threads and caches warm up
  for (int i = 0; i < options.repeats; ++i) {
    in_process.push_back(RunInProcess(options, &host));
    over_grpc.push_back(RunOverGrpc(options, stub.get()));
    ratios.push_back(over_grpc.back() / in_process.back());
  }
  std::printf(
      "%s, %d streams of %d tokens: in process %.0f tokens/s, over gRPC %.0f tokens/s, ratio %.3f (%.3f to %.3f)\n",
      options.model.c_str(), options.streams, options.tokens, Median(in_process), Median(over_grpc), Median(ratios),
      *std::min_element(ratios.begin(), ratios.end()), *std::max_element(ratios.begin(), ratios.end()));
  (*grpc_server)->Shutdown(absl::Seconds(1));
  host.Stop();
  return 0;
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::BenchOptions options;
  CLI::App app("What streaming over gRPC costs.");
  app.add_option("--model", options.model, "A folder, or sim:...");
  app.add_option("--streams", options.streams, "Streams at once")->check(CLI::Range(1, 4096));
  app.add_option("--tokens", options.tokens, "Tokens of each")->check(CLI::Range(1, 4096));
  app.add_option("--repeats", options.repeats, "Runs of each kind")->check(CLI::Range(1, 1000));
  app.add_option("--interval-ms", options.interval_ms, "Tokens of a stream that come sooner travel together")
      ->check(CLI::Range(0, 1000));
  CLI11_PARSE(app, argc, argv);
  return cadre::Run(options);
}
