// What cadre tells Prometheus. Events are counted here as they happen; everything that is state (queues, KV blocks,
// routing, expert load) is read when a page is rendered, from one EngineSnapshot and one ExpertSnapshot, so that the
// sums within a page hold exactly. Every name is declared once, in server/metric_names.h.
#ifndef CADRE_SERVER_METRICS_H_
#define CADRE_SERVER_METRICS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/experts/expert_stats.h"
#include "engine/experts/routing_profile.h"
#include "server/memory_guard.h"
#include "server/span_counts.h"

namespace cadre {

// Why a request was refused before the engine took it.
enum class RejectReason {
  // A field is malformed or out of range; or the request never came, because it was over kMaxRequestBytes or the client
  // has gone.
  kInvalid,
  kTooLarge,             // can never fit: prompt and max_tokens
  kUnsupported,          // asks for something this release does not do
  kNotFound,             // names another model
  kQueueFull,            // the engine's queue had no room
  kTenantQueueFull,      // the tenant had its share of it
  kDeadlineUnreachable,  // could not be answered before its deadline
  kNotServing,           // loading or draining
  kDeadline,             // its deadline had passed on arrival, or it had not come whole in time
  kCancelled,            // cancelled while it waited to be read
  kMemoryPressure,       // the host is short of memory
  kTenantLimit,          // the tenant sends too many, or too fast
};
inline constexpr int kNumRejectReasons = 12;

// Why a call was refused at the door, before it was received.
enum class CallRefusal { kNoKey, kUnknownKey, kRole, kOperatorsOff };
inline constexpr int kNumCallRefusals = 4;

// A limit of one tenant that a request has met.
enum class TenantLimit { kRate, kConcurrency };
inline constexpr int kNumTenantLimits = 2;

// Files that are read again when they change.
enum class ReloadedFile { kApiKeys, kTls };
inline constexpr int kNumReloadedFiles = 2;

// Where the matrix of layer x expert stands. It always stands on the page of the experts.
enum class ExpertMatrixPlacement {
  kAuto,    // on the default page too when layers x experts <= kMaxInlineExperts
  kFull,    // on the default page too
  kRanked,  // the default page has the hottest and coldest experts only
};
inline constexpr int64_t kMaxInlineExperts = 1024;

// The default page without the matrix stays within this many sample lines for every model.
inline constexpr int kMaxDefaultSampleLines = 400;

struct MetricsOptions {
  std::string version;   // of this build
  std::string revision;  // source revision of this build
  ExpertMatrixPlacement expert_matrix = ExpertMatrixPlacement::kAuto;
};

// What is being served. Known once the model is loaded; constant from then on.
struct ServedModel {
  std::string name;
  std::string family;  // as in config.json, or "simulated"
  std::string dtype;   // of the weights, but for routed experts
  std::string expert_dtype;
  std::string device;   // "cpu", ...
  std::string kernels;  // instruction set in use
  std::string kv_dtype;
  std::vector<int32_t> moe_layers;  // index in the model of each MoE layer: the value of the label `layer`
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t kv_block_size = 0;
  int32_t num_kv_blocks = 0;
  int32_t max_queue_requests = 0;
  int32_t max_running_requests = 0;
  // Bytes reserved by each pool.
  int64_t dense_weight_bytes = 0;
  int64_t expert_weight_bytes = 0;
  int64_t kv_cache_bytes = 0;
  int64_t workspace_bytes = 0;
};

// Where state is read from when a page is rendered. The functions must be callable from any thread and must not wait
// for the engine longer than a copy takes.
struct MetricsSources {
  std::function<EngineSnapshot()> engine;
  std::function<ExpertSnapshot()> experts;  // totals since the start: counters only grow
  std::function<ProfileCounts()> profile = {};
  std::function<std::vector<TenantRouting>()> tenants = {};
  std::function<std::shared_ptr<const WhatIfReport>()> what_if = {};  // null without an expert cache
  std::function<SpanCounts()> spans = {};                             // empty where nothing is traced
};

// Thread rules: every method may be called from any thread. The On... methods never wait for a page to be rendered:
// they add to atomics or take a histogram's own lock for some nanoseconds.
class Metrics final : public EngineObserver {
 public:
  explicit Metrics(MetricsOptions options);
  ~Metrics() override;

  // Life cycle of the server.
  void SetLoadProgress(double ratio);                        // [0, 1] of the checkpoint's bytes
  void SetModel(ServedModel model, MetricsSources sources);  // once, when the model is loaded and the engine exists
  void ClearSources();                                       // before the engine ends: pages go on with its last values
  void SetReady(bool ready);                                 // new requests are accepted
  void SetDraining(bool draining);
  void SetStalled(bool stalled);  // requests are in flight, and no step has ended for the watchdog's time
  void SetMemory(const MemoryFigures& memory);
  void SetLoadDuration(absl::Duration since_process_start);

  // Life of a request, told by the service. Each received request is rejected or admitted (Engine::Submit said OK; the
  // engine counts those), never both.
  void OnReceived();
  void OnRejected(RejectReason reason);
  void OnCallRefused(CallRefusal refusal);
  void OnTenantLimited(TenantLimit limit);
  // From now on the lines of these are there, at 0: those of keys and files that nobody uses would take the room of
  // others on the default page.
  void WatchCalls();
  void WatchTenantLimits();
  void WatchFile(ReloadedFile file);
  // A file has changed: it holds from now on, or it is wrong and what was read before it goes on.
  void OnReload(ReloadedFile file, bool ok);
  // Of a watched file: whether it says now what cannot be taken.
  void SetFileWrong(ReloadedFile file, bool is_wrong);
  // Of the certificate that the server shows; without this there is no such line.
  void SetCertificateExpiry(absl::Time expiry);
  // Arrival to the first token handed to the stream.
  void OnFirstToken(absl::Duration since_arrival);
  // Gap between two deliveries of one request; `tokens` >= 1 is the number in the later one.
  void OnInterToken(absl::Duration gap, int64_t tokens);
  // A call was cancelled because its client does not read.
  void OnCallCutOff();
  // Bytes that entered (positive) or left (negative) the outbox of a response stream.
  void AddOutboxBytes(int64_t delta);

  // EngineObserver: called from the engine thread.
  void OnStep(const StepReport& report) override;
  void OnFinish(const FinishSummary& summary) override;

  // The default page, in the text format 0.0.4.
  std::string RenderDefaultPage();
  // The page of the experts: health of every layer, and the whole matrix of layer x expert.
  std::string RenderExpertPage();
  // What the page for people draws, of the window or since the start: see server/expert_json.h.
  std::string RenderExpertJson(bool window);
  std::string RenderExpertKindsJson();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_METRICS_H_
