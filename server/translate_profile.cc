#include "server/translate_profile.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/text/token_class.h"
#include "server/errors.h"

namespace cadre {
namespace {

constexpr int32_t kFormatVersion = 1;
// Sums of so many assignments stay exact in double precision.
constexpr int64_t kMaxAssignments = int64_t{1} << 53;

void FillPairs(const std::vector<std::vector<ExpertPair>>& layers, const ModelCard& card,
               google::protobuf::RepeatedPtrField<v1::ExpertPairs>* wire) {
  for (size_t i = 0; i < layers.size(); ++i) {
    v1::ExpertPairs* const to = wire->Add();
    to->set_layer(card.moe_layers[i]);
    for (const ExpertPair& pair : layers[i]) {
      to->add_first(pair.first);
      to->add_second(pair.second);
      to->add_count(pair.count);
    }
  }
}

void FillClasses(const ProfileCounts& counts, v1::ExpertProfile* wire) {
  const auto cells = static_cast<std::ptrdiff_t>(counts.assignments.size());
  for (size_t i = 0; i < counts.class_tokens.size() && counts.tokens > 0; ++i) {
    if (counts.class_tokens[i] == 0) continue;
    v1::TokenClassProfile* const to = wire->add_token_classes();
    to->set_token_class(std::string(TokenClassName(static_cast<TokenClass>(i))));
    to->set_tokens(counts.class_tokens[i]);
    const auto begin = counts.class_assignments.begin() + static_cast<std::ptrdiff_t>(i) * cells;
    to->mutable_assignments()->Assign(begin, begin + cells);
  }
}

// Of another model than the one that is served.
absl::Status Differs(std::string_view field, const std::string& value, const std::string& served) {
  return InvalidField(absl::StrCat("profile.", std::string(field)),
                      absl::StrCat(value, " is not ", served, ", which the served model has"));
}

absl::Status CheckShape(const v1::ExpertProfile& wire, const ModelCard& card) {
  if (wire.format_version() != kFormatVersion) {
    return InvalidField("profile.format_version",
                        absl::StrCat(wire.format_version(), " is not ", kFormatVersion, ", which this server reads"));
  }
  if (wire.num_experts() != card.limits.num_experts) {
    return Differs("num_experts", absl::StrCat(wire.num_experts()), absl::StrCat(card.limits.num_experts));
  }
  if (wire.top_k() != card.limits.top_k) {
    return Differs("top_k", absl::StrCat(wire.top_k()), absl::StrCat(card.limits.top_k));
  }
  if (static_cast<size_t>(wire.layers_size()) != card.moe_layers.size()) {
    return Differs("layers", absl::StrCat(wire.layers_size(), " layers"), absl::StrCat(card.moe_layers.size()));
  }
  for (int i = 0; i < wire.layers_size(); ++i) {
    const int32_t served = card.moe_layers[static_cast<size_t>(i)];
    if (wire.layers(i) == served) continue;
    return Differs(absl::StrCat("layers[", i, "]"), absl::StrCat(wire.layers(i)), absl::StrCat(served));
  }
  if (const std::string served = ModelFingerprint(card); wire.model_fingerprint() != served) {
    return Differs("model_fingerprint", Excerpt(wire.model_fingerprint()), served);
  }
  return absl::OkStatus();
}

// Every layer has something to compare with, and no more than its tokens can have chosen. Of counts that are not
// negative and together at most kMaxAssignments.
absl::Status CheckLayerSums(const v1::ExpertProfile& wire, const ModelCard& card) {
  const int64_t max_tokens = kMaxAssignments / std::max(1, card.limits.top_k);
  if (wire.tokens() < 1 || wire.tokens() > max_tokens) {
    return InvalidField("profile.tokens", absl::StrCat(wire.tokens(), " is not in [1, ", max_tokens, "]"));
  }
  const int64_t max_sum = wire.tokens() * card.limits.top_k;
  auto row = wire.assignments().begin();
  for (int i = 0; i < wire.layers_size(); ++i, row += card.limits.num_experts) {
    const int64_t sum = std::accumulate(row, row + card.limits.num_experts, int64_t{0});
    if (sum >= 1 && sum <= max_sum) continue;
    return InvalidField(absl::StrCat("profile.layers[", i, "]"),
                        absl::StrCat("has ", sum, " assignments, which is not in [1, ", max_sum, "]: ", wire.tokens(),
                                     " tokens choose at most ", card.limits.top_k, " experts each"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ModelFingerprint(const ModelCard& card) {
  return absl::StrCat(card.family, "/", card.num_layers, "x", card.hidden_size, "/", card.moe_layers.size(), "x",
                      card.limits.num_experts, "/", card.limits.top_k);
}

void FillProfile(const std::vector<LayerCounters>& counters, const ProfileCounts& counts, const ModelCard& card,
                 v1::ExpertProfile* wire) {
  wire->set_format_version(kFormatVersion);
  wire->set_model_fingerprint(ModelFingerprint(card));
  wire->set_num_experts(card.limits.num_experts);
  wire->set_top_k(card.limits.top_k);
  wire->mutable_layers()->Assign(card.moe_layers.begin(), card.moe_layers.end());
  const int64_t tokens = counters.empty() ? 0 : counters.front().tokens;
  wire->set_tokens(tokens);
  for (const LayerCounters& layer : counters) {
    for (const int64_t chosen : layer.chosen) {
      wire->add_assignments(chosen);
      wire->add_frequency(tokens > 0 ? static_cast<double>(chosen) / static_cast<double>(tokens) : 0.0);
    }
  }
  wire->set_sampled_tokens(counts.tokens);
  FillPairs(counts.co_activation, card, wire->mutable_co_activation());
  FillPairs(counts.transitions, card, wire->mutable_transitions());
  FillClasses(counts, wire);
}

absl::StatusOr<std::vector<int64_t>> ReadProfile(const v1::ExpertProfile& wire, const ModelCard& card) {
  CADRE_RETURN_IF_ERROR(CheckShape(wire, card));
  const size_t cells = card.moe_layers.size() * static_cast<size_t>(card.limits.num_experts);
  if (static_cast<size_t>(wire.assignments_size()) != cells) {
    return Differs("assignments", absl::StrCat(wire.assignments_size(), " counts"), absl::StrCat(cells));
  }
  int64_t sum = 0;
  for (int i = 0; i < wire.assignments_size(); ++i) {
    const int64_t count = wire.assignments(i);
    if (count < 0 || count > kMaxAssignments - sum) {
      return InvalidField(absl::StrCat("profile.assignments[", i, "]"),
                          absl::StrCat(count, " is less than 0, or makes more than 2^53 together"));
    }
    sum += count;
  }
  CADRE_RETURN_IF_ERROR(CheckLayerSums(wire, card));
  return std::vector<int64_t>(wire.assignments().begin(), wire.assignments().end());
}

}  // namespace cadre
