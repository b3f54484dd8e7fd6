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
#include "engine/request/request.h"
#include "engine/sample/sampler.h"
#include "engine/sample/token_history.h"
#include "engine/structured/token_constraint.h"

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

  // `token`, just chosen, is the next one.
  void Accept(int32_t token);

 private:
  absl::Status EditLogits(std::span<float> logits);

  const ChoiceRules* rules_;
  int32_t index_;
  int64_t num_tokens_ = 0;
  TokenHistory history_;
  std::unique_ptr<ConstraintState> constraint_;  // null: none
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_TOKEN_CHOOSER_H_
