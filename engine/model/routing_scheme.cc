#include "engine/model/routing_scheme.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/config_reader.h"

namespace cadre {
namespace {

constexpr double kMaxScalingFactor = 1e6;
constexpr double kMaxNoise = 1e3;
constexpr double kMinTopP = 1e-6;
constexpr double kMinThreshold = 1e-6;
constexpr int64_t kMaxExpertChoiceGroup = 4096;
constexpr int64_t kDefaultExpertChoiceGroup = 64;
constexpr double kMinExpertChoiceFactor = 1e-3;
constexpr double kMaxExpertChoiceFactor = 1e3;
constexpr double kDefaultExpertChoiceFactor = 2.0;
constexpr size_t kMaxOverrideBytes = size_t{1} << 20;
constexpr int kMaxOverrideDepth = 8;
// Of DeepSeek-V3: keeps a sum of sigmoids that are all zero from dividing.
constexpr float kSigmoidEpsilon = 1e-20f;

struct SchemeTraits {
  RoutingScheme scheme;
  std::string_view name;
  std::vector<std::string_view> settings;
};

const std::vector<SchemeTraits>& Schemes() {
  static const std::vector<SchemeTraits>& schemes = *new std::vector<SchemeTraits>{
      {RoutingScheme::kFamily, "family", {}},
      {RoutingScheme::kSoftmaxTopK, "softmax-top-k", {"top_k", "normalize", "scaling_factor"}},
      {RoutingScheme::kSigmoidBias, "sigmoid-bias", {"top_k", "renormalize", "scaling_factor", "selection_bias"}},
      {RoutingScheme::kGroupLimited,
       "group-limited",
       {"num_groups", "kept_groups", "score", "group_score", "top_k", "renormalize", "scaling_factor",
        "selection_bias"}},
      {RoutingScheme::kSwitch, "switch", {}},
      {RoutingScheme::kGshard, "gshard", {}},
      {RoutingScheme::kNoisyTopK, "noisy-top-k", {"top_k", "noise", "scaling_factor"}},
      {RoutingScheme::kHash, "hash", {"top_k", "hash_seed"}},
      {RoutingScheme::kTopP, "top-p", {"p", "k_min", "k_max", "renormalize", "scaling_factor"}},
      {RoutingScheme::kThreshold, "threshold", {"tau", "k_min", "k_max", "renormalize", "scaling_factor"}},
      {RoutingScheme::kDense, "dense", {}},
      {RoutingScheme::kExpertChoice, "expert-choice", {"group", "capacity_factor", "k_max", "scaling_factor"}},
  };
  return schemes;
}

void AppendName(std::string* out, std::string_view name) { absl::StrAppend(out, ToAbsl(name)); }

std::string NamesOfSchemes() {
  return absl::StrJoin(Schemes(), ", ",
                       [](std::string* out, const SchemeTraits& traits) { AppendName(out, traits.name); });
}

// One of two words.
bool IsFirst(ConfigReader& reader, std::string_view key, std::string_view first, std::string_view second,
             bool fallback) {
  const std::string value = reader.String(key, fallback ? first : second);
  if (value != first && value != second) {
    reader.Fail(absl::StatusCode::kInvalidArgument, absl::StrCat(ToAbsl(key), " is ", reader.Show(key), ", must be ",
                                                                 Quoted(first), " or ", Quoted(second)));
  }
  return value == first;
}

class SchemeReader {
 public:
  SchemeReader(const nlohmann::json& block, std::string_view origin, ModelConfig* config)
      : block_(block), reader_(block, std::string(origin)), config_(*config), router_(config->router) {}

  absl::Status Read(std::string_view origin) {
    CADRE_RETURN_IF_ERROR(reader_.status());
    if (!reader_.Has("scheme")) {
      return absl::InvalidArgumentError(
          absl::StrCat(ToAbsl(origin), ": scheme is missing, must be one of ", NamesOfSchemes()));
    }
    const std::string name = reader_.String("scheme", "");
    const auto traits =
        std::ranges::find_if(Schemes(), [&](const SchemeTraits& scheme) { return scheme.name == name; });
    if (traits == Schemes().end()) {
      reader_.Fail(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("scheme is ", reader_.Show("scheme"), ", must be one of ", NamesOfSchemes()));
      return reader_.status();
    }
    RefuseOthers(*traits);
    if (traits->scheme == RoutingScheme::kFamily) return reader_.status();
    router_ = {.top_k = config_.router.top_k};
    ReadSettings(traits->scheme);
    CADRE_RETURN_IF_ERROR(reader_.status());
    config_.router = router_;
    choice_.scheme = traits->scheme;
    choice_.origin = std::string(origin);
    config_.routing = std::move(choice_);
    return absl::OkStatus();
  }

