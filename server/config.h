// The server's settings: flags, CADRE_* environment variables and a config file, in this order of precedence.
#ifndef CADRE_SERVER_CONFIG_H_
#define CADRE_SERVER_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/cache_domain.h"
#include "engine/experts/bias_balancer.h"
#include "engine/request/capacity_policy.h"
#include "server/expert_flags.h"
#include "server/security_flags.h"
#include "server/trace_flags.h"
#include "server/weight_flags.h"

namespace cadre {

struct ServerConfig {
  std::string model;              // a folder, or "sim:..."
  std::string served_model_name;  // what requests call it
  std::string host = "127.0.0.1";
  uint16_t port = 50051;
  std::string metrics_host;  // of HTTP; as typed, or that of gRPC
  uint16_t metrics_port = 9464;
  SecurityConfig security;

  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 2048;
  int32_t max_model_len = 0;        // 0: the model's own
  int32_t max_prefill_chunk = 512;  // 0: no limit beside max_num_batched_tokens
  int32_t max_queue_requests = 256;
  int64_t max_queue_prompt_tokens = int64_t{1} << 20;
  int64_t max_queue_total_tokens = int64_t{1} << 23;
  double max_tenant_queue_share = 0.5;
  int64_t priority_tokens = 65536;
  bool deadline_admission = true;
  absl::Duration max_queue_wait = absl::InfiniteDuration();
  PrefixCacheScope prefix_cache = PrefixCacheScope::kTenant;
  CapacityPolicy capacity;
  bool allow_capacity_override = true;
  int32_t kv_block_size = 16;
  double kv_cache_gb = 0;  // 0: what is left, up to what max_num_seqs whole contexts need
  ExpertCacheConfig expert_cache;
  TraceFlags trace;
  WeightConfig weights;
  int threads = 0;              // 0: one per CPU of the process
  std::string device = "auto";  // auto, cuda, cpu
  double gpu_memory_utilization = 0.9;
  bool enforce_eager = false;
  bool overlap_steps = true;
  std::string cpu_isa = "auto";
  std::string routing_override;  // empty: the model's own
  BiasBalancerOptions bias_balancing;
  std::string chat_template = "auto";  // auto, the name of a built-in format, or a path
  int64_t stats_window_tokens = 65536;
  int32_t routing_sample_steps = -1;     // -1: 16 where steps are not recorded, else none
  std::string metrics_experts = "auto";  // auto, full, ranked

  absl::Duration drain_delay;
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration stall_timeout = absl::Seconds(60);
  absl::Duration slow_reader_timeout = absl::Seconds(10);
  absl::Duration request_timeout = absl::Seconds(30);
  std::optional<absl::Duration> stream_interval;  // absent: as many calls and CPUs suggest
  absl::Duration max_connection_age = absl::InfiniteDuration();
  int max_concurrent_streams = 1024;
  int64_t grpc_memory_mb = 256;
  bool reflection = true;
  bool vllm_engine_api = false;

  std::string log_level = "info";
  bool log_json = false;
};

struct ParsedConfig {
  std::optional<ServerConfig> config;  // absent: end now with `exit_code` after printing `output`
  int exit_code = 0;
  std::string output;                 // to stdout when exit_code is 0 (help, version), else one line for stderr
  std::vector<std::string> warnings;  // environment variables that look like settings and are none
};

// Reads the environment and, where asked for, a config file. Every wrong value is an error that names the setting, the
// value and the limit; a mistyped flag gets a suggestion. May unset CADRE_PORT (see README.md, Kubernetes).
ParsedConfig ParseConfig(int argc, const char* const* argv);

// The candidate that differs from `name` in the fewest letters, if these are few enough to be a typing mistake.
std::optional<std::string> ClosestName(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace cadre

#endif  // CADRE_SERVER_CONFIG_H_
