// One row of logits becomes one token.
#ifndef CADRE_ENGINE_SAMPLE_SAMPLER_H_
#define CADRE_ENGINE_SAMPLE_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace cadre {

// The distribution to draw from, and which draw of which stream decides.
struct SampleOptions {
  float temperature = 1.0f;  // 0: greedy, everything below is ignored
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1]
  uint64_t seed = 0;
  uint32_t sequence = 0;  // of the request's sequences
  uint64_t index = 0;     // of the token within its sequence
};

// The second half of the chain, which token_chooser.h begins, is vLLM's too, each filter seeing what the one before
// left over:
//
//   temperature   w_i = exp((z_i - max z) / temperature)
//   min_p         keeps w_i >= min_p * max w
//   top_k         keeps the top_k largest
//   top_p         keeps the smallest set of the largest whose share of the remaining weight reaches top_p
//   draw          u in [0, 1) from (seed, sequence, index); the first token, by id, whose running share exceeds u
//
// Larger means larger logit, then lower id: a cut through equal logits keeps the lowest ids (vLLM keeps them all), so
// that top_k = 1 is greedy, and greedy takes the lowest id among the largest. The token depends on its row and options
// alone. Weights and sums are doubles. -inf is weight 0. With +inf in the row, those tokens share the whole weight.
//
// Linear in V: each filter is a cut at one (logit, id), found by selection, never by sorting. Keeps its scratch memory
// between calls; not thread-safe.
class Sampler {
 public:
  static constexpr size_t kScratchBytesPerLogit = 40;
  // Takes the scratch of rows of up to `vocab_size` logits, kScratchBytesPerLogit for each, so that nothing is
  // allocated later.
  void Reserve(size_t vocab_size);

  // A copy of `logits`, for who is about to change them; valid until the next Keep.
  std::span<const float> Keep(std::span<const float> logits);

  // `logits` is [V], V >= 1. INTERNAL with reason "nan" when any logit is NaN, or when all are -inf.
  absl::StatusOr<int32_t> Sample(std::span<const float> logits, const SampleOptions& options);

 private:
  struct Candidate {
    double weight;
    float logit;
    int32_t id;
  };

  static bool IsLarger(const Candidate& a, const Candidate& b);
  // The k-th largest logit; leaves the k largest in `best_`. -inf when there are fewer above it.
  float KthLargest(std::span<const float> logits, size_t k);
  // What min_p and top_k leave.
  void CollectCandidates(std::span<const float> logits, float max_logit, const SampleOptions& options);
  void KeepTopP(double top_p);
  int32_t Draw(double u) const;

  std::vector<Candidate> candidates_;  // what the filters have left, by rising id
  std::vector<Candidate> selection_;   // scratch of KeepTopP
  std::vector<float> best_;            // scratch of KthLargest
  std::vector<float> kept_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_SAMPLER_H_
