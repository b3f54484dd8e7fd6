#include "tests/support/reference_sampler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

#include "engine/sample/philox.h"

namespace cadre {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool IsEnding(int32_t id, const ReferenceState& state) {
  if (Contains(state.params.stop_token_ids, id)) return true;
  return !state.params.ignore_eos && Contains(state.eos_token_ids, id);
}

bool IsPermitted(int32_t id, const ReferenceState& state) {
  const SamplingParams& params = state.params;
  if (!params.allowed_token_ids.empty() && !Contains(params.allowed_token_ids, id)) return false;
  if (!state.permits) return true;
  return state.permits(id) && !(params.ignore_eos && Contains(state.eos_token_ids, id));
}

std::vector<size_t> MostLikelyFirst(const std::vector<float>& logits) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  return order;
}

float Penalized(float logit, int32_t id, const ReferenceState& state) {
  const SamplingParams& params = state.params;
  const auto count = std::count(state.output.begin(), state.output.end(), id);
  if (count > 0 || Contains(state.prompt, id)) {
    logit = logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  }
  if (count > 0) {
    logit = logit - static_cast<float>(count) * params.frequency_penalty;
    logit = logit - params.presence_penalty;
  }
  return logit;
}

// exp((logit - max) / temperature), where infinite logits share everything.
double WeightOf(float logit, float max, double temperature) {
  if (logit == max) return 1.0;
  if (std::isinf(max) || logit == kNever) return 0.0;
  return std::exp((static_cast<double>(logit) - static_cast<double>(max)) / temperature);
}

}  // namespace

std::vector<float> ReferenceEdits(const std::vector<float>& logits, const ReferenceState& state) {
  const auto size = static_cast<int32_t>(logits.size());
  bool has_other_than_end = !state.permits;
  for (int32_t id = 0; id < size && !has_other_than_end; ++id) {
    has_other_than_end = !IsEnding(id, state) && state.permits(id);
  }
  const bool is_early = std::ssize(state.output) < state.params.min_tokens && has_other_than_end;
  std::vector<float> edited = logits;
  for (int32_t id = 0; id < size; ++id) {
    float& logit = edited[static_cast<size_t>(id)];
    if (!IsPermitted(id, state) || (is_early && IsEnding(id, state))) logit = kNever;
    for (const LogitBias& bias : state.params.logit_bias) {
      if (bias.token_id == id) logit = logit + bias.bias;
    }
    logit = Penalized(logit, id, state);
  }
  return edited;
}

std::vector<double> ReferenceDistribution(const std::vector<float>& edited, const SamplingParams& params) {
  const size_t n = edited.size();
  const std::vector<size_t> order = MostLikelyFirst(edited);
  std::vector<double> weights(n, 0.0);
  if (params.temperature == 0.0f) {
    weights[order[0]] = 1.0;
    return weights;
  }
  for (size_t i = 0; i < n; ++i) {
    const double weight = WeightOf(edited[i], edited[order[0]], static_cast<double>(params.temperature));
    weights[i] = weight < static_cast<double>(params.min_p) ? 0.0 : weight;
  }
  for (size_t rank = 0; rank < n; ++rank) {
    if (params.top_k > 0 && rank >= static_cast<size_t>(params.top_k)) weights[order[rank]] = 0.0;
  }
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double before = 0.0;  // weight of all more likely tokens
  for (const size_t i : order) {
    const double weight = weights[i];
    if (before >= static_cast<double>(params.top_p) * total) weights[i] = 0.0;
    before += weight;
  }
  total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= total;
  return weights;
}

int32_t ReferenceDraw(const std::vector<double>& distribution, double u) {
  double running = 0.0;
  int32_t last = -1;
  for (size_t i = 0; i < distribution.size(); ++i) {
    if (distribution[i] == 0.0) continue;
    last = static_cast<int32_t>(i);
    running += distribution[i];
    if (running > u) break;
  }
  return last;
}

int32_t ReferenceChoice(const std::vector<float>& logits, const ReferenceState& state) {
  const std::vector<double> distribution = ReferenceDistribution(ReferenceEdits(logits, state), state.params);
  return ReferenceDraw(distribution, UniformDraw(state.params.seed, state.sequence, state.output.size()));
}

TokenLogprob ReferenceLogprob(const std::vector<float>& logits, int32_t token, int32_t num_alternatives) {
  const std::vector<size_t> order = MostLikelyFirst(logits);
  double total = 0.0;
  for (const float logit : logits) total += WeightOf(logit, logits[order[0]], 1.0);
  const auto logprob = [&](size_t id) {
    return static_cast<float>(std::log(WeightOf(logits[id], logits[order[0]], 1.0)) - std::log(total));
  };
  TokenLogprob result{.token_id = token, .logprob = logprob(static_cast<size_t>(token)), .rank = 0, .alternatives = {}};
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const auto id = static_cast<int32_t>(order[rank]);
    if (id == token) result.rank = static_cast<int32_t>(rank) + 1;
    if (std::ssize(result.alternatives) < num_alternatives) result.alternatives.push_back({id, logprob(order[rank])});
  }
  return result;
}

}  // namespace cadre
