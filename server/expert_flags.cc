#include "server/expert_flags.h"

#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/capacity_flags.h"

namespace cadre {
namespace {

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  names.reserve(std::size(kEvictionPolicies));
  for (const EvictionPolicyKind kind : kEvictionPolicies) names.emplace_back(EvictionPolicyName(kind));
  return names;
}

std::string CheckCacheSize(const std::string& text) {
  if (text == "auto") return "";
  double gib = 0;
  if (!absl::SimpleAtod(text, &gib) || !(gib > 0.0 && gib <= 1e6)) {
    return "is " + text + ", must be auto, or GiB above 0 and up to 1000000";
  }
  return "";
}

// "25%" as 0.25.
std::optional<double> ToShare(const std::string& text) {
  double percent = 0;
  if (!absl::EndsWith(text, "%") || !absl::SimpleAtod(text.substr(0, text.size() - 1), &percent)) return std::nullopt;
  return percent >= 0.0 && percent <= 100.0 ? std::optional(percent / 100.0) : std::nullopt;
}

std::string CheckKept(const std::string& text) {
  int64_t count = 0;
  if (ToShare(text).has_value() || (absl::SimpleAtoi(text, &count) && count >= 0)) return "";
  return "is " + text + ", must be a number of experts, or from 0% to 100% of those that fit";
}

}  // namespace

void ExpertFlags::AddTo(CLI::App& app) {
  app.add_option("--expert-cache-gb", cache_gb,
                 "Memory of the device for routed experts, GiB: those that do not fit are read when they are needed, "
                 "from the checkpoint, or by a GPU from the host's memory; auto: all of them if they fit, else what is "
                 "left")
      ->check(CLI::Validator(CheckCacheSize, "auto or GiB"));
  cache_only = {
      app.add_option("--expert-policy", policy, "Which expert gives way to one that is needed")
          ->check(CLI::IsMember(PolicyNames())),
      app.add_option("--expert-host-gb", host_gb,
                     "Memory of the host that routed experts may take where a GPU does not hold them all, GiB; auto: "
                     "nine tenths of what is available")
          ->check(CLI::Validator(CheckCacheSize, "auto or GiB")),
      app.add_option("--expert-read-threads", read_threads, "Experts that are read at a time")
          ->check(CLI::Range(1, 256)),
      app.add_option("--expert-read", read,
                     "How experts are read: buffered leaves them in the page cache as long as others do not need the "
                     "memory, direct reads past it")
          ->check(CLI::IsMember({"buffered", "direct"})),
      app.add_option("--expert-prefetch", prefetch,
                     "Whether experts that the next layer is likely to need are read while this one computes")
          ->check(CLI::IsMember({"on", "off"})),
      app.add_option("--expert-fault", fault,
                     "Where an expert cannot be read: fail ends the requests that need it with UNAVAILABLE, degrade "
                     "goes on without it (with --prefix-cache off)")
          ->check(CLI::IsMember({"fail", "degrade"})),
      app.add_option(
             "--memory-split", split,
             "How memory is split between experts and KV blocks where not all experts fit: fixed as it is at the "
             "start, or auto, to where it saves more time (on a CPU)")
          ->check(CLI::IsMember({"fixed", "auto"})),
      app.add_option(
          "--expert-profile", profile,
          "A profile, as cadre profile export writes it: its most used experts are read at the start, before "
          "they are needed"),
      app.add_option("--expert-keep", keep,
                     "So many of the most used experts of --expert-profile stay in memory, or such a share of those "
                     "that fit (25%)")
          ->check(CLI::Validator(CheckKept, "N or P%")),
      app.add_option("--expert-aware-scheduling", aware_scheduling,
                     "Whether, of waiting requests of one tenant and priority, those go first that are likely to need "
                     "experts which are in memory; nobody is passed over more than 8 times")
          ->check(CLI::IsMember({"off", "on"})),
  };
}

std::string ExpertFlags::FindFault(bool has_prefix_cache, int32_t routing_sample_steps, double kv_cache_gb) const {
  if (split == "auto" && (cache_gb != "auto" || kv_cache_gb > 0.0)) {
    return absl::StrCat("--memory-split: auto decides what ",
                        cache_gb != "auto" ? "--expert-cache-gb" : "--kv-cache-gb", " fixes: set one of them");
  }
  if (fault == "degrade" && has_prefix_cache) {
    return "--expert-fault: degrade needs --prefix-cache off, or what was computed without an expert would be found by "
           "other requests";
  }
  if (profile.empty() && keep != "0") return "--expert-keep: means nothing without --expert-profile";
  if (aware_scheduling == "on" && routing_sample_steps == 0) {
    return "--expert-aware-scheduling: on needs --routing-sample-steps above 0, from which it learns what tokens need";
  }
  return "";
}

ExpertCacheConfig ExpertFlags::Config() const {
  ExpertCacheConfig config;
  if (double gib = 0; absl::SimpleAtod(cache_gb, &gib)) config.gib = gib;
  if (double gib = 0; absl::SimpleAtod(host_gb, &gib)) config.host_gib = gib;
  config.policy = FindEvictionPolicy(policy).value();  // the parser knows the names
  config.read_threads = read_threads;
  config.prefetches = prefetch == "on";
  config.reads_directly = read == "direct";
  config.tolerates_missing = fault == "degrade";
  config.is_scheduling_aware = aware_scheduling == "on";
  config.moves_memory = split == "auto";
  config.profile = profile;
  if (const std::optional<double> share = ToShare(keep); share.has_value()) {
    config.kept_share = *share;
  } else {
    CADRE_CHECK(absl::SimpleAtoi(keep, &config.num_kept));
  }
  for (const CLI::Option* option : cache_only) {
    if (option->count() == 0) continue;
    absl::StrAppend(&config.cache_only_flags, config.cache_only_flags.empty() ? "" : ", ", option->get_name());
  }
  return config;
}

}  // namespace cadre
