// The simulated runner as one that runs beside the host: it computes a step when somebody waits for it, and not before.
#ifndef CADRE_TESTS_SUPPORT_AHEAD_RUNNER_H_
#define CADRE_TESTS_SUPPORT_AHEAD_RUNNER_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/model/model_runner.h"

namespace cadre {

// Makes of `forward`, which knows no sampling, one that samples greedily and finds what the step before has sampled.
class AheadSteps {
 public:
  static constexpr size_t kMostSteps = 2;

  size_t num_ordered() const { return ordered_.size(); }

  void Order(const ForwardBatch& batch) {
    CADRE_CHECK_LT(ordered_.size(), kMostSteps);
    ordered_.push_back(&batch);
  }

  // Computes the oldest of those that were ordered.
  template <typename Forward>
  absl::Status Finish(const ForwardBatch& batch, ForwardResult* result, const Forward& forward) {
    CADRE_CHECK(!ordered_.empty() && ordered_.front() == &batch);
    ordered_.pop_front();
    ForwardBatch known = batch;
    for (int32_t& token : known.token_ids) {
      if (token >= 0) continue;
      if (last_tokens_.empty()) return absl::OkStatus();  // the step in front failed: this one means nothing
      token = std::max(last_tokens_.at(static_cast<size_t>(SampledAt(0) - token)), 0);
    }
    absl::Status status = forward(known, result);
    last_tokens_.clear();
    if (status.ok()) Sample(batch, result);
    return status;
  }

 private:
  // Greedily.
  void Sample(const ForwardBatch& batch, ForwardResult* result) {
    const size_t num_rows = batch.sample_rows.size();
    result->sampled = {};
    if (num_rows == 0) return;
    const size_t vocab_size = result->logits.size() / num_rows;
    constexpr size_t kAlternatives = kMaxAlternatives;
    result->sampled.ranks.resize(num_rows, 1);
    result->sampled.logprobs.resize(num_rows * (1 + kAlternatives));
    result->sampled.alternatives.resize(num_rows * kAlternatives);
    std::vector<float> left;
    for (size_t row = 0; row < num_rows; ++row) {
      const std::span<const float> logits = std::span(result->logits).subspan(row * vocab_size, vocab_size);
      const bool is_nan = std::ranges::any_of(logits, [](float logit) { return logit != logit; });
      const auto token = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      result->sampled.tokens.push_back(is_nan ? kSampledNan : token);
      if (batch.sample_rows[row].is_wanted == 0) left.insert(left.end(), logits.begin(), logits.end());
    }
    last_tokens_ = result->sampled.tokens;
    result->logits = std::move(left);
  }

  std::deque<const ForwardBatch*> ordered_;
  std::vector<int32_t> last_tokens_;
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_AHEAD_RUNNER_H_
