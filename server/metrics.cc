#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "engine/base/check.h"
#include "server/engine_metrics.h"
#include "server/expert_json.h"
#include "server/expert_metrics.h"
#include "server/metric_names.h"
#include "server/metric_page.h"
#include "server/process_stats.h"

namespace cadre {
namespace {

using prometheus::Counter;
using prometheus::Histogram;
using prometheus::Registry;

// The finest edge of a latency is 0.5 ms: small models on a GPU decode a token in about that.
constexpr double kFirstTokenEdges[] = {0.0005, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30};
constexpr double kInterTokenEdges[] = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2};
constexpr double kRequestDurationEdges[] = {0.0005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300};
constexpr double kQueueWaitEdges[] = {0.0005, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60};
constexpr double kOutputTokenEdges[] = {0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02,
                                        0.03,   0.05,  0.075, 0.1,   0.2,   0.5,    1,    2.5};
constexpr double kPhaseEdges[] = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                  0.5,    1,     2,     5,     10,   30,   60,   300};
constexpr double kStepDurationEdges[] = {0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015,
                                         0.02,   0.03,  0.05,  0.1,   0.2,   0.5,    1,    2};
constexpr double kStepTokensEdges[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
constexpr double kStepSequencesEdges[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
constexpr double kRequestTokensEdges[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                          500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

constexpr std::array<const char*, kNumRejectReasons> kRejectReasonNames = {
    "invalid",    "too_large",         "unsupported",          "not_found",
    "queue_full", "tenant_queue_full", "deadline_unreachable", "not_serving",
    "deadline",   "cancelled",         "memory_pressure",      "tenant_limit"};
constexpr std::array<const char*, 6> kFinishReasonNames = {"eos",    "stop_token", "stop_string",
                                                           "length", "time_limit", "constraint_end"};
constexpr std::array<const char*, kNumCallRefusals> kCallRefusalNames = {"no_key", "unknown_key", "role",
                                                                         "operators_off"};
constexpr int kNotWatched = -1;
constexpr std::array<const char*, kNumReloadedFiles> kReloadedFileNames = {"api_keys", "tls"};
enum StepKind { kPrefillStep, kDecodeStep, kMixedStep };
constexpr std::array<const char*, 3> kStepKindNames = {"prefill", "decode", "mixed"};

Histogram& AddHistogram(const MetricName& metric, std::span<const double> edges, Registry& registry) {
  auto& family = prometheus::BuildHistogram().Name(metric.name).Help(metric.help).Register(registry);
  return family.Add({}, Histogram::BucketBoundaries(edges.begin(), edges.end()));
}

// One counter per value of `label`, all of them there from the start.
template <size_t N>
std::array<Counter*, N> AddCounters(const MetricName& metric, const char* label,
                                    const std::array<const char*, N>& values, Registry& registry) {
  auto& family = prometheus::BuildCounter().Name(metric.name).Help(metric.help).Register(registry);
  std::array<Counter*, N> counters{};
  for (size_t i = 0; i < N; ++i) counters[i] = &family.Add({{label, values[i]}});
  return counters;
}

Counter& RefusalCounter(CallRefusal refusal, prometheus::Family<Counter>& family) {
  return family.Add({{"reason", kCallRefusalNames[static_cast<size_t>(refusal)]}});
}

Counter& TenantLimitCounter(TenantLimit limit, prometheus::Family<Counter>& family) {
  return family.Add({{"limit", limit == TenantLimit::kRate ? "rate" : "concurrency"}});
}

Counter& ReloadCounter(ReloadedFile file, bool ok, prometheus::Family<Counter>& family) {
  return family.Add({{"file", kReloadedFileNames[static_cast<size_t>(file)]}, {"result", ok ? "ok" : "failed"}});
}

void Observe(absl::Duration duration, Histogram& histogram) { histogram.Observe(absl::ToDoubleSeconds(duration)); }

int64_t CountSampleLines(std::string_view page) {
  int64_t lines = 0;
  for (size_t begin = 0; begin < page.size(); begin = page.find('\n', begin) + 1) lines += page[begin] != '#';
  return lines;
}

}  // namespace

struct Metrics::State {
  explicit State(MetricsOptions metrics_options) : options(std::move(metrics_options)) {}

  void WriteServer(MetricPage& page) const;
  void WriteMemory(MetricPage& page) const;
  void WriteFiles(MetricPage& page) const;
  EngineSnapshot TakeEngineSnapshot() const { return sources.engine ? sources.engine() : last_engine; }
  ExpertSnapshot TakeExpertSnapshot() const { return sources.experts ? sources.experts() : last_experts; }
  std::vector<TenantRouting> TakeTenants() const { return sources.tenants ? sources.tenants() : last_tenants; }
  std::shared_ptr<const WhatIfReport> TakeWhatIf() const { return sources.what_if ? sources.what_if() : last_what_if; }
  bool MatrixOnDefaultPage(const ServedModel& served) const;

  const MetricsOptions options;

  // Have their own synchronization. A request is counted as rejected after it was counted as received, and pages are
  // collected in the order of registration: rejected before received keeps received >= rejected + admitted.
  Registry registry;
  const std::array<Counter*, kNumRejectReasons> rejected =
      AddCounters(metric::kRequestsRejected, "reason", kRejectReasonNames, registry);
  Counter& received = prometheus::BuildCounter()
                          .Name(metric::kRequestsReceived.name)
                          .Help(metric::kRequestsReceived.help)
                          .Register(registry)
                          .Add({});
  const std::array<Counter*, 6> completions =
      AddCounters(metric::kCompletions, "finish_reason", kFinishReasonNames, registry);
  prometheus::Family<Counter>& refused_calls =
      prometheus::BuildCounter().Name(metric::kCallsRefused.name).Help(metric::kCallsRefused.help).Register(registry);
  prometheus::Family<Counter>& tenant_limited =
      prometheus::BuildCounter().Name(metric::kTenantLimited.name).Help(metric::kTenantLimited.help).Register(registry);
  prometheus::Family<Counter>& reloads =
      prometheus::BuildCounter().Name(metric::kFileReloads.name).Help(metric::kFileReloads.help).Register(registry);
  const std::array<Counter*, 3> steps = AddCounters(metric::kSteps, "kind", kStepKindNames, registry);
  Histogram& first_token = AddHistogram(metric::kTimeToFirstToken, kFirstTokenEdges, registry);
  Histogram& inter_token = AddHistogram(metric::kInterTokenLatency, kInterTokenEdges, registry);
  Histogram& request_duration = AddHistogram(metric::kRequestDuration, kRequestDurationEdges, registry);
  Histogram& queue_wait = AddHistogram(metric::kQueueWait, kQueueWaitEdges, registry);
  Histogram& output_token = AddHistogram(metric::kTimePerOutputToken, kOutputTokenEdges, registry);
  Histogram& prefill = AddHistogram(metric::kPrefillDuration, kPhaseEdges, registry);
  Histogram& decode = AddHistogram(metric::kDecodeDuration, kPhaseEdges, registry);
  Histogram& step_duration = AddHistogram(metric::kStepDuration, kStepDurationEdges, registry);
  Histogram& step_tokens = AddHistogram(metric::kStepTokens, kStepTokensEdges, registry);
  Histogram& step_sequences = AddHistogram(metric::kStepSequences, kStepSequencesEdges, registry);
  Histogram& prompt_tokens = AddHistogram(metric::kRequestPromptTokens, kRequestTokensEdges, registry);
  Histogram& generated_tokens = AddHistogram(metric::kRequestGeneratedTokens, kRequestTokensEdges, registry);

  std::atomic<bool> ready{false};
  std::atomic<bool> draining{false};
  std::atomic<bool> stalled{false};
  std::atomic<double> load_progress{0.0};
  std::atomic<double> load_seconds{0.0};
  std::atomic<int64_t> outbox_bytes{0};
  std::atomic<int64_t> cut_off_calls{0};
  std::array<std::atomic<int>, kNumReloadedFiles> wrong_files = {kNotWatched, kNotWatched};
  std::atomic<int64_t> certificate_expiry{0};  // seconds since 1970; 0 without a certificate
  std::atomic<double> render_seconds{0.0};

  mutable std::mutex memory_mutex;
  MemoryFigures memory;  // guarded by memory_mutex

  // Guards what follows. Held while a snapshot is taken, so that ClearSources returns only when nobody looks at the
  // engine any more.
  mutable std::mutex mutex;
  std::optional<ServedModel> model;
  MetricsSources sources;
  EngineSnapshot last_engine;  // what pages show without sources
  ExpertSnapshot last_experts;
  std::vector<TenantRouting> last_tenants;
  std::shared_ptr<const WhatIfReport> last_what_if;
};

Metrics::Metrics(MetricsOptions options) : state_(std::make_unique<State>(std::move(options))) {}
Metrics::~Metrics() = default;

void Metrics::SetLoadProgress(double ratio) { state_->load_progress = ratio; }
void Metrics::SetReady(bool ready) { state_->ready = ready; }
void Metrics::SetDraining(bool draining) { state_->draining = draining; }
void Metrics::SetStalled(bool stalled) { state_->stalled = stalled; }
void Metrics::SetMemory(const MemoryFigures& memory) {
  const std::lock_guard lock(state_->memory_mutex);
  state_->memory = memory;
}
void Metrics::SetLoadDuration(absl::Duration since_process_start) {
  state_->load_seconds = absl::ToDoubleSeconds(since_process_start);
}

void Metrics::SetModel(ServedModel model, MetricsSources sources) {
  SetLoadProgress(1.0);
  const std::lock_guard lock(state_->mutex);
  state_->model = std::move(model);
  state_->sources = std::move(sources);
}

void Metrics::ClearSources() {
  const std::lock_guard lock(state_->mutex);
  state_->last_engine = state_->TakeEngineSnapshot();
  state_->last_experts = state_->TakeExpertSnapshot();
  state_->last_what_if = state_->TakeWhatIf();
  state_->sources = {};
}

void Metrics::OnReceived() { state_->received.Increment(); }

void Metrics::OnRejected(RejectReason reason) { state_->rejected[static_cast<size_t>(reason)]->Increment(); }

void Metrics::OnCallRefused(CallRefusal refusal) { RefusalCounter(refusal, state_->refused_calls).Increment(); }

void Metrics::WatchCalls() {
  for (int i = 0; i < kNumCallRefusals; ++i) RefusalCounter(static_cast<CallRefusal>(i), state_->refused_calls);
}

void Metrics::OnTenantLimited(TenantLimit limit) { TenantLimitCounter(limit, state_->tenant_limited).Increment(); }

void Metrics::WatchTenantLimits() {
  for (const TenantLimit limit : {TenantLimit::kRate, TenantLimit::kConcurrency}) {
    TenantLimitCounter(limit, state_->tenant_limited);
  }
}

void Metrics::WatchFile(ReloadedFile file) {
  for (const bool ok : {false, true}) ReloadCounter(file, ok, state_->reloads);
  SetFileWrong(file, false);
}

void Metrics::SetFileWrong(ReloadedFile file, bool is_wrong) {
  state_->wrong_files[static_cast<size_t>(file)] = is_wrong ? 1 : 0;
}

void Metrics::SetCertificateExpiry(absl::Time expiry) { state_->certificate_expiry = absl::ToUnixSeconds(expiry); }

void Metrics::OnReload(ReloadedFile file, bool ok) { ReloadCounter(file, ok, state_->reloads).Increment(); }

void Metrics::OnFirstToken(absl::Duration since_arrival) { Observe(since_arrival, state_->first_token); }

void Metrics::OnInterToken(absl::Duration gap, int64_t tokens) {
  CADRE_CHECK_GE(tokens, 1);
  Observe(gap / tokens, state_->inter_token);
}

void Metrics::OnCallCutOff() { ++state_->cut_off_calls; }

void Metrics::AddOutboxBytes(int64_t delta) { state_->outbox_bytes += delta; }

void Metrics::OnStep(const StepReport& report) {
  const StepKind kind = report.prefill_tokens == 0  ? kDecodeStep
                        : report.decode_tokens == 0 ? kPrefillStep
                                                    : kMixedStep;
  state_->steps[kind]->Increment();
  Observe(report.duration, state_->step_duration);
  state_->step_tokens.Observe(report.prefill_tokens + report.decode_tokens);
  state_->step_sequences.Observe(report.num_sequences);
}

void Metrics::OnFinish(const FinishSummary& summary) {
  const RequestTimings& timings = summary.timings;
  const int64_t generated = summary.usage.generated_tokens;
  if (summary.reason != FinishReason::kNone) {
    state_->completions[static_cast<size_t>(summary.reason) - 1]->Increment();  // kNone is the first of the enum
  }
  // Once for a request, whatever the number of its sequences; the rest is told of each.
  if (summary.is_last) {
    Observe(timings.total, state_->request_duration);
    state_->prompt_tokens.Observe(static_cast<double>(summary.usage.prompt_tokens));
  }
  state_->generated_tokens.Observe(static_cast<double>(generated));
  const bool started = generated > 0 || timings.queue > absl::ZeroDuration() || timings.prefill > absl::ZeroDuration();
  if (started && summary.index == 0) Observe(timings.queue, state_->queue_wait);
  if (generated > 0) {
    Observe(timings.prefill, state_->prefill);
    Observe(timings.decode, state_->decode);
  }
  if (generated > 1) Observe(timings.decode / (generated - 1), state_->output_token);
}

bool Metrics::State::MatrixOnDefaultPage(const ServedModel& served) const {
  const int64_t cells = std::ssize(served.moe_layers) * served.num_experts;
  switch (options.expert_matrix) {
    case ExpertMatrixPlacement::kAuto:
      return cells <= kMaxInlineExperts;
    case ExpertMatrixPlacement::kFull:
      return true;
    case ExpertMatrixPlacement::kRanked:
      return false;
  }
  return false;
}

void Metrics::State::WriteMemory(MetricPage& page) const {
  const MemoryFigures figures = [this] {
    const std::lock_guard lock(memory_mutex);
    return memory;
  }();
  page.Single(metric::kMemoryRoom, figures.reading.room);
  const auto for_each_action = [&page](const auto& value_of) {
    for (int i = 1; i < kNumMemoryPressures; ++i) {
      const auto level = static_cast<MemoryPressure>(i);
      page.Sample({{"action", MemoryPressureName(level)}}, value_of(level));
    }
  };
  page.Begin(metric::kMemoryPressure);
  for_each_action([&figures](MemoryPressure level) { return figures.level >= level ? 1 : 0; });
  page.Begin(metric::kMemoryPressureEntries);
  for_each_action([&figures](MemoryPressure level) { return figures.num_entries[static_cast<size_t>(level)]; });
}

void Metrics::State::WriteFiles(MetricPage& page) const {
  page.Begin(metric::kFileWrong);
  for (size_t i = 0; i < wrong_files.size(); ++i) {
    if (wrong_files[i] != kNotWatched) page.Sample({{"file", kReloadedFileNames[i]}}, wrong_files[i].load());
  }
  if (certificate_expiry != 0) page.Single(metric::kCertificateExpiry, static_cast<double>(certificate_expiry.load()));
}

void Metrics::State::WriteServer(MetricPage& page) const {
  page.Begin(metric::kBuildInfo);
  page.Sample({{"version", options.version}, {"revision", options.revision}}, 1);
  page.Single(metric::kReady, ready ? 1 : 0);
  page.Single(metric::kDraining, draining ? 1 : 0);
  page.Single(metric::kEngineStalled, stalled ? 1 : 0);
  page.Single(metric::kLoadProgress, load_progress.load());
  page.Single(metric::kLoadDuration, load_seconds.load());
  page.Single(metric::kOutboxBytes, outbox_bytes.load());
  page.Single(metric::kCallsCutOff, cut_off_calls.load());
  page.Single(metric::kRenderDuration, render_seconds.load());
  WriteFiles(page);
  WriteMemory(page);
  const ProcessStats process = ReadProcessStats();
  page.Single(metric::kProcessCpu, process.cpu_seconds);
  page.Single(metric::kProcessResidentMemory, process.resident_bytes);
  page.Single(metric::kProcessOpenFds, process.open_fds);
  page.Single(metric::kProcessMaxFds, process.max_fds);
  page.Single(metric::kProcessStartTime, process.start_time_seconds);
}

std::string Metrics::RenderDefaultPage() {
  const auto start = std::chrono::steady_clock::now();
  const std::lock_guard lock(state_->mutex);
  const EngineSnapshot engine = state_->TakeEngineSnapshot();
  const ExpertSnapshot experts = state_->TakeExpertSnapshot();

  MetricPage page;
  state_->WriteServer(page);
  WriteEngine(engine, page);
  if (const auto what_if = state_->TakeWhatIf(); what_if != nullptr) WriteWhatIf(*what_if, page);
  if (state_->sources.spans) WriteSpans(state_->sources.spans(), page);
  WriteRoutingTotals(experts, page);
  page.Append(prometheus::TextSerializer().Serialize(state_->registry.Collect()));
  if (state_->model.has_value()) {
    const ServedModel& model = *state_->model;
    WriteServedModel(model, engine, page);
    WriteRouterHealth(experts, model.moe_layers, page);
    WriteExtremeExperts(experts, model.moe_layers, page);
    const int64_t lines_with_layers = CountSampleLines(page.text()) + kSampleLinesPerLayer * experts.num_layers;
    if (lines_with_layers <= kMaxDefaultSampleLines) WriteLayers(experts, model.moe_layers, page);
    if (state_->MatrixOnDefaultPage(model)) WriteExpertMatrix(experts, model.moe_layers, page);
  }
  state_->render_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(page).Take();
}

std::string Metrics::RenderExpertPage() {
  const std::lock_guard lock(state_->mutex);
  MetricPage page;
  if (state_->model.has_value()) {
    const ExpertSnapshot experts = state_->TakeExpertSnapshot();
    WriteLayers(experts, state_->model->moe_layers, page);
    if (const EngineSnapshot engine = state_->TakeEngineSnapshot(); engine.expert_placement != nullptr) {
      WriteCacheLayers(*engine.expert_placement, state_->model->moe_layers, page);
    }
    WriteExpertMatrix(experts, state_->model->moe_layers, page);
    WriteTenants(state_->TakeTenants(), page);
  }
  return std::move(page).Take();
}

std::string Metrics::RenderExpertJson(bool window) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  const std::lock_guard lock(state_->mutex);
  if (!state_->model.has_value()) return EmptyExpertJson(seconds);
  return ExpertJson(state_->model->name, state_->TakeExpertSnapshot(), state_->model->moe_layers, window, seconds,
                    state_->TakeEngineSnapshot().expert_cache);
}

std::string Metrics::RenderExpertKindsJson() {
  const std::lock_guard lock(state_->mutex);
  if (!state_->model.has_value() || !state_->sources.profile) return ExpertKindsJson({}, {});
  return ExpertKindsJson(state_->sources.profile(), state_->model->moe_layers);
}

}  // namespace cadre
