#include "engine/sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/sample/philox.h"

namespace cadre {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The lowest id among the largest logits. INTERNAL when the row has no largest one.
absl::StatusOr<int32_t> ArgMax(std::span<const float> logits) {
  int32_t best = 0;
  bool has_nan = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    has_nan |= std::isnan(logits[i]);
    if (logits[i] > logits[static_cast<size_t>(best)]) best = static_cast<int32_t>(i);
  }
  if (has_nan) return absl::InternalError("the model computed logits that are not numbers (reason: nan)");
  if (logits[static_cast<size_t>(best)] == -kInfinity) {
    return absl::InternalError(absl::StrCat("all ", logits.size(), " logits are -inf (reason: nan)"));
  }
  return best;
}

}  // namespace

bool Sampler::IsLarger(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

absl::StatusOr<int32_t> Sampler::Sample(std::span<const float> logits, const SampleOptions& options) {
  CADRE_CHECK(!logits.empty());
  CADRE_CHECK_GE(options.temperature, 0.0f);
  absl::StatusOr<int32_t> largest = ArgMax(logits);
  if (!largest.ok() || options.temperature == 0.0f) return largest;

  CollectCandidates(logits, logits[static_cast<size_t>(*largest)], options);
  if (options.top_k > 0) KeepTopK(static_cast<size_t>(options.top_k));
  if (options.top_p < 1.0f) KeepTopP(static_cast<double>(options.top_p));
  return Draw(UniformDraw(options.seed, options.index));
}

void Sampler::CollectCandidates(std::span<const float> logits, float max_logit, const SampleOptions& options) {
  const double max = static_cast<double>(max_logit);
  const double temperature = static_cast<double>(options.temperature);
  const double min_weight = static_cast<double>(options.min_p);  // the largest weight is exactly 1
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i];
    if (logit == -kInfinity) continue;
    double weight = 1.0;  // of the largest: exact, and defined for +inf as well
    if (logit != max_logit) weight = std::exp((static_cast<double>(logit) - max) / temperature);
    if (weight > 0.0 && weight >= min_weight) candidates_.push_back({weight, logit, static_cast<int32_t>(i)});
  }
}

void Sampler::KeepTopK(size_t k) {
  if (k >= candidates_.size()) return;
  selection_ = candidates_;
  const auto last_kept = selection_.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(selection_.begin(), last_kept, selection_.end(), IsLarger);
  KeepThrough(*last_kept);
}

void Sampler::KeepTopP(double top_p) {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  // The last one kept lies in [low, high), and those before `low` leave `needed` to be reached. Halving costs O(V) in
  // all, where sorting would cost O(V log V).
  double needed = top_p * total;
  selection_ = candidates_;
  size_t low = 0;
  size_t high = selection_.size();
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    const auto begin = selection_.begin();
    std::nth_element(begin + static_cast<std::ptrdiff_t>(low), begin + static_cast<std::ptrdiff_t>(middle),
                     begin + static_cast<std::ptrdiff_t>(high), IsLarger);
    double upper = 0.0;
    for (size_t i = low; i < middle; ++i) upper += selection_[i].weight;
    if (upper >= needed) {
      high = middle;
    } else {
      needed -= upper;
      low = middle;
    }
  }
  KeepThrough(selection_[low]);
}

void Sampler::KeepThrough(const Candidate& last_kept) {
  std::erase_if(candidates_, [&](const Candidate& candidate) { return IsLarger(last_kept, candidate); });
}

int32_t Sampler::Draw(double u) const {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  const double target = u * total;
  double running = 0.0;
  for (const Candidate& candidate : candidates_) {
    running += candidate.weight;
    if (running > target) return candidate.id;
  }
  return candidates_.back().id;  // u * total was rounded up to total
}

}  // namespace cadre
