#include "engine/sample/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "engine/sample/philox.h"
#include "tests/support/reference_sampler.h"

namespace cadre {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SamplingParams ParamsOf(const SampleOptions& options) {
  SamplingParams params;
  params.temperature = options.temperature;
  params.top_k = options.top_k;
  params.top_p = options.top_p;
  params.min_p = options.min_p;
  return params;
}

int32_t NaiveSample(const std::vector<float>& logits, const SampleOptions& options) {
  return ReferenceDraw(ReferenceDistribution(logits, ParamsOf(options)),
                       UniformDraw(options.seed, options.sequence, options.index));
}

std::vector<float> RandomRow(std::mt19937* random, size_t size, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> row(size);
  for (float& logit : row) logit = normal(*random);
  return row;
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongTheLargest) {
  Sampler sampler;
  const SampleOptions greedy{.temperature = 0.0f, .top_k = 5, .top_p = 0.1f};
  EXPECT_EQ(*sampler.Sample(std::vector<float>{1.0f, 3.0f, 3.0f, -2.0f}, greedy), 1);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{-0.0f, 0.0f}, greedy), 0);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{-5.0f}, greedy), 0);
}

TEST(SamplerTest, TopKOfOneIsGreedyForEverySeed) {
  Sampler sampler;
  const std::vector<float> row{1.0f, 3.0f, 3.0f, 2.5f};
  for (uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_EQ(*sampler.Sample(row, {.temperature = 5.0f, .top_k = 1, .seed = seed}), 1);
    EXPECT_EQ(*sampler.Sample(row, {.temperature = 5.0f, .top_p = 1e-6f, .seed = seed}), 1);
  }
}

TEST(SamplerTest, RandomRowsAgreeWithTheNaiveReference) {
  std::mt19937 random(1);
  Sampler sampler;
  const float temperatures[] = {0.05f, 0.7f, 1.0f, 3.0f};
  const int32_t top_ks[] = {0, 1, 2, 7, 50, 100000};
  const float top_ps[] = {1.0f, 0.95f, 0.5f, 0.01f};
  const float min_ps[] = {0.0f, 0.05f, 0.4f, 1.0f};
  for (int i = 0; i < 4000; ++i) {
    const std::vector<float> row = RandomRow(&random, 1 + random() % 300, i % 2 == 0 ? 1.0f : 6.0f);
    const SampleOptions options{.temperature = temperatures[random() % 4],
                                .top_k = top_ks[random() % 6],
                                .top_p = top_ps[random() % 4],
                                .min_p = min_ps[random() % 4],
                                .seed = random(),
                                .sequence = static_cast<uint32_t>(random() % 128),
                                .index = random()};
    ASSERT_EQ(*sampler.Sample(row, options), NaiveSample(row, options)) << "row " << i << " of " << row.size();
  }
}

// bfloat16 logits tie all the time: the cut must take the lowest ids, whatever selection does inside.
TEST(SamplerTest, CutsThroughTiesKeepTheLowestIds) {
  std::mt19937 random(2);
  Sampler sampler;
  for (int i = 0; i < 2000; ++i) {
    std::vector<float> row = RandomRow(&random, 64, 1.0f);
    for (float& logit : row) logit = std::round(logit * 2.0f) / 2.0f;
    const SampleOptions options{.top_k = static_cast<int32_t>(random() % 65), .seed = random(), .index = 3};
    const int32_t token = *sampler.Sample(row, options);
    ASSERT_EQ(token, NaiveSample(row, options)) << "row " << i;
  }
  const std::vector<float> flat(8, 1.0f);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_LT(*sampler.Sample(flat, {.top_k = 3, .seed = seed}), 3);
    EXPECT_LT(*sampler.Sample(flat, {.top_p = 0.5f, .seed = seed}), 4);
  }
}

// Pearson's statistic of `counts` against `distribution`, as a normal deviate (Wilson and Hilferty 1931). Tokens that
// are expected less than five times are counted as one.
double ChiSquareDeviate(const std::vector<int>& counts, const std::vector<double>& distribution, int num_draws) {
  double chi_square = 0.0;
  double rare_expected = 0.0;
  double rare_count = 0.0;
  int num_cells = 0;
  const auto add = [&](double count, double expected) {
    chi_square += (count - expected) * (count - expected) / expected;
    ++num_cells;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = distribution[i] * num_draws;
    if (expected == 0.0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " was filtered out";
    } else if (expected < 5.0) {
      rare_expected += expected;
      rare_count += counts[i];
    } else {
      add(counts[i], expected);
    }
  }
  if (rare_expected >= 5.0) add(rare_count, rare_expected);
  const double degrees = num_cells - 1;
  if (degrees < 1.0) return 0.0;
  const double spread = 2.0 / (9.0 * degrees);
  return (std::cbrt(chi_square / degrees) - (1.0 - spread)) / std::sqrt(spread);
}

