// The model's own distribution over the next token: what answers tell as log probabilities.
#ifndef CADRE_ENGINE_SAMPLE_LOG_SOFTMAX_H_
#define CADRE_ENGINE_SAMPLE_LOG_SOFTMAX_H_

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "engine/request/token_sink.h"

namespace cadre {

// Where `token` stands in the softmax of `logits`, [V], and the `num_alternatives` most likely tokens, or all V:
//
//   logprob_i = (z_i - max z) - log(sum over j, by rising id, of exp(z_j - max z))      in double, told as a float
//   rank_i    = 1 + number of larger logits + number of equal ones with a lower id
//
// A logit of -inf has the log probability -inf; +inf logits share the whole probability. INTERNAL with reason "nan"
// when any logit is NaN, or when all are -inf. O(V * num_alternatives) at worst, O(V) for all but sorted rows.
// REQUIRES: `token` in [0, V).
absl::StatusOr<TokenLogprob> DescribeToken(std::span<const float> logits, int32_t token, int32_t num_alternatives);

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_LOG_SOFTMAX_H_
