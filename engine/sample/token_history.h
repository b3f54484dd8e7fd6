// The tokens that one sequence has, as penalties see them.
#ifndef CADRE_ENGINE_SAMPLE_TOKEN_HISTORY_H_
#define CADRE_ENGINE_SAMPLE_TOKEN_HISTORY_H_

#include <cstdint>
#include <span>

#include "absl/container/flat_hash_map.h"

namespace cadre {

// Numbers of the public API (engine/request/sampling_params.h); these change nothing.
struct Penalties {
  float repetition = 1.0f;
  float frequency = 0.0f;
  float presence = 0.0f;

  bool any() const { return repetition != 1.0f || frequency != 0.0f || presence != 0.0f; }
};

// Grows with the number of distinct tokens. Not thread-safe.
class TokenHistory {
 public:
  // Of a sequence that goes on from `prompt`, ids in [0, V). Only the repetition penalty looks at the prompt: without
  // it the prompt is not kept.
  TokenHistory(std::span<const int32_t> prompt, Penalties penalties);

  // `token` was generated.
  void Add(int32_t token);

  // As vLLM does it, in float, for each token that occurred, in this order:
  //
  //   repetition   z > 0: z / repetition, else z * repetition    occurred in the prompt or in the output
  //   frequency    z - count * frequency                         count: in the output alone
  //   presence     z - presence                                  occurred in the output
  //
  // O(distinct tokens). A logit that is -inf or NaN stays what it is.
  void Penalize(std::span<float> logits) const;

  const Penalties& penalties() const { return penalties_; }
  // Tokens that Penalize would look at, and how often each was generated.
  const absl::flat_hash_map<int32_t, int32_t>& counts() const { return num_generated_; }

 private:
  const Penalties penalties_;
  absl::flat_hash_map<int32_t, int32_t> num_generated_;  // of each token that occurred; 0: in the prompt alone
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_TOKEN_HISTORY_H_
