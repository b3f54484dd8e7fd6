#include "kernels/cpu/router_row.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace cadre {
namespace {

// A logit that is not a number counts as the lowest, and infinity as the largest finite value, so that routing and its
// statistics stay defined: a broken row must not poison the sums over all rows.
float Defined(float z) {
  if (std::isnan(z)) return kLowestScore;
  return std::min(z, std::numeric_limits<float>::max());
}

// p = softmax(z) and log(sum(exp(z))); zeros when every logit is -infinity.
float Softmax(float* p, const float* z, int64_t n) {
  const float largest = *std::max_element(z, z + n);
  if (largest == kLowestScore) {
    std::fill(p, p + n, 0.0f);
    return 0.0f;
  }
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    p[i] = std::exp(z[i] - largest);
    sum += p[i];
  }
  for (int64_t i = 0; i < n; ++i) p[i] = static_cast<float>(p[i] / sum);
  return static_cast<float>(static_cast<double>(largest) + std::log(sum));
}

float ScoreOfGroup(const float* c, int64_t size, GroupScore kind) {
  float first = kLowestScore;
  float second = kLowestScore;
  for (int64_t i = 0; i < size; ++i) {
    if (c[i] > first) {
      second = first;
      first = c[i];
    } else if (c[i] > second) {
      second = c[i];
    }
  }
  return kind == GroupScore::kMax || size == 1 ? first : first + second;
}

void ExcludeLowGroups(const RouterRow& row, int64_t num_experts, const RouterOptions& options) {
  const int64_t group_size = num_experts / options.num_groups;
  for (int64_t g = 0; g < options.num_groups; ++g) {
    row.groups[g] = ScoreOfGroup(row.c + g * group_size, group_size, options.group_score);
    row.kept[g] = 0;
  }
  for (int64_t i = 0; i < options.num_kept_groups; ++i) {
    row.kept[BestFree(row.groups, row.kept, options.num_groups)] = 1;
  }
  for (int64_t e = 0; e < num_experts; ++e) row.taken[e] = row.kept[e / group_size] ? 0 : 1;
}

}  // namespace

RouterRow RouterRowAt(std::byte* memory, int64_t num_experts) {
  auto* const floats = reinterpret_cast<float*>(memory);
  auto* const flags = reinterpret_cast<uint8_t*>(floats + 4 * num_experts);
  return {floats, floats + num_experts, floats + 2 * num_experts, floats + 3 * num_experts, flags, flags + num_experts};
}

void DefineLogits(const RouterRow& row, const float* logits, int64_t num_experts) {
  for (int64_t e = 0; e < num_experts; ++e) row.z[e] = Defined(logits[e]);
}

float SoftmaxOfRow(const RouterRow& row, float* p, const float* logits, int64_t num_experts) {
  DefineLogits(row, logits, num_experts);
  return Softmax(p, row.z, num_experts);
}

void ScoreRow(const RouterRow& row, const float* p, const float* bias, int64_t num_experts,
              const RouterOptions& options) {
  for (int64_t e = 0; e < num_experts; ++e) {
    switch (options.score) {
      case RouterScore::kSoftmax:
        row.s[e] = p[e];
        break;
      case RouterScore::kSigmoid:
        row.s[e] = 1.0f / (1.0f + std::exp(-row.z[e]));
        break;
      case RouterScore::kIdentity:
        row.s[e] = row.z[e];
        break;
    }
    row.c[e] = row.z[e] == kLowestScore ? kLowestScore : Defined(row.s[e] + (bias == nullptr ? 0.0f : bias[e]));
    row.taken[e] = 0;
  }
  if (options.num_groups > 1) ExcludeLowGroups(row, num_experts, options);
}

float SumOf(const float* x, int64_t n) { return std::accumulate(x, x + n, 0.0f); }

int64_t BestFree(const float* values, const uint8_t* taken, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  return best;
}

int64_t ChooseExperts(int32_t* ids, const RouterRow& row, const float* p, int64_t num_experts,
                      const RouterOptions& options) {
  int64_t count = 0;
  float sum = 0.0f;
  const auto is_enough = [&] { return options.top_p > 0.0f && count >= options.min_k && sum >= options.top_p; };
  const int64_t most = options.max_choice > 0 ? options.max_choice : options.top_k;
  for (; count < most && !is_enough(); ++count) {
    const int64_t best = BestFree(row.c, row.taken, num_experts);
    if (count >= options.min_k && p[best] < options.threshold) break;
    row.taken[best] = 1;
    ids[count] = static_cast<int32_t>(best);
    sum += p[best];
  }
  std::fill(ids + count, ids + options.top_k, kPadding);
  return count;
}

int64_t NumChosen(const int32_t* ids, const RouterOptions& options) {
  return std::find(ids, ids + options.top_k, kPadding) - ids;
}

void WeighChoice(float* weights, const int32_t* ids, const RouterRow& row, const RouterOptions& options) {
  const int64_t count = NumChosen(ids, options);
  for (int64_t j = 0; j < count; ++j) weights[j] = options.norm == WeightNorm::kSoftmax ? row.z[ids[j]] : row.s[ids[j]];
  if (options.norm == WeightNorm::kSoftmax) {
    Softmax(weights, weights, count);
  } else if (options.norm == WeightNorm::kSum) {
    const float sum = SumOf(weights, count) + options.norm_epsilon;
    for (int64_t j = 0; j < count && sum != 0.0f; ++j) weights[j] /= sum;
  } else if (options.norm == WeightNorm::kUniform) {
    std::fill_n(weights, count, 1.0f / static_cast<float>(count));
  }
  for (int64_t j = 0; j < count; ++j) weights[j] *= options.scaling_factor;
  std::fill(weights + count, weights + options.top_k, 0.0f);
}

float WeighBeside(int64_t e, const int32_t* ids, const RouterRow& row, const RouterOptions& options) {
  const int64_t count = NumChosen(ids, options);
  float weight = row.s[e];
  if (options.norm == WeightNorm::kUniform) {
    weight = 1.0f / static_cast<float>(count);
  } else if (options.norm == WeightNorm::kSoftmax) {
    float largest = kLowestScore;
    for (int64_t j = 0; j < count; ++j) largest = std::max(largest, row.z[ids[j]]);
    double sum = 0.0;
    for (int64_t j = 0; j < count; ++j) sum += std::exp(row.z[ids[j]] - largest);
    weight = static_cast<float>(std::exp(row.z[e] - largest) / sum);
  } else if (options.norm == WeightNorm::kSum) {
    float sum = 0.0f;
    for (int64_t j = 0; j < count; ++j) sum += row.s[ids[j]];
    sum += options.norm_epsilon;
    if (sum != 0.0f) weight /= sum;
  }
  return weight * options.scaling_factor;
}

}  // namespace cadre
