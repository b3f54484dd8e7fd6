#include "engine/experts/bias_balancer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/base/check.h"

namespace cadre {

BiasBalancer::BiasBalancer(const BiasBalancerOptions& options, int32_t num_experts, std::vector<float> base)
    : options_(options), num_experts_(static_cast<size_t>(num_experts)), base_(std::move(base)), bias_(base_) {
  CADRE_CHECK(options_.is_on());
  CADRE_CHECK_GE(options_.window_tokens, int64_t{1});
  CADRE_CHECK(options_.limit >= 0.0);
  CADRE_CHECK_GE(num_experts, 1);
  CADRE_CHECK_EQ(base_.size() % num_experts_, size_t{0});
  nudge_.resize(base_.size());
  load_.resize(base_.size());
}

bool BiasBalancer::Observe(const StepRouting& step) {
  CADRE_CHECK_EQ(step.assignments.size(), load_.size());
  for (size_t i = 0; i < load_.size(); ++i) load_[i] += step.assignments[i];
  window_tokens_ += step.num_tokens;
  if (window_tokens_ < options_.window_tokens) return false;
  for (size_t layer = 0; layer < load_.size(); layer += num_experts_) {
    const auto begin = load_.begin() + static_cast<std::ptrdiff_t>(layer);
    const int64_t sum = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(num_experts_), int64_t{0});
    for (size_t i = layer; i < layer + num_experts_; ++i) {
      // Compared as integers: an expert with the mean load stays where it is.
      const int64_t times_experts = load_[i] * static_cast<int64_t>(num_experts_);
      const double direction = times_experts < sum ? 1.0 : times_experts > sum ? -1.0 : 0.0;
      nudge_[i] = std::clamp(nudge_[i] + options_.rate * direction, -options_.limit, options_.limit);
      bias_[i] = static_cast<float>(static_cast<double>(base_[i]) + nudge_[i]);
    }
  }
  double largest = 0.0;
  for (const double nudge : nudge_) largest = std::max(largest, std::abs(nudge));
  largest_nudge_ = static_cast<float>(largest);
  std::ranges::fill(load_, 0);
  window_tokens_ = 0;
  ++num_updates_;
  return true;
}

void BiasBalancer::Reset() {
  bias_ = base_;
  std::ranges::fill(nudge_, 0.0);
  std::ranges::fill(load_, 0);
  window_tokens_ = 0;
  num_updates_ = 0;
  largest_nudge_ = 0.0f;
}

}  // namespace cadre
