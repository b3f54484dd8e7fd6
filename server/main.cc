// cadre-server: listens at once, loads the model behind a closed door, serves until a signal, drains, ends.
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/host_limits.h"
#include "kernels/cuda/cuda_device.h"
#include "server/call_trace.h"
#include "server/config.h"
#include "server/engine_log.h"
#include "server/exit_codes.h"
#include "server/grpc_server.h"
#include "server/http_endpoint.h"
#include "server/http_pages.h"
#include "server/lifecycle.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/model_loader.h"
#include "server/security.h"
#include "server/version.h"

namespace cadre {
namespace {

// Long prompts that may wait for the tokenizer.
constexpr size_t kMaxWaitingTexts = 256;
// As little as --grpc-memory-mb may be.
constexpr int64_t kMinGrpcMemory = int64_t{16} << 20;
// For calls that have been answered to reach their clients; a health watcher keeps the server waiting so long.
constexpr absl::Duration kShutdownPatience = absl::Milliseconds(500);
// For the step that runs when the drain time is over.
constexpr absl::Duration kMaxStopTime = absl::Seconds(10);

// Messages come and go on many threads. glibc would give each thread an arena of its own and keep what bursts left
// there: the resident size would creep for hours, and an operator would take it for a leak.
void KeepHeapSmall() {
#ifdef __GLIBC__
  constexpr int kMaxArenas = 2;
  constexpr int kTrimThreshold = 1 << 20;
  if (std::getenv("MALLOC_ARENA_MAX") == nullptr) mallopt(M_ARENA_MAX, kMaxArenas);
  if (std::getenv("MALLOC_TRIM_THRESHOLD_") == nullptr) mallopt(M_TRIM_THRESHOLD, kTrimThreshold);
#endif
}

// What the libraries under this server leave behind when memory ends in the middle of them is not fit to go on with.
// The memory guard is there so that it does not come to this.
[[noreturn]] void EndWithoutMemory() {
  WriteToStderr("cadre-server: the system has no more memory for this process: ended\n", absl::ZeroDuration());
  _exit(kExitNoMemory);
}

int Fail(int exit_code, const absl::Status& status) {
  spdlog::error("{}", std::string(status.message()));
  return exit_code;
}

absl::StatusOr<std::unique_ptr<Device>> PickCpu(const ServerConfig& config) {
  CpuDeviceOptions options;
  options.num_threads = config.threads;
  if (config.cpu_isa == "auto") return CreateCpuDevice(options);
  std::string names;
  for (const CpuIsa isa : SupportedCpuIsas()) {
    options.isa = isa;
    if (CpuIsaName(isa) == config.cpu_isa) return CreateCpuDevice(options);
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(CpuIsaName(isa)));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--cpu-isa: ", config.cpu_isa, " is not one that this machine runs: auto, ", names));
}

absl::StatusOr<std::unique_ptr<Device>> PickDevice(const ServerConfig& config) {
  if (config.device == "cpu") return PickCpu(config);
  auto gpu = CreateCudaDevice({.memory_utilization = config.gpu_memory_utilization});
  if (gpu.ok()) spdlog::warn("the GPU engine is new and has not been proven on every card; --device=cpu avoids it");
  if (gpu.ok() || config.device == "cuda") return gpu;
  // Without CUDA in the build nobody expects a GPU to be used.
  if (IsCudaBuilt()) spdlog::info("serving on the CPU: {}", std::string(gpu.status().message()));
  return PickCpu(config);
}

HostMemoryUse ReadHostMemory() {
  const size_t room = std::min<size_t>(AvailableMemoryBytes(), std::numeric_limits<int64_t>::max());
  return {.room = static_cast<int64_t>(room), .resident = static_cast<int64_t>(ResidentAnonymousBytes())};
}

ExpertMatrixPlacement MatrixPlacement(const std::string& name) {
  if (name == "full") return ExpertMatrixPlacement::kFull;
  if (name == "ranked") return ExpertMatrixPlacement::kRanked;
  return ExpertMatrixPlacement::kAuto;
}

// Everything that a running server is made of, in the order of dependence.
class Server {
 public:
  Server(const ServerConfig& config, std::unique_ptr<Device> device)
      : config_(config),
        device_(std::move(device)),
        metrics_({.version = ServerVersion(),
                  .revision = ServerRevision(),
                  .expert_matrix = MatrixPlacement(config.metrics_experts)}),
        engine_log_(&metrics_),
        host_(config.served_model_name, clock_, &engine_log_) {}

