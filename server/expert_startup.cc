#include "server/expert_startup.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "engine/base/clock.h"
#include "engine/base/status_macros.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/expert_ranking.h"
#include "engine/experts/read_probe.h"
#include "proto/profile_file.h"
#include "server/translate_profile.h"

namespace cadre {
namespace {

std::string Size(int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) return absl::StrFormat("%.2f GiB", size / (1 << 30));
  return absl::StrFormat("%.1f MiB", size / (1 << 20));
}

std::string Time(double seconds) {
  return seconds < 1.0 ? absl::StrFormat("%.1fms", 1e3 * seconds) : absl::StrFormat("%.2fs", seconds);
}

absl::Status Refuse(const absl::Status& status, const std::string& file) {
  return absl::OutOfRangeError(absl::StrCat("--expert-profile: ", file, ": ", status.message()));
}

absl::StatusOr<int64_t> CountKept(const ExpertCacheConfig& config, int64_t num_slots) {
  if (config.num_kept > num_slots - 1) {
    return absl::OutOfRangeError(absl::StrCat("--expert-keep: ", config.num_kept, " is more than ", num_slots - 1,
                                              ": there is memory for ", num_slots,
                                              " experts, and one place stays free for the others"));
  }
  const auto share = static_cast<int64_t>(config.kept_share * static_cast<double>(num_slots));
  return std::max(config.num_kept, std::min(share, num_slots - 1));
}

constexpr char kMemoryStays[] = "--memory-split: without effect, because a GPU's memory stays where it is";

void LogThreeTiers(const MemoryPlan& plan, const CheckpointSummary& checkpoint, const ExpertCacheConfig& config) {
  const int64_t num_experts = checkpoint.expert_bytes / checkpoint.one_expert_bytes;
  spdlog::info(
      "expert cache: {} of {} experts in the device's memory for good ({} of {} each), {} more in the host's ({}), "
      "policy {}, {} reads at a time; the others are read from the checkpoint when they are needed",
      plan.num_resident_experts, num_experts, Size(plan.expert_weight_bytes), Size(checkpoint.one_expert_bytes),
      plan.num_expert_slots, Size(plan.host_expert_bytes), EvictionPolicyName(config.policy), config.read_threads);
  spdlog::warn(
      "the host's memory does not hold all experts ({}; --expert-host-gb): steps wait for files, and at each layer for "
      "the device{}",
      Size(checkpoint.expert_bytes),
      config.profile.empty() ? ". Give --expert-profile, so that the device holds those that are used most" : "");
  if (config.moves_memory) spdlog::warn(kMemoryStays);
}

void LogHostedExperts(const MemoryPlan& plan, const CheckpointSummary& checkpoint, const ExpertCacheConfig& config) {
  spdlog::info(
      "expert cache: {} of {} experts in the device's memory ({} of {} each), policy {}; all of them in the "
      "host's ({}), where the device reads those that it does not hold",
      plan.num_expert_slots, checkpoint.expert_bytes / checkpoint.one_expert_bytes, Size(plan.expert_weight_bytes),
      Size(checkpoint.one_expert_bytes), EvictionPolicyName(config.policy), Size(plan.host_expert_bytes));
  const std::vector<std::string> flags = absl::StrSplit(config.cache_only_flags, ", ");
  for (const std::string& flag : flags) {
    if (flag == "--memory-split") {
      if (config.moves_memory) spdlog::warn(kMemoryStays);
      continue;
    }
    if (flag.starts_with("--expert-read") || flag == "--expert-prefetch" || flag == "--expert-fault") {
      spdlog::warn("{}: without effect, because all experts are read at the start", flag);
    }
  }
}

}  // namespace

void LogExpertCache(const MemoryPlan& plan, const CheckpointSummary& checkpoint, const ExpertCacheConfig& config) {
  if (plan.num_expert_slots == 0) {
    const std::string& flags = config.cache_only_flags;
    if (!flags.empty()) spdlog::warn("{}: without effect, because all experts are in memory", flags);
    return;
  }
  const int64_t num_experts = checkpoint.expert_bytes / checkpoint.one_expert_bytes;
  if (plan.num_resident_experts > 0) {
    LogThreeTiers(plan, checkpoint, config);
    return;
  }
  if (plan.expert_place() == ExpertPlace::kHost) {
    LogHostedExperts(plan, checkpoint, config);
    return;
  }
  spdlog::info(
      "expert cache: {} of {} experts in memory ({} of {} each), policy {}, {} reads at a time; the others are read "
      "from the checkpoint when they are needed",
      plan.num_expert_slots, num_experts, Size(plan.expert_weight_bytes), Size(checkpoint.one_expert_bytes),
      EvictionPolicyName(config.policy), config.read_threads);
  if (!plan.split) return;
  spdlog::info("memory split: auto; {} to {} experts and {} to {} KV blocks share {}, {} experts at a time",
               plan.split->min_slots, plan.split->max_slots, plan.split->min_blocks, plan.split->max_blocks,
               Size(plan.split->budget_bytes), plan.split->step_slots);
}

namespace {

// Of a token.
struct ExpertReads {
  double hit_ratio = 0.0;
  double number = 0.0;
  double bytes = 0.0;
};

ExpertReads ReadsOf(const ExpertSpeed& speed) {
  const double hit_ratio = static_cast<double>(speed.num_slots) / static_cast<double>(speed.num_experts);
  const double number = (1.0 - hit_ratio) * static_cast<double>(speed.token_experts);
  return {.hit_ratio = hit_ratio, .number = number, .bytes = number * static_cast<double>(speed.expert_bytes)};
}

}  // namespace

