// How one sequence chooses its next token: everything of a request that stands between the model's logits and the id.
#ifndef CADRE_ENGINE_SAMPLE_TOKEN_CHOOSER_H_
#define CADRE_ENGINE_SAMPLE_TOKEN_CHOOSER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/check.h"
#include "engine/request/request.h"
#include "engine/sample/sampler.h"
#include "engine/sample/token_history.h"
#include "engine/sample/token_mask.h"
#include "engine/structured/token_constraint.h"
#include "kernels/ops.h"

namespace cadre {

// What the sequences of a request have in common. Immutable; outlives its choosers.
class ChoiceRules {
 public:
  // Keeps what it needs of `request`. REQUIRES: token ids in [0, vocab_size).
  ChoiceRules(const Request& request, std::span<const int32_t> eos_token_ids, int32_t vocab_size);

  const SamplingParams& params() const { return params_; }
  // The tokens that end a sequence, by rising id: stop tokens, and end-of-sequence tokens unless they are ignored.
  std::span<const int32_t> ending_ids() const { return ending_ids_; }
  std::span<const uint64_t> allowed() const { return allowed_; }  // empty: all
  // Never chosen: end-of-sequence tokens that are ignored cannot be part of a restricted output.
  std::span<const int32_t> forbidden_ids() const { return forbidden_ids_; }
  const TokenConstraint* constraint() const { return constraint_.get(); }

 private:
  const SamplingParams params_;
  const std::shared_ptr<const TokenConstraint> constraint_;
  std::vector<int32_t> ending_ids_;
  std::vector<int32_t> forbidden_ids_;
  std::vector<uint64_t> allowed_;
};

// What a device said of a row whose choice PlanChoice described: kernels/ops.h, SampleOutputs.
struct DeviceChoice {
  int32_t token = 0;
  int32_t rank = 0;
  std::span<const float> logprobs;        // [1 + kMaxAlternatives]
  std::span<const int32_t> alternatives;  // [kMaxAlternatives]
};

// The error for which a device chose no token, or OK.
absl::Status CheckSampledToken(int32_t token, int32_t vocab_size);

struct ChosenToken {
  int32_t token_id = 0;
  std::optional<TokenLogprob> logprob;  // of the logits as the model computed them; when asked for
};

// Choose and Accept take turns. Not thread-safe.
class TokenChooser {
 public:
  // Sequence `index` of a request that goes on from `prompt`, which is not kept.
  TokenChooser(const ChoiceRules* rules, std::span<const int32_t> prompt, int32_t index);

  // Whether the constraint leaves nothing to choose: the output is complete.
  bool done() const { return constraint_ != nullptr && constraint_->done(); }

  // The next token, of `logits`, [V], which are overwritten. The chain, of which sampler.h has the second half:
  //
  //   masks        allowed_token_ids, the constraint; before min_tokens no ending token, unless the constraint leaves
  //                nothing else
  //   logit_bias   z + bias
  //   penalties    repetition, frequency, presence: see token_history.h
  //
  // Errors as Sampler::Sample and ConstraintState::AllowedTokens. REQUIRES: not done().
  absl::StatusOr<ChosenToken> Choose(std::span<float> logits, Sampler* sampler);

  // What Choose would do now, for a device that has the logits: the row, with its lists and its mask at the end of
  // `extras`, of up to `max_extras` words. Nothing, and `extras` unchanged, where they have no room or where Choose
  // would fail without a look at the logits: then it is for Choose. REQUIRES: not done().
  std::optional<SampleRow> PlanChoice(int32_t vocab_size, size_t max_extras, std::vector<int32_t>* extras) {
    return PlanChoiceAt(num_tokens_, vocab_size, max_extras, extras);
  }
  // The same for the choice behind the next one, whose token is not known. REQUIRES: !needs_last_token().
  std::optional<SampleRow> PlanChoiceAhead(int32_t vocab_size, size_t max_extras, std::vector<int32_t>* extras) {
    CADRE_CHECK(!needs_last_token());
    return PlanChoiceAt(num_tokens_ + 1, vocab_size, max_extras, extras);
  }
  // Whether a choice depends on the token before it: by a constraint or by penalties.
  bool needs_last_token() const { return constraint_ != nullptr || history_.penalties().any(); }
  // What Choose would have returned for what the device chose, log probabilities included.
  absl::StatusOr<ChosenToken> Adopt(const DeviceChoice& choice, int32_t vocab_size) const;

  // `token`, just chosen, is the next one.
  void Accept(int32_t token);

 private:
  // Which tokens may be chosen.
  struct Permission {
    TokenMask allowed;                   // by the request; empty: all
    TokenMask constrained;               // by its constraint; empty: all
    std::span<const int32_t> forbidden;  // by its constraint
    std::span<const int32_t> too_early;  // ends before min_tokens
  };
  // Of the token with this index, from 0.
  absl::StatusOr<Permission> Permit(int64_t index);
  std::optional<SampleRow> PlanChoiceAt(int64_t index, int32_t vocab_size, size_t max_extras,
                                        std::vector<int32_t>* extras);
  absl::Status EditLogits(std::span<float> logits);

  const ChoiceRules* rules_;
  int32_t index_;
  int64_t num_tokens_ = 0;
  TokenHistory history_;
  std::unique_ptr<ConstraintState> constraint_;  // null: none
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_TOKEN_CHOOSER_H_
