#include "engine/sample/token_chooser.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <iterator>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/sample/arg_max.h"
#include "engine/sample/log_softmax.h"
#include "engine/sample/philox.h"

namespace cadre {
namespace {

std::vector<int32_t> SortedUnique(std::vector<int32_t> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// Of two sets of ids by rising id.
std::vector<int32_t> Union(std::span<const int32_t> a, std::span<const int32_t> b) {
  std::vector<int32_t> both;
  std::ranges::set_union(a, b, std::back_inserter(both));
  return both;
}

void AppendEdit(int32_t token, float value, std::vector<int32_t>* extras) {
  extras->insert(extras->end(), {token, std::bit_cast<int32_t>(value), 0});
}

// The tokens that are in both masks; an empty one has all.
void AppendMask(TokenMask a, TokenMask b, size_t num_words, std::vector<int32_t>* extras) {
  for (size_t i = 0; i < num_words; ++i) {
    const uint64_t both = (a.empty() ? ~uint64_t{0} : a[i / 2]) & (b.empty() ? ~uint64_t{0} : b[i / 2]);
    extras->push_back(static_cast<int32_t>(static_cast<uint32_t>(both >> (i % 2 * 32))));
  }
}

}  // namespace

absl::Status CheckSampledToken(int32_t token, int32_t vocab_size) {
  if (token == kSampledNan) return NotANumberError();
  if (token == kSampledNothing) return NoTokenError(static_cast<size_t>(vocab_size));
  CADRE_CHECK_GE(token, 0);
  CADRE_CHECK_LT(token, vocab_size);
  return absl::OkStatus();
}

ChoiceRules::ChoiceRules(const Request& request, std::span<const int32_t> eos_token_ids, int32_t vocab_size)
    : params_(request.sampling), constraint_(request.constraint), ending_ids_(request.sampling.stop_token_ids) {
  if (!params_.ignore_eos) {
    ending_ids_.insert(ending_ids_.end(), eos_token_ids.begin(), eos_token_ids.end());
  } else if (constraint_ != nullptr) {
    forbidden_ids_.assign(eos_token_ids.begin(), eos_token_ids.end());
  }
  // A model's configuration may name an end-of-sequence token beyond its own vocabulary.
  const auto is_unknown = [vocab_size](int32_t id) { return id < 0 || id >= vocab_size; };
  std::erase_if(ending_ids_, is_unknown);
  std::erase_if(forbidden_ids_, is_unknown);
  ending_ids_ = SortedUnique(std::move(ending_ids_));
  forbidden_ids_ = SortedUnique(std::move(forbidden_ids_));
  if (!params_.allowed_token_ids.empty()) {
    allowed_ = MakeTokenMask(params_.allowed_token_ids, static_cast<size_t>(vocab_size));
  }
}

TokenChooser::TokenChooser(const ChoiceRules* rules, std::span<const int32_t> prompt, int32_t index)
    : rules_(rules),
      index_(index),
      history_(prompt, {.repetition = rules->params().repetition_penalty,
                        .frequency = rules->params().frequency_penalty,
                        .presence = rules->params().presence_penalty}) {
  if (rules->constraint() != nullptr) constraint_ = rules->constraint()->Start();
}

absl::StatusOr<ChosenToken> TokenChooser::Choose(std::span<float> logits, Sampler* sampler) {
  const SamplingParams& params = rules_->params();
  // Before the edits, which take place in the row itself.
  const std::span<const float> raw = params.logprobs ? sampler->Keep(logits) : std::span<const float>();
  CADRE_RETURN_IF_ERROR(EditLogits(logits));
  ChosenToken chosen;
  CADRE_ASSIGN_OR_RETURN(chosen.token_id, sampler->Sample(logits, {.temperature = params.temperature,
                                                                   .top_k = params.top_k,
                                                                   .top_p = params.top_p,
                                                                   .min_p = params.min_p,
                                                                   .seed = params.seed,
                                                                   .sequence = static_cast<uint32_t>(index_),
                                                                   .index = static_cast<uint64_t>(num_tokens_)}));
  if (params.logprobs) {
    CADRE_ASSIGN_OR_RETURN(chosen.logprob, DescribeToken(raw, chosen.token_id, params.top_logprobs));
  }
  return chosen;
}

absl::StatusOr<TokenChooser::Permission> TokenChooser::Permit(int64_t index) {
  Permission permission{.allowed = rules_->allowed(), .constrained = {}, .forbidden = {}, .too_early = {}};
  const bool may_end = index >= rules_->params().min_tokens;
  bool must_end = false;
  if (constraint_ != nullptr) {
    CADRE_ASSIGN_OR_RETURN(permission.constrained, constraint_->AllowedTokens());
    permission.forbidden = rules_->forbidden_ids();
    must_end = !may_end && !HasOtherThan(permission.constrained, rules_->ending_ids());
  }
  if (!may_end && !must_end) permission.too_early = rules_->ending_ids();
  return permission;
}

absl::Status TokenChooser::EditLogits(std::span<float> logits) {
  CADRE_ASSIGN_OR_RETURN(const Permission permission, Permit(num_tokens_));
  if (!permission.allowed.empty()) KeepOnly(permission.allowed, logits);
  if (!permission.constrained.empty()) KeepOnly(permission.constrained, logits);
  Forbid(permission.forbidden, logits);
  Forbid(permission.too_early, logits);
  for (const LogitBias& bias : rules_->params().logit_bias) logits[static_cast<size_t>(bias.token_id)] += bias.bias;
  history_.Penalize(logits);
  return absl::OkStatus();
}

std::optional<SampleRow> TokenChooser::PlanChoiceAt(int64_t index, int32_t vocab_size, size_t max_extras,
                                                    std::vector<int32_t>* extras) {
  const SamplingParams& params = rules_->params();
  const absl::StatusOr<Permission> permission = Permit(index);
  if (!permission.ok()) return std::nullopt;
  const std::vector<int32_t> forbidden = Union(permission->forbidden, permission->too_early);
  const bool is_masked = !permission->allowed.empty() || !permission->constrained.empty();
  const size_t mask_words = is_masked ? (static_cast<size_t>(vocab_size) + 31) / 32 : 0;
  const size_t num_edits = forbidden.size() + params.logit_bias.size() + history_.counts().size();
  const size_t num_words = mask_words + num_edits * sizeof(SampleEdit) / sizeof(int32_t);
  if (extras->size() > max_extras || num_words > max_extras - extras->size()) return std::nullopt;

  const Penalties& penalties = history_.penalties();
  SampleRow row{.draw = DrawBits(params.seed, static_cast<uint32_t>(index_), static_cast<uint64_t>(index)),
                .is_wanted = 1,
                .temperature = params.temperature,
                .top_p = params.top_p,
                .min_p = params.min_p,
                .top_k = params.top_k,
                .repetition_penalty = penalties.repetition,
                .frequency_penalty = penalties.frequency,
                .presence_penalty = penalties.presence,
                .num_forbidden = static_cast<int32_t>(forbidden.size()),
                .num_biased = static_cast<int32_t>(params.logit_bias.size()),
                .num_seen = static_cast<int32_t>(history_.counts().size()),
                .num_alternatives = params.logprobs ? params.top_logprobs : -1};
  if (is_masked) {
    row.mask = static_cast<int32_t>(extras->size());
    AppendMask(permission->allowed, permission->constrained, mask_words, extras);
  }
  row.edits = static_cast<int32_t>(extras->size());
  for (const int32_t token : forbidden) AppendEdit(token, 0.0f, extras);
  for (const LogitBias& bias : params.logit_bias) AppendEdit(bias.token_id, bias.bias, extras);
  for (const auto& [token, count] : history_.counts()) AppendEdit(token, static_cast<float>(count), extras);
  return row;
}

absl::StatusOr<ChosenToken> TokenChooser::Adopt(const DeviceChoice& choice, int32_t vocab_size) const {
  CADRE_RETURN_IF_ERROR(CheckSampledToken(choice.token, vocab_size));
  ChosenToken chosen{.token_id = choice.token, .logprob = std::nullopt};
  if (!rules_->params().logprobs) return chosen;
  chosen.logprob =
      TokenLogprob{.token_id = choice.token, .logprob = choice.logprobs[0], .rank = choice.rank, .alternatives = {}};
  const auto count = static_cast<size_t>(std::min(rules_->params().top_logprobs, vocab_size));
  for (size_t i = 0; i < count; ++i) {
    chosen.logprob->alternatives.push_back({.token_id = choice.alternatives[i], .logprob = choice.logprobs[1 + i]});
  }
  return chosen;
}

void TokenChooser::Accept(int32_t token) {
  ++num_tokens_;
  history_.Add(token);
  const std::span<const int32_t> ending = rules_->ending_ids();
  if (constraint_ != nullptr && !std::binary_search(ending.begin(), ending.end(), token)) constraint_->Advance(token);
}

}  // namespace cadre