  int Run() {
    if (const absl::Status status = Listen(); !status.ok()) {
      return Fail(status.code() == absl::StatusCode::kUnavailable ? kExitPortTaken : kExitUsage, status);
    }
    Lifecycle lifecycle({.drain_delay = config_.drain_delay,
                         .drain_timeout = config_.drain_timeout,
                         .stall_timeout = config_.stall_timeout,
                         .on_memory = [this](const MemoryReading& reading) { LimitGrpcMemory(reading); }},
                        &host_, &grpc_->health(), &metrics_, &memory_);
    lifecycle_.store(&lifecycle);
    std::thread loader([this] { Load(); });
    const int signal_number = lifecycle.RunUntilSignal(load_failed_);
    const bool was_loading = host_.state() == ModelHost::State::kLoading;
    if (signal_number != 0) spdlog::info("signal {}: ending", signal_number);
    if (was_loading && signal_number != 0) {
      // Reading the weights cannot be interrupted, and nothing that it does needs an end.
      StopLogging();
      _exit(kExitOk);
    }
    loader.join();
    // Nothing that waits could be answered any more.
    if (lifecycle.is_device_lost()) host_.StartDrain();
    if (!load_failed_ && !lifecycle.is_device_lost()) lifecycle.Drain();
    const ExitTimer exit_timer(kMaxStopTime);
    host_.Stop();
    metrics_.ClearSources();
    grpc_->Shutdown(kShutdownPatience);
    work_queue_.Stop();
    lifecycle_.store(nullptr);
    http_.reset();
    if (load_failed_) {
      return Fail(IsSimulated(config_) ? kExitUsage : LoadErrorExitCode(load_status_), load_status_);
    }
    if (lifecycle.is_device_lost()) return Fail(kExitDeviceLost, absl::UnavailableError("the device was lost"));
    spdlog::info("ended in order");
    return kExitOk;
  }

 private:
  TokenStreamOptions StreamOptions() {
    TokenStreamOptions options = {.slow_reader_timeout = config_.slow_reader_timeout, .pump = &stream_pump_};
    if (config_.stream_interval.has_value()) {
      options.min_interval = *config_.stream_interval;
    } else {
      options.min_interval = kDefaultStreamInterval;
      options.interval_per_call = DefaultIntervalPerCall(UsableCpus());
    }
    return options;
  }

  absl::Status Listen() {
    CADRE_ASSIGN_OR_RETURN(security_, Security::Start(config_.security, &metrics_));
    if (config_.security.tenant_limits.is_on()) {
      tenant_limiter_ = std::make_shared<TenantLimiter>(config_.security.tenant_limits, &metrics_);
      metrics_.WatchTenantLimits();
    }
    for (const std::string& warning : SecurityWarnings(config_.security, config_.host, config_.metrics_host)) {
      spdlog::warn("{}", warning);
    }
    ServiceContext context = {.host = &host_,
                              .metrics = &metrics_,
                              .work_queue = &work_queue_,
                              .stream = StreamOptions(),
                              .memory = &memory_,
                              .request_timeout = config_.request_timeout,
                              .access = security_->access().get(),
                              .tenants = tenant_limiter_.get()};
    if (!config_.trace.endpoint.empty()) {
      CADRE_ASSIGN_OR_RETURN(
          tracer_, Tracer::Create({.exporter = {.endpoint = config_.trace.endpoint, .service_version = ServerVersion()},
                                   .sample_ratio = config_.trace.sample_ratio}));
      context.tracer = tracer_.get();
    }
    GrpcServerOptions options;
    options.host = config_.host;
    options.port = config_.port;
    options.max_concurrent_streams = config_.max_concurrent_streams;
    options.memory_quota_bytes = config_.grpc_memory_mb << 20;
    options.max_connection_age = config_.max_connection_age;
    options.reflection = config_.reflection;
    options.vllm_engine_api = config_.vllm_engine_api;
    options.access = security_->access();
    options.tls = security_->tls();
    auto grpc_server = GrpcServer::Start(options, context);
    if (!grpc_server.ok()) return grpc_server.status();
    grpc_ = *std::move(grpc_server);
    auto http = HttpEndpoint::Start({.host = config_.metrics_host, .port = config_.metrics_port},
                                    MakeHttpPages(&metrics_, [this] {
                                      const Lifecycle* lifecycle = lifecycle_.load();
                                      return lifecycle != nullptr && lifecycle->is_ready();
                                    }));
    if (!http.ok()) return http.status();
    http_ = *std::move(http);
    return absl::OkStatus();
  }

  std::function<SpanCounts()> TakesSpans() const {
    if (tracer_ == nullptr) return nullptr;
    return [this] { return tracer_->counts(); };
  }

