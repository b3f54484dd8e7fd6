#include "tools/loadgen/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace cadre {

// A value v with s = max(0, bits of v - precision - 1) keeps its upper precision + 1 bits: bucket s * 2^precision +
// (v >> s). The buckets of one s continue where those of s - 1 end.
size_t LatencyHistogram::IndexOf(int64_t value) const {
  const auto v = static_cast<uint64_t>(value);
  const int shift = std::max(0, static_cast<int>(std::bit_width(v)) - precision_bits_ - 1);
  return (static_cast<size_t>(shift) << precision_bits_) + static_cast<size_t>(v >> shift);
}

int64_t LatencyHistogram::LowOf(size_t index) const {
  const size_t half = size_t{1} << precision_bits_;
  if (index < 2 * half) return static_cast<int64_t>(index);
  const size_t shift = (index >> precision_bits_) - 1;
  return static_cast<int64_t>((index - (shift << precision_bits_)) << shift);
}

int64_t LatencyHistogram::HighOf(size_t index) const { return LowOf(index + 1) - 1; }

void LatencyHistogram::Record(int64_t value, int64_t count) {
  if (count <= 0) return;
  value = std::clamp(value, int64_t{0}, kMaxValue);
  const size_t index = IndexOf(value);
  if (index >= counts_.size()) counts_.resize(index + 1);
  counts_[index] += count;
  min_ = count_ > 0 ? std::min(min_, value) : value;
  max_ = std::max(max_, value);
  count_ += count;
  sum_ += static_cast<double>(value) * static_cast<double>(count);
}

void LatencyHistogram::Add(const LatencyHistogram& other) {
  if (other.count_ == 0) return;
  counts_.resize(std::max(counts_.size(), other.counts_.size()));
  for (size_t i = 0; i < other.counts_.size(); ++i) counts_[i] += other.counts_[i];
  min_ = count_ > 0 ? std::min(min_, other.min_) : other.min_;
  max_ = std::max(max_, other.max_);
  count_ += other.count_;
  sum_ += other.sum_;
}

int64_t LatencyHistogram::Quantile(double q) const {
  if (count_ == 0) return 0;
  // Products such as 0.07 * 100 come out a little too large, and would be rounded up to the next rank.
  constexpr double kSlack = 1e-9;
  const double position = std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(count_) - kSlack);
  const auto rank = std::max<int64_t>(1, static_cast<int64_t>(position));
  int64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::min(HighOf(i), max_);
  }
  return max_;
}

int64_t LatencyHistogram::CountAtMost(int64_t value) const {
  if (value < 0) return 0;
  const size_t last = IndexOf(std::min(value, kMaxValue));
  int64_t seen = 0;
  for (size_t i = 0; i < counts_.size() && i <= last; ++i) seen += counts_[i];
  return seen;
}

void LatencyHistogram::ForEachBucket(const std::function<void(int64_t low, int64_t high, int64_t count)>& visit) const {
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] > 0) visit(LowOf(i), HighOf(i), counts_[i]);
  }
}

}  // namespace cadre
