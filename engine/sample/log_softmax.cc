#include "engine/sample/log_softmax.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/sample/arg_max.h"

namespace cadre {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One row's normalization.
class LogSoftmax {
 public:
  LogSoftmax(std::span<const float> logits, float max) : max_(static_cast<double>(max)) {
    double sum = 0.0;
    for (const float logit : logits) sum += std::exp(Exponent(logit));
    log_sum_ = std::log(sum);
  }

  float operator()(float logit) const { return static_cast<float>(Exponent(logit) - log_sum_); }

 private:
  // Of the largest logit 0, for +inf as well.
  double Exponent(float logit) const {
    const auto value = static_cast<double>(logit);
    return value == max_ ? 0.0 : (max_ == kInfinity ? -kInfinity : value - max_);
  }

  double max_;
  double log_sum_;
};

int32_t RankOf(std::span<const float> logits, int32_t token) {
  const auto place = static_cast<size_t>(token);
  const float own = logits[place];
  size_t num_before = 0;
  for (const float logit : logits) num_before += logit > own;
  num_before += static_cast<size_t>(std::ranges::count(logits.first(place), own));
  return static_cast<int32_t>(num_before + 1);
}

// The ids of the `count` largest logits, largest first, the lowest id first among equals.
std::vector<int32_t> LargestIds(std::span<const float> logits, size_t count) {
  std::vector<int32_t> ids;
  ids.reserve(count + 1);
  const auto logit_of = [logits](int32_t id) { return logits[static_cast<size_t>(id)]; };
  for (size_t i = 0; i < logits.size() && count > 0; ++i) {
    if (ids.size() == count && logits[i] <= logit_of(ids.back())) continue;
    const auto behind = std::upper_bound(ids.begin(), ids.end(), logits[i],
                                         [&](float logit, int32_t id) { return logit > logit_of(id); });
    ids.insert(behind, static_cast<int32_t>(i));
    if (ids.size() > count) ids.pop_back();
  }
  return ids;
}

}  // namespace

absl::StatusOr<TokenLogprob> DescribeToken(std::span<const float> logits, int32_t token, int32_t num_alternatives) {
  CADRE_CHECK_GE(token, 0);
  CADRE_CHECK_LT(static_cast<size_t>(token), logits.size());
  CADRE_ASSIGN_OR_RETURN(const int32_t largest, ArgMax(logits));
  const LogSoftmax logprob_of(logits, logits[static_cast<size_t>(largest)]);
  TokenLogprob result{.token_id = token,
                      .logprob = logprob_of(logits[static_cast<size_t>(token)]),
                      .rank = RankOf(logits, token),
                      .alternatives = {}};
  const size_t count = std::min(static_cast<size_t>(std::max(num_alternatives, 0)), logits.size());
  for (const int32_t id : LargestIds(logits, count)) {
    result.alternatives.push_back({.token_id = id, .logprob = logprob_of(logits[static_cast<size_t>(id)])});
  }
  return result;
}

}  // namespace cadre
