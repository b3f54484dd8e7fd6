// The flags about experts that are not all in memory.
#ifndef CADRE_SERVER_EXPERT_FLAGS_H_
#define CADRE_SERVER_EXPERT_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/experts/eviction_policy.h"

namespace cadre {

struct ExpertCacheConfig {
  std::optional<double> gib;       // absent: all experts if they fit, else what is left
  std::optional<double> host_gib;  // absent: what is available, less a reserve
  EvictionPolicyKind policy = EvictionPolicyKind::kNextUse;
  int read_threads = 4;
  bool prefetches = true;
  bool reads_directly = false;
  bool tolerates_missing = false;
  bool is_scheduling_aware = false;
  bool moves_memory = false;  // between experts and KV blocks
  std::string profile;        // the file of a profile to start with; empty: none
  int64_t num_kept = 0;       // of the profile's most used experts; or
  double kept_share = 0.0;    // [0, 1] of the slots
  // "--expert-policy, --expert-fault": the flags that were set, by whatever means, and mean nothing where all experts
  // are in memory.
  std::string cache_only_flags;
};

// Values as they are typed. Must stay where it is from AddTo until the flags are parsed.
struct ExpertFlags {
  std::string cache_gb = "auto";
  std::string host_gb = "auto";
  std::string policy = "next-use";
  int read_threads = ExpertCacheConfig().read_threads;
  std::string prefetch = "on";    // or off
  std::string read = "buffered";  // or direct
  std::string fault = "fail";     // or degrade
  std::string split = "fixed";    // or auto
  std::string profile;
  std::string keep = "0";                // a number, or "25%"
  std::string aware_scheduling = "off";  // or on

  // `app` must stay, too, until Config is called.
  void AddTo(CLI::App& app);
  // After parsing: what cannot be together, as "--flag: problem"; empty where all can.
  std::string FindFault(bool has_prefix_cache, int32_t routing_sample_steps, double kv_cache_gb) const;
  ExpertCacheConfig Config() const;

  // Of the flags that mean nothing without a cache.
  std::vector<const CLI::Option*> cache_only;
};

}  // namespace cadre

#endif  // CADRE_SERVER_EXPERT_FLAGS_H_
