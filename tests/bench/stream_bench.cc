// What streaming over gRPC costs: tokens per second of N streams that all run at once, as heard by sinks in the
// engine's own process, and as read by a gRPC client over loopback. Client and server share this process and its cores.
//
//   stream_bench [--model sim:step_ms=5] [--streams 64] [--tokens 200] [--repeats 5]
//   stream_bench --streams 128 --silent 100     what clients that never read do to the others: the time between two
//                                               messages of the streams that are read, with and without them
#include <grpcpp/create_channel.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cadre/v1/generation_service.grpc.pb.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/host_limits.h"
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
  std::optional<int> interval_ms;  // absent: as the server chooses
  int silent = 0;
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
  StreamReader(v1::GenerationService::Stub* stub, const BenchOptions& options, int stream, bool reads,
               std::latch* finished)
      : reads_(reads), finished_(finished) {
    const std::vector<int32_t> prompt = PromptOf(stream);
    request_.mutable_token_ids()->mutable_ids()->Assign(prompt.begin(), prompt.end());
    request_.mutable_stopping()->set_max_tokens(options.tokens);
    request_.mutable_stopping()->set_ignore_eos(true);
    request_.mutable_sampling()->set_temperature(0);
    stub->async()->Generate(&context_, &request_, this);
    if (reads) StartRead(&event_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (event_.has_delta()) {
      num_tokens_ += event_.delta().token_ids_size();
      const auto now = std::chrono::steady_clock::now();
      if (last_message_ != std::chrono::steady_clock::time_point())
        gaps_.push_back(Seconds(now - last_message_).count());
      last_message_ = now;
    }
    StartRead(&event_);
  }
  void OnDone(const grpc::Status& status) override {
    CADRE_CHECK(status.ok() || !reads_);
    finished_->count_down();
  }
  void Cancel() { context_.TryCancel(); }
  int64_t num_tokens() const { return num_tokens_; }
  const std::vector<double>& gaps() const { return gaps_; }  // seconds between messages with tokens

 private:
  const bool reads_;
  std::latch* const finished_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse event_;
  int64_t num_tokens_ = 0;
  std::chrono::steady_clock::time_point last_message_;
  std::vector<double> gaps_;
};

// The gaps of the streams that both runs read; `num_silent` of the others never read.
std::vector<double> RunBesideSilent(const BenchOptions& options, int num_silent, v1::GenerationService::Stub* stub) {
  const int num_reading = options.streams - num_silent;
  std::latch read(num_reading);
  std::latch silent(num_silent);
  std::vector<std::unique_ptr<StreamReader>> readers;
  for (int i = 0; i < options.streams; ++i) {
    const bool reads = i < num_reading;
    readers.push_back(std::make_unique<StreamReader>(stub, options, i, reads, reads ? &read : &silent));
  }
  read.wait();
  for (int i = num_reading; i < options.streams; ++i) readers[static_cast<size_t>(i)]->Cancel();
  silent.wait();
  std::vector<double> gaps;
  for (int i = 0; i < options.streams - options.silent; ++i) {
    const std::vector<double>& of_stream = readers[static_cast<size_t>(i)]->gaps();
    gaps.insert(gaps.end(), of_stream.begin(), of_stream.end());
  }
  std::sort(gaps.begin(), gaps.end());
  return gaps;
}

double RunOverGrpc(const BenchOptions& options, v1::GenerationService::Stub* stub) {
  std::latch finished(options.streams);
  std::vector<std::unique_ptr<StreamReader>> readers;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < options.streams; ++i) {
    readers.push_back(std::make_unique<StreamReader>(stub, options, i, /*reads=*/true, &finished));
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

void CompareWithGrpc(const BenchOptions& options, ModelHost* host, v1::GenerationService::Stub* stub) {
  std::vector<double> in_process;
  std::vector<double> over_grpc;
  std::vector<double> ratios;
  for (int i = 0; i < options.repeats; ++i) {
    in_process.push_back(RunInProcess(options, host));
    over_grpc.push_back(RunOverGrpc(options, stub));
    ratios.push_back(over_grpc.back() / in_process.back());
  }
  std::printf(
      "%s, %d streams of %d tokens: in process %.0f tokens/s, over gRPC %.0f tokens/s, ratio %.3f (%.3f to %.3f)\n",
      options.model.c_str(), options.streams, options.tokens, Median(in_process), Median(over_grpc), Median(ratios),
      *std::min_element(ratios.begin(), ratios.end()), *std::max_element(ratios.begin(), ratios.end()));
}

void CompareSilent(const BenchOptions& options, v1::GenerationService::Stub* stub) {
  std::vector<double> medians[2];
  std::vector<double> tails[2];
  for (int i = 0; i < options.repeats; ++i) {
    for (const int silent : {0, 1}) {
      const std::vector<double> gaps = RunBesideSilent(options, silent * options.silent, stub);
      medians[silent].push_back(gaps[gaps.size() / 2] * 1e3);
      tails[silent].push_back(gaps[gaps.size() * 99 / 100] * 1e3);
    }
  }
  std::printf(
      "%s, %d streams: between messages of %d streams p50 %.2f ms, p99 %.2f ms when all are read; p50 %.2f ms "
      "(%+.1f%%), p99 %.2f ms (%+.1f%%) when %d never read\n",
      options.model.c_str(), options.streams, options.streams - options.silent, Median(medians[0]), Median(tails[0]),
      Median(medians[1]), (Median(medians[1]) / Median(medians[0]) - 1) * 100, Median(tails[1]),
      (Median(tails[1]) / Median(tails[0]) - 1) * 100, options.silent);
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
  TokenStreamOptions stream_options = {
      .pump = &pump, .min_interval = kDefaultStreamInterval, .interval_per_call = DefaultIntervalPerCall(UsableCpus())};
  if (options.interval_ms.has_value()) {
    stream_options.min_interval = absl::Milliseconds(*options.interval_ms);
    stream_options.interval_per_call = absl::ZeroDuration();
  }
  auto grpc_server = GrpcServer::Start({.port = 0, .access = std::make_shared<AccessControl>(false, nullptr)},
                                       {&host, &metrics, &work_queue, stream_options});
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

  RunOverGrpc(options, stub.get());  // connections, threads and caches warm up
  if (options.silent > 0) {
    CompareSilent(options, stub.get());
  } else {
    CompareWithGrpc(options, &host, stub.get());
  }
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
  app.add_option("--interval-ms", options.interval_ms,
                 "Tokens of a stream that come sooner travel together; absent: as the server chooses")
      ->check(CLI::Range(0, 1000));
  app.add_option("--silent", options.silent, "Streams that never read")->check(CLI::Range(0, 4095));
  CLI11_PARSE(app, argc, argv);
  return cadre::Run(options);
}
