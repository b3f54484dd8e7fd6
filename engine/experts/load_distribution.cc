#include "engine/experts/load_distribution.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>

#include "engine/base/check.h"

namespace cadre {
namespace {

int64_t Sum(std::span<const int64_t> loads) { return std::accumulate(loads.begin(), loads.end(), int64_t{0}); }

bool CanBeJudged(std::span<const int64_t> loads) {
  return !loads.empty() && static_cast<double>(Sum(loads)) >= kMinMeanLoad * static_cast<double>(loads.size());
}

// x log2(x / mean of x and y).
double DivergenceTerm(double x, double y) { return x > 0.0 ? x * std::log2(2.0 * x / (x + y)) : 0.0; }

}  // namespace

ConcentrationCurve Concentration(std::span<const int64_t> loads) {
  const double sum = static_cast<double>(Sum(loads));
  if (sum == 0.0) return kConcentrationPoints;
  std::vector<int64_t> sorted(loads.begin(), loads.end());
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  ConcentrationCurve curve{};
  int64_t carried = 0;  // by the first `whole` experts
  size_t whole = 0;
  for (size_t i = 0; i < curve.size(); ++i) {
    const double experts = kConcentrationPoints[i] * static_cast<double>(sorted.size());
    while (whole < sorted.size() && static_cast<double>(whole + 1) <= experts) carried += sorted[whole++];
    const double rest =
        whole < sorted.size() ? (experts - static_cast<double>(whole)) * static_cast<double>(sorted[whole]) : 0.0;
    curve[i] = (static_cast<double>(carried) + rest) / sum;
  }
  return curve;
}

double EffectiveExperts(std::span<const int64_t> loads) {
  const double sum = static_cast<double>(Sum(loads));
  if (sum == 0.0) return static_cast<double>(loads.size());
  double entropy = 0.0;
  for (const int64_t load : loads) {
    const double share = static_cast<double>(load) / sum;
    if (load > 0) entropy -= share * std::log(share);
  }
  return std::exp(entropy);
}

double JensenShannonDivergence(std::span<const int64_t> p, std::span<const int64_t> q) {
  CADRE_CHECK_EQ(p.size(), q.size());
  const double p_sum = static_cast<double>(Sum(p));
  const double q_sum = static_cast<double>(Sum(q));
  if (p_sum == 0.0 || q_sum == 0.0) return 0.0;
  double divergence = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double p_share = static_cast<double>(p[i]) / p_sum;
    const double q_share = static_cast<double>(q[i]) / q_sum;
    divergence += (DivergenceTerm(p_share, q_share) + DivergenceTerm(q_share, p_share)) / 2.0;
  }
  // Rounding may leave the interval by an ulp or two.
  return std::clamp(divergence, 0.0, 1.0);
}

std::vector<int32_t> DeadExperts(std::span<const int64_t> loads) {
  std::vector<int32_t> dead;
  if (!CanBeJudged(loads)) return dead;
  for (size_t e = 0; e < loads.size(); ++e) {
    if (loads[e] == 0) dead.push_back(static_cast<int32_t>(e));
  }
  return dead;
}

double HotRatio(int64_t num_experts, double per_token) {
  if (per_token <= 0.0) return kHotRatio;
  return std::min(kHotRatio, (1.0 + static_cast<double>(num_experts) / per_token) / 2.0);
}

std::vector<int32_t> HotExperts(std::span<const int64_t> loads, double per_token) {
  std::vector<int32_t> hot;
  if (!CanBeJudged(loads)) return hot;
  const double mean = static_cast<double>(Sum(loads)) / static_cast<double>(loads.size());
  const double limit = HotRatio(std::ssize(loads), per_token) * mean;
  for (size_t e = 0; e < loads.size(); ++e) {
    if (static_cast<double>(loads[e]) > limit) hot.push_back(static_cast<int32_t>(e));
  }
  return hot;
}

}  // namespace cadre
