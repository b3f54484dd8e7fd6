// Percentile arithmetic against exact computation.
#include "tools/loadgen/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tools/loadgen/random.h"

namespace cadre {
namespace {

constexpr double kQuantiles[] = {0.0, 0.001, 0.07, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0};

// The value of nearest rank, in whole numbers: q is a multiple of 1/1000.
int64_t ExactQuantile(const std::vector<int64_t>& sorted, double q) {
  const auto permille = static_cast<int64_t>(std::lround(q * 1000));
  const auto count = static_cast<int64_t>(sorted.size());
  const int64_t rank = std::max<int64_t>(1, (permille * count + 999) / 1000);
  return sorted[static_cast<size_t>(rank - 1)];
}

void ExpectMatchesExact(std::vector<int64_t> values, int precision_bits) {
  LatencyHistogram histogram(precision_bits);
  double sum = 0.0;
  for (int64_t value : values) {
    histogram.Record(value);
    sum += static_cast<double>(value);
  }
  std::sort(values.begin(), values.end());
  EXPECT_EQ(histogram.count(), static_cast<int64_t>(values.size()));
  EXPECT_EQ(histogram.min(), values.front());
  EXPECT_EQ(histogram.max(), values.back());
  EXPECT_DOUBLE_EQ(histogram.mean(), sum / static_cast<double>(values.size()));
  for (double q : kQuantiles) {
    const int64_t exact = ExactQuantile(values, q);
    const int64_t told = histogram.Quantile(q);
    EXPECT_GE(told, exact) << q;
    EXPECT_LE(static_cast<double>(told), static_cast<double>(exact) * (1.0 + std::ldexp(1.0, -precision_bits))) << q;
  }
}

TEST(LatencyHistogramTest, QuantilesAreExactUpToThePrecision) {
  Random random(7);
  for (int precision_bits : {1, 5, 8, 14}) {
    for (size_t count : {1u, 2u, 99u, 100u, 101u, 20000u}) {
      std::vector<int64_t> lognormal, uniform, tiny;
      for (size_t i = 0; i < count; ++i) {
        lognormal.push_back(static_cast<int64_t>(1e7 * std::exp(1.5 * random.Normal())));
        uniform.push_back(random.Integer(0, int64_t{1} << 40));
        tiny.push_back(random.Integer(0, 3));
      }
      ExpectMatchesExact(lognormal, precision_bits);
      ExpectMatchesExact(uniform, precision_bits);
      ExpectMatchesExact(tiny, precision_bits);
    }
  }
}

TEST(LatencyHistogramTest, SmallValuesAreExact) {
  LatencyHistogram histogram(8);
  for (int64_t value = 1; value <= 500; ++value) histogram.Record(value);
  for (int permille = 2; permille <= 1000; permille += 2) {
    EXPECT_EQ(histogram.Quantile(permille / 1000.0), permille / 2) << permille;
  }
}

TEST(LatencyHistogramTest, ASumOfHistogramsIsTheHistogramOfAll) {
  Random random(3);
  LatencyHistogram all, left, right;
  for (int i = 0; i < 5000; ++i) {
    const int64_t value = random.Integer(0, i % 2 == 0 ? 1000 : 1'000'000'000);
    all.Record(value);
    (i % 2 == 0 ? left : right).Record(value);
  }
  left.Add(right);
  left.Add(LatencyHistogram());
  EXPECT_EQ(left.count(), all.count());
  EXPECT_EQ(left.min(), all.min());
  EXPECT_EQ(left.max(), all.max());
  for (double q : kQuantiles) EXPECT_EQ(left.Quantile(q), all.Quantile(q)) << q;
}

TEST(LatencyHistogramTest, BucketsAreDisjointOrderedAndHoldEverything) {
  Random random(5);
  LatencyHistogram histogram(4);
  for (int i = 0; i < 3000; ++i) histogram.Record(random.Integer(0, int64_t{1} << random.Integer(1, 45)));
  int64_t last_high = -1, count = 0;
  histogram.ForEachBucket([&](int64_t low, int64_t high, int64_t in_bucket) {
    EXPECT_GT(low, last_high);
    EXPECT_GE(high, low);
    EXPECT_LE(high - low, low / 16);
    EXPECT_EQ(histogram.CountAtMost(high), count + in_bucket);
    last_high = high;
    count += in_bucket;
  });
  EXPECT_EQ(count, 3000);
  EXPECT_EQ(histogram.CountAtMost(-1), 0);
}

TEST(LatencyHistogramTest, ValuesOutsideOfTheRangeCountAsItsEnds) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.Quantile(0.5), 0);
  histogram.Record(-5);
  histogram.Record(std::numeric_limits<int64_t>::max());
  histogram.Record(1, 0);
  EXPECT_EQ(histogram.count(), 2);
  EXPECT_EQ(histogram.Quantile(0.5), 0);
  EXPECT_EQ(histogram.max(), LatencyHistogram::kMaxValue);
  EXPECT_EQ(histogram.Quantile(1.0), LatencyHistogram::kMaxValue);
}

}  // namespace
}  // namespace cadre
