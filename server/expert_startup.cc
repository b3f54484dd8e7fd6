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
#include "engine/base/status_macros.h"
#include "engine/experts/eviction_policy.h"
#include "engine/experts/expert_ranking.h"
#include "proto/profile_file.h"
#include "server/translate_profile.h"

namespace cadre {
namespace {

std::string Size(int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) return absl::StrFormat("%.2f GiB", size / (1 << 30));
  return absl::StrFormat("%.1f MiB", size / (1 << 20));
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

void LogHostedExperts(const MemoryPlan& plan, const CheckpointSummary& checkpoint, const ExpertCacheConfig& config) {
  spdlog::info(
      "expert cache: {} of {} experts in the device's memory ({} of {} each), policy {}; all of them in the host's "
      "({}), "
      "where the device reads those that it does not hold",
      plan.num_expert_slots, checkpoint.expert_bytes / checkpoint.one_expert_bytes, Size(plan.expert_weight_bytes),
      Size(checkpoint.one_expert_bytes), EvictionPolicyName(config.policy), Size(plan.host_expert_bytes));
  const std::vector<std::string> flags = absl::StrSplit(config.cache_only_flags, ", ");
  for (const std::string& flag : flags) {
    if (flag != "--expert-policy" && flag != "--expert-host-gb" && flag != "--expert-aware-scheduling" &&
        !flag.empty()) {
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
  if (plan.expert_place() == ExpertPlace::kHost) {
    LogHostedExperts(plan, checkpoint, config);
    return;
  }
  spdlog::info(
      "expert cache: {} of {} experts in memory ({} of {} each), policy {}, {} reads at a time; the others are read "
      "from "
      "the checkpoint when they are needed",
      plan.num_expert_slots, num_experts, Size(plan.expert_weight_bytes), Size(checkpoint.one_expert_bytes),
      EvictionPolicyName(config.policy), config.read_threads);
}

absl::Status UseExpertProfile(const ExpertCacheConfig& config, const ModelCard& card, RunnerOptions* options) {
  if (config.profile.empty()) return absl::OkStatus();
  const absl::StatusOr<v1::ExpertProfile> profile = ReadProfileFile(config.profile);
  if (!profile.ok()) return absl::OutOfRangeError(absl::StrCat("--expert-profile: ", profile.status().message()));
  absl::StatusOr<std::vector<int64_t>> assignments = ReadProfile(*profile, card);
  if (!assignments.ok()) return Refuse(assignments.status(), config.profile);
  if (card.memory.expert_place() != ExpertPlace::kCheckpoint) return absl::OkStatus();  // LogExpertCache has said so
  const int64_t num_slots = card.memory.num_expert_slots;
  CADRE_ASSIGN_OR_RETURN(options->num_kept_experts, CountKept(config, num_slots));
  options->expert_profile = *std::move(assignments);
  const std::vector<ExpertId> best =
      ChooseKept(options->expert_profile, card.limits.num_experts, num_slots, LayerShare::kGlobal);
  spdlog::info(
      "expert profile {}: the {} most used experts are read ahead, which had {:.1f}% of its assignments; {} of "
      "them stay",
      config.profile, best.size(), 100.0 * CountedShare(options->expert_profile, best),
      std::min(options->num_kept_experts, std::ssize(best)));
  return absl::OkStatus();
}

}  // namespace cadre
