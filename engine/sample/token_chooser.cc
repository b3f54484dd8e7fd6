#include "engine/sample/token_chooser.h"

#include <algorithm>
#include <cstddef>

#include "engine/base/status_macros.h"
#include "engine/sample/log_softmax.h"
#include "engine/sample/token_mask.h"

namespace cadre {
namespace {

std::vector<int32_t> SortedUnique(std::vector<int32_t> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

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

absl::Status TokenChooser::EditLogits(std::span<float> logits) {
  const SamplingParams& params = rules_->params();
  if (!rules_->allowed().empty()) KeepOnly(rules_->allowed(), logits);
  const bool may_end = num_tokens_ >= params.min_tokens;
  bool must_end = false;
  if (constraint_ != nullptr) {
    CADRE_ASSIGN_OR_RETURN(const TokenMask mask, constraint_->AllowedTokens());
    KeepOnly(mask, logits);
    Forbid(rules_->forbidden_ids(), logits);
    must_end = !may_end && !HasOtherThan(mask, rules_->ending_ids());
  }
  if (!may_end && !must_end) Forbid(rules_->ending_ids(), logits);
  for (const LogitBias& bias : params.logit_bias) logits[static_cast<size_t>(bias.token_id)] += bias.bias;
  history_.Penalize(logits);
  return absl::OkStatus();
}

void TokenChooser::Accept(int32_t token) {
  ++num_tokens_;
  history_.Add(token);
  const std::span<const int32_t> ending = rules_->ending_ids();
  if (constraint_ != nullptr && !std::binary_search(ending.begin(), ending.end(), token)) constraint_->Advance(token);
}

}  // namespace cadre