 private:
  void RefuseOthers(const SchemeTraits& traits) {
    for (const auto& [key, value] : block_.items()) {
      if (key == "scheme" || std::ranges::find(traits.settings, key) != traits.settings.end()) continue;
      const std::string known = traits.settings.empty()
                                    ? "it has none"
                                    : absl::StrCat("it has ", absl::StrJoin(traits.settings, ", ", AppendName));
      reader_.Fail(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(Quoted(key), " is no setting of the scheme ", ToAbsl(traits.name), " (", known, ")"));
    }
  }

  void ReadSettings(RoutingScheme scheme) {
    switch (scheme) {
      case RoutingScheme::kFamily:
        return;
      case RoutingScheme::kSoftmaxTopK:
        return ReadSoftmaxTopK();
      case RoutingScheme::kSigmoidBias:
        router_.score = RouterScore::kSigmoid;
        ReadRenormalization(/*fallback=*/true);
        ReadTopK(config_.num_experts);
        ReadScalingFactor();
        return ReadSelectionBias();
      case RoutingScheme::kGroupLimited:
        return ReadGroupLimited();
      case RoutingScheme::kSwitch:
        router_.top_k = 1;
        return;
      case RoutingScheme::kGshard:
        return ReadGshard();
      case RoutingScheme::kNoisyTopK:
        choice_.noise = static_cast<float>(reader_.Number("noise", 0.0, kMaxNoise, 1.0));
        router_.score = RouterScore::kIdentity;
        router_.norm = WeightNorm::kSoftmax;
        ReadTopK(config_.num_experts);
        return ReadScalingFactor();
      case RoutingScheme::kHash:
        choice_.hash_seed =
            static_cast<uint64_t>(reader_.Int({"hash_seed"}, 0, std::numeric_limits<int64_t>::max(), 0));
        router_.score = RouterScore::kIdentity;
        router_.norm = WeightNorm::kUniform;
        router_.top_k = reader_.Int({"top_k"}, 1, config_.num_experts, 1);
        return;
      case RoutingScheme::kTopP:
        router_.top_p = static_cast<float>(reader_.Number("p", kMinTopP, 1.0));
        return ReadVaryingK();
      case RoutingScheme::kThreshold:
        router_.threshold = static_cast<float>(reader_.Number("tau", kMinThreshold, 1.0));
        return ReadVaryingK();
      case RoutingScheme::kExpertChoice:
        return ReadExpertChoice();
      case RoutingScheme::kDense:
        router_.top_k = config_.num_experts;
        return;
    }
  }

  void ReadTopK(int64_t most) {
    const int64_t family = router_.top_k;
    router_.top_k = reader_.Int({"top_k"}, 1, most, family);
    if (router_.top_k <= most) return;
    reader_.Fail(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("top_k is absent, and the model's own, ", family, ", is above the limit of ", most));
  }
  void ReadScalingFactor() {
    router_.scaling_factor =
        static_cast<float>(reader_.Number("scaling_factor", 1.0 / kMaxScalingFactor, kMaxScalingFactor, 1.0));
  }
  void ReadRenormalization(bool fallback) {
    if (!reader_.Bool("renormalize", fallback)) return;
    router_.norm = WeightNorm::kSum;
    if (router_.score == RouterScore::kSigmoid) router_.norm_epsilon = kSigmoidEpsilon;
  }

  void ReadSoftmaxTopK() {
    if (!IsFirst(reader_, "normalize", "before", "after", /*fallback=*/false)) {
      router_.score = RouterScore::kIdentity;
      router_.norm = WeightNorm::kSoftmax;
    }
    ReadTopK(config_.num_experts);
    ReadScalingFactor();
  }

