// The text form of SimulatedOptions: what stands behind `--model sim:`.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/simulated_runner.h"

namespace cadre {
namespace {

constexpr std::string_view kPrefix = "sim";
constexpr double kMaxCostMs = 60'000;  // a step longer than a minute is a typing error

// A whole number of the spec: where it goes and what it may be. The limits keep every product of two within int64.
struct CountKey {
  const char* name;
  int32_t RunnerLimits::*field;
  int32_t min;
  int32_t max;
};
constexpr CountKey kCountKeys[] = {
    {"vocab", &RunnerLimits::vocab_size, 2, 1 << 20},
    {"max_len", &RunnerLimits::max_model_len, 2, 1 << 20},
    {"blocks", &RunnerLimits::num_kv_blocks, 1, 1 << 20},
    {"block_size", &RunnerLimits::kv_block_size, 1, 1024},
    {"layers", &RunnerLimits::num_moe_layers, 0, 1024},
    {"experts", &RunnerLimits::num_experts, 1, 4096},
    {"top_k", &RunnerLimits::top_k, 1, 4096},
};

absl::Status Invalid(const std::string& key, const std::string& value, const std::string& want) {
  return absl::InvalidArgumentError(absl::StrCat("simulated model: ", key, "=", value, " is not ", want));
}

absl::Status SetOption(const std::string& key, const std::string& value, SimulatedOptions* options) {
  for (const CountKey& count : kCountKeys) {
    if (key != count.name) continue;
    int32_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < count.min || number > count.max) {
      return Invalid(key, value, absl::StrCat("a whole number from ", count.min, " to ", count.max));
    }
    options->limits.*count.field = number;
    return absl::OkStatus();
  }
  if (key != "step_ms" && key != "token_us") {
    std::string names = "step_ms, token_us";
    for (const CountKey& count : kCountKeys) absl::StrAppend(&names, ", ", count.name);
    return absl::InvalidArgumentError(
        absl::StrCat("simulated model: unknown option ", key, ", must be one of ", names));
  }
  double cost = 0.0;
  const double max = key == "step_ms" ? kMaxCostMs : kMaxCostMs * 1000;
  if (!absl::SimpleAtod(value, &cost) || !(cost >= 0.0 && cost <= max)) {
    return Invalid(key, value, absl::StrCat("a number from 0 to ", max));
  }
  (key == "step_ms" ? options->step_cost : options->token_cost) =
      key == "step_ms" ? absl::Milliseconds(cost) : absl::Microseconds(cost);
  return absl::OkStatus();
}

}  // namespace

bool IsSimulatedSpec(std::string_view model) {
  return model == kPrefix || (model.starts_with(kPrefix) && model[kPrefix.size()] == ':');
}

absl::StatusOr<SimulatedOptions> ParseSimulatedSpec(std::string_view spec) {
  if (!IsSimulatedSpec(spec)) {
    return absl::InvalidArgumentError(absl::StrCat("a simulated model starts with \"sim:\", not ", ToAbsl(spec)));
  }
  SimulatedOptions options;
  spec.remove_prefix(std::min(spec.size(), kPrefix.size() + 1));
  for (absl::string_view part : absl::StrSplit(ToAbsl(spec), ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> option = absl::StrSplit(part, absl::MaxSplits('=', 1));
    CADRE_RETURN_IF_ERROR(SetOption(option.first, option.second, &options));
  }
  if (options.limits.top_k > options.limits.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("simulated model: top_k=", options.limits.top_k,
                                                   " is more than experts=", options.limits.num_experts));
  }
  const int64_t num_slots = static_cast<int64_t>(options.limits.num_kv_blocks) * options.limits.kv_block_size;
  constexpr int64_t kMaxSlots = int64_t{1} << 25;  // 24 bytes each: 768 MiB
  if (num_slots > kMaxSlots) {
    return absl::InvalidArgumentError(
        absl::StrCat("simulated model: blocks * block_size is ", num_slots, " tokens, the limit is ", kMaxSlots));
  }
  return options;
}

}  // namespace cadre
