#include "server/capacity_flags.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace cadre {
CLI::Validator NumberIn(double low, double high) {
  const std::string range = absl::StrCat("[", low, ", ", high, "]");
  const auto check = [=](const std::string& text) -> std::string {
    double number = 0.0;
    if (!absl::SimpleAtod(text, &number)) return absl::StrCat("\"", text, "\" is no number");
    if (number >= low && number <= high) return "";
    return absl::StrCat(text, " is not in ", range);
  };
  return CLI::Validator(check, absl::StrCat("FLOAT in ", range));
}

void CapacityFlags::AddTo(CLI::App& app) {
  app.add_option("--capacity-factor", factor,
                 "Places of an expert as a multiple of its even share of a group's assignments; 0: no limit")
      ->check(NumberIn(0.0, CapacityPolicy::kMaxFactor));
  needs_factor_ = {
      app.add_option("--capacity-min", min_places, "Places that an expert has at least")
          ->check(CLI::Range(0, CapacityPolicy::kMaxMinPlaces)),
      app.add_option(
             "--capacity-scope", scope,
             "Whose tokens share places: request (a group of one request: others change nothing) or batch (all of a "
             "step: requests lose tokens to each other)")
          ->check(CLI::IsMember({"request", "batch"})),
      group_option_ = app.add_option("--capacity-group", group_tokens, "Tokens in a group of the scope request")
                          ->check(CLI::Range(1, CapacityPolicy::kMaxGroupTokens)),
      app.add_option(
             "--capacity-overflow", overflow,
             "What becomes of a token without a place: drop, reweight (its other experts weigh more) or reroute (the "
             "next best expert with a place)")
          ->check(CLI::IsMember({"drop", "reweight", "reroute"}))};
  app.add_option("--capacity-override", overrides, "Whether requests may bring their own limits, or none")
      ->check(CLI::IsMember({"allow", "refuse"}));
}

std::string CapacityFlags::FindFault() const {
  for (const CLI::Option* const option : needs_factor_) {
    if (factor == 0.0 && option->count() > 0) {
      return absl::StrCat(option->get_name(), ": means nothing without --capacity-factor");
    }
  }
  if (scope == "batch" && group_option_->count() > 0) {
    return absl::StrCat(group_option_->get_name(), ": means nothing with --capacity-scope=batch");
  }
  return "";
}

CapacityPolicy CapacityFlags::Policy() const {
  if (factor == 0.0) return {};
  return {.scope = scope == "batch" ? CapacityScope::kBatch : CapacityScope::kRequest,
          .overflow = overflow == "drop"       ? Overflow::kDrop
                      : overflow == "reweight" ? Overflow::kReweight
                                               : Overflow::kReroute,
          .factor = factor,
          .min_places = min_places,
          .group_tokens = group_tokens};
}

}  // namespace cadre
