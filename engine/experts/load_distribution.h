// How the load of one layer lies on its experts: formulas over counts, without state. Loads are assignments computed by
// each expert, n_i; f_i = n_i / sum n.
#ifndef CADRE_ENGINE_EXPERTS_LOAD_DISTRIBUTION_H_
#define CADRE_ENGINE_EXPERTS_LOAD_DISTRIBUTION_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace cadre {

// Shares of the experts, busiest first, at which the concentration curve is told.
inline constexpr std::array<double, 12> kConcentrationPoints = {0.01, 0.05, 0.1, 0.2, 0.3, 0.4,
                                                                0.5,  0.6,  0.7, 0.8, 0.9, 1.0};
using ConcentrationCurve = std::array<double, kConcentrationPoints.size()>;

// The share of the load that the busiest x E experts carry, for each x of kConcentrationPoints; linear between whole
// numbers of experts. The uniform curve, x itself, without any load.
ConcentrationCurve Concentration(std::span<const int64_t> loads);

// exp(-sum f ln f): as many experts with equal loads would have the same entropy (the perplexity of the load). E
// without any load, 0 without experts.
double EffectiveExperts(std::span<const int64_t> loads);

// Jensen-Shannon divergence of two load distributions P = p / sum p and Q = q / sum q over the same experts, in bits:
// (KL(P || M) + KL(Q || M)) / 2 with M = (P + Q) / 2 (Lin 1991). 0: the same; 1: no expert in common. 0 where one of
// them has no load at all, of which nothing can be said.
double JensenShannonDivergence(std::span<const int64_t> p, std::span<const int64_t> q);

// With fewer assignments than this for each expert on average, nobody is called dead or hot: chance alone would leave
// one expert in 20,000 idle.
inline constexpr double kMinMeanLoad = 10.0;
// How many times the mean a hot expert carries, in a layer that could be more uneven than that; see HotRatio.
inline constexpr double kHotRatio = 3.0;

// Experts with no load, rising.
std::vector<int32_t> DeadExperts(std::span<const int64_t> loads);
// min(kHotRatio, (1 + E / k) / 2): where no expert can carry kHotRatio times the mean, since each token goes to k
// different ones, half of the way to the most that it can carry. `per_token` is k, the mean number of experts of a
// token.
double HotRatio(int64_t num_experts, double per_token);
// Experts with more than HotRatio times the mean load, rising.
std::vector<int32_t> HotExperts(std::span<const int64_t> loads, double per_token);

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_LOAD_DISTRIBUTION_H_
