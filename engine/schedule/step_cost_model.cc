#include "engine/schedule/step_cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace cadre {
namespace {

constexpr double kFading = 0.995;        // half of what is known is forgotten in 138 steps
constexpr double kFastFading = 0.95;     // the same while steps take twice or half as long as expected
constexpr double kMaxSurprise = 4.0;     // bound on observed / expected, and on its inverse
constexpr double kMinSeconds = 1e-6;     // what a clock can tell
constexpr double kRelativeRidge = 1e-9;  // keeps terms that always move together apart

template <size_t N>
using Vector = std::array<double, N>;
template <size_t N>
using Matrix = std::array<Vector<N>, N>;

// Solves a x = b over the terms in `subset` by Gaussian elimination, the others zero; nothing when it is singular or
// a term is negative.
template <size_t N>
std::optional<Vector<N>> SolveSubset(Matrix<N> a, Vector<N> b, unsigned subset) {
  for (size_t i = 0; i < N; ++i) {
    if ((subset >> i & 1) != 0) {
      a[i][i] *= 1 + kRelativeRidge;
      continue;
    }
    for (size_t j = 0; j < N; ++j) a[i][j] = a[j][i] = 0.0;
    a[i][i] = 1.0;
    b[i] = 0.0;
  }
  for (size_t pivot = 0; pivot < N; ++pivot) {
    if (a[pivot][pivot] <= 0.0) return std::nullopt;
    for (size_t row = pivot + 1; row < N; ++row) {
      const double factor = a[row][pivot] / a[pivot][pivot];
      for (size_t column = pivot; column < N; ++column) a[row][column] -= factor * a[pivot][column];
      b[row] -= factor * b[pivot];
    }
  }
  Vector<N> x = {};
  for (size_t i = N; i-- > 0;) {
    double sum = b[i];
    for (size_t j = i + 1; j < N; ++j) sum -= a[i][j] * x[j];
    x[i] = sum / a[i][i];
    if (!(x[i] >= 0.0) || !std::isfinite(x[i])) return std::nullopt;
  }
  return x;
}

}  // namespace

void StepCostModel::Observe(const StepLoad& load, double seconds) {
  seconds = std::max(seconds, kMinSeconds);
  double fading = kFading;
  if (costs_.is_known) {
    const double expected = std::max(costs_.Predict(load), kMinSeconds);
    if (seconds > 2 * expected || seconds < expected / 2) fading = kFastFading;
    seconds = std::clamp(seconds, expected / kMaxSurprise, expected * kMaxSurprise);
  }
  // Divided by the time, so that the error is relative: the terms must add up to 1.
  const std::array<double, kNumTerms> terms = {1.0 / seconds, static_cast<double>(load.rows) / seconds,
                                               static_cast<double>(load.attended) / seconds};
  for (size_t i = 0; i < kNumTerms; ++i) {
    targets_[i] = targets_[i] * fading + terms[i];
    for (size_t j = 0; j < kNumTerms; ++j) products_[i][j] = products_[i][j] * fading + terms[i] * terms[j];
  }
  ++num_steps_;
  if (num_steps_ >= kMinSteps) Solve();
}

void StepCostModel::Solve() {
  double best_error = std::numeric_limits<double>::infinity();
  for (unsigned subset = 1; subset < 1u << kNumTerms; ++subset) {
    const auto x = SolveSubset<kNumTerms>(products_, targets_, subset);
    if (!x) continue;
    double error = 0.0;  // less a constant
    for (size_t i = 0; i < kNumTerms; ++i) {
      error -= 2 * (*x)[i] * targets_[i];
      for (size_t j = 0; j < kNumTerms; ++j) error += (*x)[i] * products_[i][j] * (*x)[j];
    }
    if (error >= best_error) continue;
    best_error = error;
    costs_ = {.step = (*x)[0], .row = (*x)[1], .position = (*x)[2], .is_known = true};
  }
}

}  // namespace cadre