  void ReadGshard() {
    constexpr int64_t kChoices = 2;
    if (config_.num_experts < kChoices) {
      reader_.Fail(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("gshard chooses ", kChoices, " experts, and the model has ", config_.num_experts));
    }
    router_.top_k = std::min(kChoices, config_.num_experts);
    router_.norm = WeightNorm::kSum;
    router_.spill_over = 1;
  }

  void ReadVaryingK() {
    router_.top_k = reader_.Int({"k_max"}, 1, config_.num_experts, config_.num_experts);
    router_.min_k = reader_.Int({"k_min"}, 1, router_.top_k, 1);
    ReadRenormalization(/*fallback=*/false);
    ReadScalingFactor();
  }

  // Behind the prompt, tokens choose as the family has it.
  void ReadExpertChoice() {
    const int64_t family = config_.router.top_k;
    router_ = config_.router;
    choice_.expert_choice.group = reader_.Int({"group"}, 1, kMaxExpertChoiceGroup, kDefaultExpertChoiceGroup);
    choice_.expert_choice.factor =
        reader_.Number("capacity_factor", kMinExpertChoiceFactor, kMaxExpertChoiceFactor, kDefaultExpertChoiceFactor);
    router_.top_k = reader_.Int({"k_max"}, family, config_.num_experts, config_.num_experts);
    router_.max_choice = family;
    ReadScalingFactor();
  }

  void ReadGroupLimited() {
    const int64_t num_experts = config_.num_experts;
    const bool is_sigmoid = !IsFirst(reader_, "score", "softmax", "sigmoid", /*fallback=*/true);
    if (is_sigmoid) router_.score = RouterScore::kSigmoid;
    const bool is_max = IsFirst(reader_, "group_score", "max", "top2-sum", /*fallback=*/!is_sigmoid);
    router_.group_score = is_max ? GroupScore::kMax : GroupScore::kTop2Sum;
    router_.num_groups = reader_.Int({"num_groups"}, 1, num_experts);
    if (num_experts % router_.num_groups != 0) {
      reader_.Fail(
          absl::StatusCode::kInvalidArgument,
          absl::StrCat("num_groups is ", router_.num_groups, ", must divide the number of experts, ", num_experts));
    }
    router_.num_kept_groups = reader_.Int({"kept_groups"}, 1, router_.num_groups);
    ReadTopK(num_experts / router_.num_groups * router_.num_kept_groups);
    ReadRenormalization(/*fallback=*/is_sigmoid);
    ReadScalingFactor();
    ReadSelectionBias();
  }

  // A list for all layers, or a list of lists, one for each MoE layer.
  void ReadSelectionBias() {
    if (!reader_.Has("selection_bias")) return;
    const nlohmann::json& value = block_.at("selection_bias");
    const int64_t num_layers = config_.num_moe_layers();
    const bool is_nested = value.is_array() && !value.empty() && value.front().is_array();
    if (is_nested && static_cast<int64_t>(value.size()) != num_layers) {
      return FailBias(absl::StrCat("a list for each of ", num_layers, " MoE layers"));
    }
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      if (!AppendBias(is_nested ? value.at(static_cast<size_t>(layer)) : value)) {
        return FailBias(absl::StrCat(config_.num_experts, " numbers from ", -kMaxSelectionBias, " to ",
                                     kMaxSelectionBias, is_nested ? " for each layer" : ""));
      }
    }
  }
  bool AppendBias(const nlohmann::json& list) {
    if (!list.is_array() || static_cast<int64_t>(list.size()) != config_.num_experts) return false;
    for (const nlohmann::json& number : list) {
      if (!number.is_number() || !(std::abs(number.get<double>()) <= kMaxSelectionBias)) return false;
      choice_.selection_bias.push_back(static_cast<float>(number.get<double>()));
    }
    return true;
  }
  void FailBias(std::string_view expected) {
    reader_.Fail(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("selection_bias is ", reader_.Show("selection_bias"), ", must be ", ToAbsl(expected)));
  }