std::string DescribeSpeed(const ExpertSpeed& speed) {
  const auto [hit_ratio, num_read, bytes] = ReadsOf(speed);
  const auto rate = [](double bytes_per_second) { return Size(static_cast<int64_t>(bytes_per_second)); };
  std::string line = absl::StrFormat(
      "expert speed: a token of one sequence waits about %s for experts (%.1f of its %d at a hit ratio of %.1f%%, the "
      "share that fits: %s at %s/s, measured with %d of them, %d at a time)",
      Time(bytes / speed.bytes_per_second), num_read, speed.token_experts, 100.0 * hit_ratio,
      Size(static_cast<int64_t>(bytes)), rate(speed.bytes_per_second), speed.num_probed, speed.num_threads);
  if (speed.cached_bytes_per_second) {
    absl::StrAppend(&line, ", or ", Time(bytes / *speed.cached_bytes_per_second), " for those in the page cache (",
                    rate(*speed.cached_bytes_per_second), "/s)");
  }
  return line;
}

std::string DescribeLinkSpeed(const ExpertSpeed& speed) {
  const auto [hit_ratio, num_read, bytes] = ReadsOf(speed);
  return absl::StrFormat(
      "expert speed: a token of one sequence reads experts over the link for about %s (%.1f of its %d at a hit "
      "ratio of %.1f%%, the share that fits: %s at %s/s, measured when the slots were filled)",
      Time(bytes / speed.bytes_per_second), num_read, speed.token_experts, 100.0 * hit_ratio,
      Size(static_cast<int64_t>(bytes)), Size(static_cast<int64_t>(speed.bytes_per_second)));
}

void LogLinkSpeed(const ModelConfig& model, const MemoryPlan& plan, const ModelRunner& runner) {
  const std::optional<ExpertCacheReport> report = runner.expert_cache();
  if (!report || report->link_bytes_per_second <= 0.0) return;
  spdlog::info("{}", DescribeLinkSpeed({.num_experts = model.num_moe_layers() * model.num_experts,
                                        .num_slots = plan.num_expert_slots,
                                        .token_experts = model.num_moe_layers() * model.router.top_k,
                                        .expert_bytes = plan.expert_weight_bytes / plan.num_expert_slots,
                                        .bytes_per_second = report->link_bytes_per_second}));
}

void LogExpertSpeed(const ModelConfig& model, const MemoryPlan& plan, const ExpertCacheConfig& config,
                    const ExpertSource& source) {
  constexpr int64_t kProbed = 8;
  ExpertSpeed speed = {.num_experts = model.num_moe_layers() * model.num_experts,
                       .num_slots = plan.num_resident_experts + plan.num_expert_slots,
                       .token_experts = model.num_moe_layers() * model.router.top_k,
                       .expert_bytes = source.expert_bytes()};
  const int64_t at_once = std::min({int64_t{config.read_threads}, kProbed, plan.num_expert_slots});
  const ReadProbeOptions options = {.num_threads = static_cast<int>(at_once)};
  const MonotonicClock clock;
  const absl::StatusOr<ReadProbe> probe = ProbeReads(source, ChooseProbed(speed.num_experts, kProbed), options, clock);
  if (probe.ok()) {
    speed.num_probed = std::ssize(probe->experts);
    speed.num_threads = options.num_threads;
    speed.bytes_per_second = probe->bytes_per_second(speed.expert_bytes);
    if (!config.reads_directly) {
      const absl::StatusOr<ReadProbe> again = ProbeReads(source, probe->experts, options, clock);
      if (again.ok()) speed.cached_bytes_per_second = again->bytes_per_second(speed.expert_bytes);
    }
  }
  if (!probe.ok()) {
    spdlog::warn("expert speed: not known, because an expert could not be read: {}",
                 std::string(probe.status().message()));
    return;
  }
  spdlog::info("{}", DescribeSpeed(speed));
}

void LogShadows(const ModelRunner& runner) {
  const ShadowSimulator* const simulator = runner.shadow_simulator();
  if (simulator == nullptr) return;
  if (const absl::Status status = simulator->Latest()->status; !status.ok()) {
    spdlog::warn("{}; GetWhatIf will not answer", std::string(status.message()));
  }
}

absl::Status UseExpertProfile(const ExpertCacheConfig& config, const ModelCard& card, RunnerOptions* options) {
  if (config.profile.empty()) return absl::OkStatus();
  const absl::StatusOr<v1::ExpertProfile> profile = ReadProfileFile(config.profile);
  if (!profile.ok()) return absl::OutOfRangeError(absl::StrCat("--expert-profile: ", profile.status().message()));
  absl::StatusOr<std::vector<int64_t>> assignments = ReadProfile(*profile, card);
  if (!assignments.ok()) return Refuse(assignments.status(), config.profile);
  if (card.memory.expert_place() == ExpertPlace::kDevice) return absl::OkStatus();  // LogExpertCache has said so
  const int64_t num_slots = card.memory.num_expert_slots;
  CADRE_ASSIGN_OR_RETURN(options->num_kept_experts, CountKept(config, num_slots));
  options->expert_profile = *std::move(assignments);
  const std::vector<ExpertId> best = ChooseKept(options->expert_profile, card.limits.num_experts,
                                                card.memory.num_resident_experts + num_slots, LayerShare::kGlobal);
  spdlog::info(
      "expert profile {}: the {} most used experts are loaded first, which had {:.1f}% of its assignments; {} of "
      "them stay",
      config.profile, best.size(), 100.0 * CountedShare(options->expert_profile, best),
      std::min(options->num_kept_experts, std::ssize(best)));
  return absl::OkStatus();
}

}  // namespace cadre
