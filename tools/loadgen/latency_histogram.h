// Counts of values at a fixed relative precision, as HdrHistogram keeps them: any number of values in bounded memory.
#ifndef CADRE_TOOLS_LOADGEN_LATENCY_HISTOGRAM_H_
#define CADRE_TOOLS_LOADGEN_LATENCY_HISTOGRAM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace cadre {

// Values are whole numbers in [0, kMaxValue], such as nanoseconds. A bucket is at most 2^-precision_bits of its values
// wide; values below 2^(precision_bits + 1) have buckets of their own. Not thread-safe.
class LatencyHistogram {
 public:
  static constexpr int64_t kMaxValue = int64_t{1} << 46;  // of nanoseconds: 19 hours
  static constexpr int kDefaultPrecisionBits = 8;

  // `precision_bits` in [1, 14].
  explicit LatencyHistogram(int precision_bits = kDefaultPrecisionBits) : precision_bits_(precision_bits) {}

  // Values outside of the range count as its ends.
  void Record(int64_t value, int64_t count = 1);
  // Of the same precision.
  void Add(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  // Exact. Zero without values.
  int64_t min() const { return count_ > 0 ? min_ : 0; }
  int64_t max() const { return max_; }
  double mean() const { return count_ > 0 ? sum_ / static_cast<double>(count_) : 0.0; }

  // The value of nearest rank ceil(q * count), for q in [0, 1], or up to 2^-precision_bits more; never above max().
  // Zero without values.
  int64_t Quantile(double q) const;
  // How many values are at most `value`, rounded up to a whole bucket.
  int64_t CountAtMost(int64_t value) const;
  // Each bucket that holds something, upwards: its lowest value, its highest, its count.
  void ForEachBucket(const std::function<void(int64_t low, int64_t high, int64_t count)>& visit) const;

 private:
  size_t IndexOf(int64_t value) const;
  int64_t LowOf(size_t index) const;
  int64_t HighOf(size_t index) const;

  int precision_bits_;
  std::vector<int64_t> counts_;  // as long as the largest value needs
  int64_t count_ = 0;
  int64_t min_ = 0;
  int64_t max_ = 0;
  double sum_ = 0.0;
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LATENCY_HISTOGRAM_H_
