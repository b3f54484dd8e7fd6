// The sampling chain written down as the API describes it, slowly: every token is looked at for every rule, and a full
// sort decides. What the sampler's tests and its fuzz target compare with.
#ifndef CADRE_TESTS_SUPPORT_REFERENCE_SAMPLER_H_
#define CADRE_TESTS_SUPPORT_REFERENCE_SAMPLER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/request/sampling_params.h"
#include "engine/request/token_sink.h"

namespace cadre {

// Where a sequence stands.
struct ReferenceState {
  SamplingParams params;
  std::vector<int32_t> eos_token_ids;
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;
  uint32_t sequence = 0;
  // What a constraint permits next; empty: no constraint.
  std::function<bool(int32_t)> permits = nullptr;
};

// Masks, bias and penalties.
std::vector<float> ReferenceEdits(const std::vector<float>& logits, const ReferenceState& state);

// The probability of each token after temperature, min_p, top_k and top_p; those filtered out have none. Greedy is the
// distribution with one token. REQUIRES: a logit above -inf, no NaN.
std::vector<double> ReferenceDistribution(const std::vector<float>& edited, const SamplingParams& params);

// The first token whose running share exceeds `u`.
int32_t ReferenceDraw(const std::vector<double>& distribution, double u);

// All of it.
int32_t ReferenceChoice(const std::vector<float>& logits, const ReferenceState& state);

// Of the logits as the model computed them, from a stable sort of the whole row.
TokenLogprob ReferenceLogprob(const std::vector<float>& logits, int32_t token, int32_t num_alternatives);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_REFERENCE_SAMPLER_H_
