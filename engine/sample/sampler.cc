#include "engine/sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>

#include "engine/base/check.h"
#include "engine/sample/arg_max.h"
#include "engine/sample/philox.h"

namespace cadre {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

bool Sampler::IsLarger(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

void Sampler::Reserve(size_t vocab_size) {
  static_assert(kScratchBytesPerLogit == 2 * sizeof(Candidate) + 2 * sizeof(float));
  candidates_.reserve(vocab_size);
  selection_.reserve(vocab_size);
  best_.reserve(vocab_size);
  kept_.reserve(vocab_size);
}

std::span<const float> Sampler::Keep(std::span<const float> logits) {
  kept_.assign(logits.begin(), logits.end());
  return kept_;
}

absl::StatusOr<int32_t> Sampler::Sample(std::span<const float> logits, const SampleOptions& options) {
  CADRE_CHECK(!logits.empty());
  CADRE_CHECK_GE(options.temperature, 0.0f);
  absl::StatusOr<int32_t> largest = ArgMax(logits);
  if (!largest.ok() || options.temperature == 0.0f) return largest;

  CollectCandidates(logits, logits[static_cast<size_t>(*largest)], options);
  if (options.top_p < 1.0f) KeepTopP(static_cast<double>(options.top_p));
  return Draw(UniformDraw(options.seed, options.sequence, options.index));
}

float Sampler::KthLargest(std::span<const float> logits, size_t k) {
  // `best_` holds the k largest so far and up to k more; whatever is below the k-th of them is passed over at the cost
  // of one comparison.
  float threshold = -kInfinity;
  best_.clear();
  const auto shrink = [&] {
    std::nth_element(best_.begin(), best_.begin() + static_cast<std::ptrdiff_t>(k - 1), best_.end(), std::greater<>());
    best_.resize(k);
    threshold = best_.back();
  };
  for (float logit : logits) {
    if (logit <= threshold) continue;
    best_.push_back(logit);
    if (best_.size() == 2 * k) shrink();
  }
  if (best_.size() >= k) shrink();
  return threshold;
}

void Sampler::CollectCandidates(std::span<const float> logits, float max_logit, const SampleOptions& options) {
  const double max = static_cast<double>(max_logit);
  const double temperature = static_cast<double>(options.temperature);
  const double min_weight = static_cast<double>(options.min_p);  // the largest weight is exactly 1
  // Exponents below this are not worth the exp(): filtered out by min_p, or zero.
  const double min_exponent = options.min_p > 0.0f ? std::log(min_weight) - 1e-9 : -746.0;
  const auto k = static_cast<size_t>(options.top_k);
  // min_p and top_k both cut the same order, so the shorter cut wins and their order does not matter.
  const float kth = k > 0 && k < logits.size() ? KthLargest(logits, k) : -kInfinity;
  size_t num_ties = std::numeric_limits<size_t>::max();  // equal to the k-th, lowest ids first, that are kept
  if (kth != -kInfinity) {
    num_ties = k - static_cast<size_t>(std::ranges::count_if(best_, [kth](float logit) { return logit > kth; }));
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i];
    if (logit < kth || logit == -kInfinity) continue;
    if (logit == kth) {
      if (num_ties == 0) continue;
      --num_ties;
    }
    double weight = 1.0;  // of the largest: exact, and defined for +inf as well
    if (logit != max_logit) {
      const double exponent = (static_cast<double>(logit) - max) / temperature;
      if (exponent < min_exponent) continue;
      weight = std::exp(exponent);
    }
    if (weight > 0.0 && weight >= min_weight) candidates_.push_back({weight, logit, static_cast<int32_t>(i)});
  }
}

void Sampler::KeepTopP(double top_p) {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double needed = top_p * total;
  // All tokens below this weight together do not reach the share that is cut off; the half leaves room for rounding.
  const double negligible = 0.5 * (1.0 - top_p) * total / static_cast<double>(candidates_.size());
  selection_.clear();
  std::ranges::copy_if(candidates_, std::back_inserter(selection_),
                       [&](const Candidate& candidate) { return candidate.weight >= negligible; });
  // The last one kept lies in [low, high), and those before `low` leave `needed` to be reached. Halving costs O(V) in
  // all, where sorting would cost O(V log V).
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
  const Candidate last_kept = selection_[low];
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