  const nlohmann::json& block_;
  ConfigReader reader_;
  ModelConfig& config_;
  RouterOptions router_;
  RoutingChoice choice_;
};

nlohmann::json ToValue(std::string_view text) {
  int64_t whole = 0;
  double number = 0.0;
  if (text == "true" || text == "false") return text == "true";
  if (absl::SimpleAtoi(ToAbsl(text), &whole)) return whole;
  if (absl::SimpleAtod(ToAbsl(text), &number) && std::isfinite(number)) return number;
  return std::string(text);
}

std::string DescribeScore(const ModelConfig& config) {
  const RouterOptions& router = config.router;
  const std::string over = absl::StrCat(" over ", config.num_experts, " experts");
  switch (router.score) {
    case RouterScore::kSoftmax:
      return "softmax" + over;
    case RouterScore::kSigmoid:
      return "sigmoid" + over;
    case RouterScore::kIdentity:
      if (config.routing.scheme == RoutingScheme::kHash) return "hash of the token" + over;
      return "logits" + over;
  }
  return "";
}

std::string_view DescribeNorm(WeightNorm norm) {
  switch (norm) {
    case WeightNorm::kNone:
      return "weights as they are";
    case WeightNorm::kSum:
      return "weights over their sum";
    case WeightNorm::kSoftmax:
      return "softmax of the chosen";
    case WeightNorm::kUniform:
      return "equal weights";
  }
  return "";
}

}  // namespace

absl::Status ApplyRoutingScheme(const nlohmann::json& block, std::string_view origin, ModelConfig* config) {
  return SchemeReader(block, origin, config).Read(origin);
}

absl::StatusOr<nlohmann::json> ParseRoutingOverride(std::string_view text, std::string_view what) {
  const std::string prefix = absl::StrCat(ToAbsl(what), ": ");
  if (text.size() > kMaxOverrideBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(prefix, "it has ", text.size(), " bytes, limit is ", kMaxOverrideBytes));
  }
  if (text.starts_with('{')) return ParseJson(text, what, kMaxOverrideDepth);
  nlohmann::json block = nlohmann::json::object();
  for (const absl::string_view part : absl::StrSplit(ToAbsl(text), ',')) {
    if (block.empty()) {
      block["scheme"] = std::string(part);
      continue;
    }
    const std::pair<absl::string_view, absl::string_view> setting = absl::StrSplit(part, absl::MaxSplits('=', 1));
    const std::string key(setting.first);
    if (!absl::StrContains(part, "=") || key.empty() || block.contains(key)) {
      return absl::InvalidArgumentError(
          absl::StrCat(prefix, Quoted(std::string(part)), " is not a setting of the form key=value, each key once"));
    }
    block[key] = ToValue(std::string(setting.second));
  }
  return block;
}

std::string_view RoutingSchemeName(RoutingScheme scheme) {
  return std::ranges::find_if(Schemes(), [&](const SchemeTraits& traits) { return traits.scheme == scheme; })->name;
}

std::string DescribeRouter(const ModelConfig& config) {
  const RouterOptions& router = config.router;
  std::string text = absl::StrCat(ToAbsl(RoutingSchemeName(config.routing.scheme)), ": ", DescribeScore(config));
  if (!config.routing.selection_bias.empty()) absl::StrAppend(&text, " + selection bias");
  if (router.num_groups > 1) {
    absl::StrAppend(&text, ", best ", router.num_kept_groups, " of ", router.num_groups, " groups by ",
                    router.group_score == GroupScore::kMax ? "their best" : "their best two");
  }
  if (config.routing.noise > 0.0f) absl::StrAppend(&text, ", noise of deviation ", config.routing.noise);
  if (router.top_p > 0.0f) {
    absl::StrAppend(&text, ", as many as make ", router.top_p, ", at least ", router.min_k);
  }
  if (router.threshold > 0.0f) {
    absl::StrAppend(&text, ", all of at least ", router.threshold, ", at least ", router.min_k);
  }
  if (const ExpertChoiceOptions& choice = config.routing.expert_choice; choice.group > 0) {
    absl::StrAppend(&text, ", experts choose from ", choice.group, " tokens of a prompt, ", choice.factor,
                    " times their share, at most ", router.top_k, " of a token, then");
  }
  absl::StrAppend(&text, config.routing.expert_choice.group > 0 ? " top " : ", top ",
                  router.max_choice > 0 ? router.max_choice : router.top_k, ", ", ToAbsl(DescribeNorm(router.norm)));
  if (router.spill_over > 0) absl::StrAppend(&text, ", overflow to the next best ", router.spill_over);
  if (router.scaling_factor != 1.0f) absl::StrAppend(&text, ", times ", router.scaling_factor);
  return text;
}

}  // namespace cadre