  void LimitGrpcMemory(const MemoryReading& reading) {
    constexpr int kShare = 4;  // of the memory left for requests
    const int64_t quota = std::clamp(reading.headroom / kShare, kMinGrpcMemory, config_.grpc_memory_mb << 20);
    if (quota == std::exchange(grpc_memory_quota_, quota)) return;
    grpc_->SetMemoryQuota(quota);
  }

  // On a thread of its own; its last act is to make the model ready, or to set load_failed_.
  void Load() {
    spdlog::info("loading {} as \"{}\"", config_.model, config_.served_model_name);
    int told_percent = 0;
    auto model = LoadModel(config_, std::move(device_), [this, &told_percent](double ratio) {
      host_.SetLoadProgress(ratio);
      metrics_.SetLoadProgress(ratio);
      const int percent = static_cast<int>(ratio * 100);
      if (percent < told_percent + 10) return;
      told_percent = percent;
      spdlog::info("loading: {}%", percent);
    });
    if (!model.ok()) {
      load_status_ = model.status();
      load_failed_ = true;
      return;
    }
    const ModelCard card = model->card;
    host_.Install(*std::move(model));
    metrics_.SetModel(DescribeForMetrics(card), {.engine = [this] { return host_.Snapshot(); },
                                                 .experts = [this] { return host_.LifetimeExperts(); },
                                                 .profile = [this] { return host_.Profile(/*max_pairs=*/0); },
                                                 .tenants = [this] { return host_.Tenants(); },
                                                 .what_if = [this] { return host_.WhatIf(); },
                                                 .spans = TakesSpans()});
    metrics_.SetLoadDuration(absl::Now() - start_time_);
    spdlog::info(
        "ready: {} ({}), {} weights, {} experts, {} KV cache, {} [{}], context {} tokens, {} sequences and {} tokens a "
        "step, {} may wait; gRPC on {}, metrics on {}",
        card.name, card.family, card.weight_dtype, card.expert_dtype, card.kv_dtype, card.device, card.kernels,
        card.max_sequence_tokens(), card.engine.max_num_seqs, card.engine.max_num_batched_tokens,
        card.engine.max_queue_requests, HostPort(config_.host, grpc_->port()), http_->address());
  }

  const ServerConfig config_;
  const absl::Time start_time_ = absl::Now();
  const std::shared_ptr<const Clock> clock_ = std::make_shared<MonotonicClock>();
  std::unique_ptr<Device> device_;
  Metrics metrics_;
  EngineLog engine_log_;
  ModelHost host_;
  WorkQueue work_queue_{kMaxWaitingTexts};
  StreamPump stream_pump_;
  MemoryGuard memory_{&ReadHostMemory, clock_.get()};
  int64_t grpc_memory_quota_ = 0;   // as last set, by the main thread
  std::unique_ptr<Tracer> tracer_;  // null: nothing is traced
  std::atomic<const Lifecycle*> lifecycle_{nullptr};
  std::unique_ptr<Security> security_;
  std::shared_ptr<TenantLimiter> tenant_limiter_;  // null: no limits
  std::unique_ptr<GrpcServer> grpc_;
  std::unique_ptr<HttpEndpoint> http_;
  absl::Status load_status_;  // written before load_failed_
  std::atomic<bool> load_failed_{false};
};

int RunServer(const ServerConfig& config) {
  std::unique_ptr<Device> device;
  if (!IsSimulated(config)) {
    auto picked = PickDevice(config);
    if (!picked.ok()) {
      const bool is_usage = absl::IsInvalidArgument(picked.status());
      return Fail(is_usage ? kExitUsage : kExitNoDevice, picked.status());
    }
    device = *std::move(picked);
  }
  return Server(config, std::move(device)).Run();
}

int Main(int argc, char** argv) {
  KeepHeapSmall();
  std::set_new_handler(&EndWithoutMemory);
  BlockSignals();
  const ParsedConfig parsed = ParseConfig(argc, argv);
  if (!parsed.config.has_value()) {
    if (parsed.exit_code == kExitOk) {
      std::fputs(parsed.output.c_str(), stdout);
    } else {
      std::fprintf(stderr, "cadre-server: %s\n", parsed.output.c_str());
    }
    return parsed.exit_code;
  }
  const ServerConfig& config = *parsed.config;
  StartLogging({.level = config.log_level, .json = config.log_json});
  for (const std::string& warning : parsed.warnings) spdlog::warn("{}", warning);
  spdlog::info("cadre-server {} ({})", ServerVersion(), ServerRevision());
  const int exit_code = RunServer(config);
  StopLogging();
  return exit_code;
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) { return cadre::Main(argc, argv); }