// Every combination of filters, along each of the three numbers that a draw depends on.
TEST(SamplerTest, TokensFollowTheDistribution) {
  std::mt19937 random(3);
  const std::vector<float> row = RandomRow(&random, 40, 1.5f);
  Sampler sampler;
  constexpr int kDraws = 20'000;
  for (int combination = 0; combination < 2 * 2 * 2 * 2 * 3; ++combination) {
    SampleOptions options{.temperature = combination & 1 ? 1.7f : 0.8f,
                          .top_k = combination & 2 ? 25 : 0,
                          .top_p = combination & 4 ? 0.9f : 1.0f,
                          .min_p = combination & 8 ? 0.02f : 0.0f,
                          .seed = 99,
                          .sequence = 7,
                          .index = 11};
    const int axis = combination / 16;
    std::vector<int> counts(row.size(), 0);
    for (int i = 0; i < kDraws; ++i) {
      if (axis == 0) options.index = static_cast<uint64_t>(i);
      if (axis == 1) options.seed = static_cast<uint64_t>(i);
      if (axis == 2) options.sequence = static_cast<uint32_t>(i);
      ++counts[static_cast<size_t>(*sampler.Sample(row, options))];
    }
    const double deviate = ChiSquareDeviate(counts, ReferenceDistribution(row, ParamsOf(options)), kDraws);
    // The seeds are fixed; 1 of 30,000 sets of seeds would be beyond it.
    EXPECT_LT(deviate, 4.0) << "combination " << combination;
    // Draws that are too even are not independent.
    EXPECT_GT(deviate, -4.0) << "combination " << combination;
  }
}

TEST(SamplerTest, ATokenDependsOnSeedIndexAndRowAlone) {
  std::mt19937 random(4);
  const std::vector<float> row = RandomRow(&random, 1000, 1.0f);
  const SampleOptions options{.top_p = 0.9f, .seed = 5, .index = 17};
  Sampler fresh;
  const int32_t expected = *fresh.Sample(row, options);
  Sampler used;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(used.Sample(RandomRow(&random, 1 + random() % 2000, 3.0f), {.seed = random()}).ok());
    ASSERT_EQ(*used.Sample(row, options), expected);
  }
  int num_different = 0;
  for (uint64_t index = 0; index < 100; ++index) {
    num_different += *fresh.Sample(row, {.top_p = 0.9f, .seed = 5, .index = index}) != expected;
  }
  EXPECT_GT(num_different, 90);
}

TEST(SamplerTest, ExtremeLogitsAndTemperatures) {
  Sampler sampler;
  const float big = std::numeric_limits<float>::max();
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (uint64_t seed = 0; seed < 200; ++seed) {
    EXPECT_EQ(*sampler.Sample(std::vector<float>{big, -big, 0.0f}, {.seed = seed}), 0);
    EXPECT_EQ(*sampler.Sample(std::vector<float>{-big, -big * 0.5f}, {.temperature = tiny, .seed = seed}), 1);
    EXPECT_EQ(*sampler.Sample(std::vector<float>{1.0f, 1.5f}, {.temperature = 1e-30f, .seed = seed}), 1);
    const int32_t masked = *sampler.Sample(std::vector<float>{-kInf, 1.0f, -kInf, 1.0f}, {.seed = seed});
    EXPECT_TRUE(masked == 1 || masked == 3);
    const int32_t infinite =
        *sampler.Sample(std::vector<float>{1e30f, kInf, -kInf, kInf}, {.top_p = 0.9f, .seed = seed});
    EXPECT_TRUE(infinite == 1 || infinite == 3);
  }
  EXPECT_EQ(*sampler.Sample(std::vector<float>{0.0f, kInf, kInf}, {.temperature = 0.0f}), 1);
  EXPECT_EQ(*sampler.Sample(std::vector<float>{-kInf, -3.0f}, {.temperature = 0.0f}), 1);
}

TEST(SamplerTest, NanAnywhereIsAnError) {
  Sampler sampler;
  for (size_t place : {size_t{0}, size_t{1}, size_t{2}}) {
    for (float temperature : {0.0f, 1.0f}) {
      std::vector<float> row{1.0f, kInf, -kInf};
      row[place] = kNan;
      const absl::StatusOr<int32_t> token = sampler.Sample(row, {.temperature = temperature});
      EXPECT_EQ(token.status().code(), absl::StatusCode::kInternal);
      EXPECT_NE(token.status().message().find("reason: nan"), absl::string_view::npos);
    }
  }
  EXPECT_EQ(sampler.Sample(std::vector<float>{-kInf, -kInf}, {}).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace cadre
