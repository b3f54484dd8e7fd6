// Arrivals, lengths and prompts: their statistics with fixed seeds, and that they repeat.
#include "tools/loadgen/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/loadgen/arrivals.h"
#include "tools/loadgen/latency_targets.h"

namespace cadre {
namespace {

// Critical values at a false alarm rate of 0.1 %.
constexpr double kKolmogorov = 1.95;  // of sqrt(n) D
constexpr double kChiSquare19 = 43.82;

// The largest distance between the distribution of `values` and `cdf`, times sqrt(n).
template <typename Cdf>
double KolmogorovSmirnov(std::vector<double> values, const Cdf& cdf) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double distance = 0.0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double expected = cdf(values[i]);
    distance = std::max({distance, expected - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - expected});
  }
  return distance * std::sqrt(n);
}

double NormalCdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

TEST(ArrivalProcessTest, PoissonGapsAreExponential) {
  constexpr double kRate = 250.0;
  for (uint64_t seed : {1u, 2u, 3u}) {
    ArrivalProcess arrivals(ArrivalKind::kPoisson, kRate, seed);
    std::vector<double> gaps;
    int64_t last = 0;
    for (int i = 0; i < 20000; ++i) {
      const int64_t time = arrivals.NextNanoseconds();
      gaps.push_back(static_cast<double>(time - last) * 1e-9);
      last = time;
    }
    EXPECT_LT(KolmogorovSmirnov(gaps, [](double gap) { return 1.0 - std::exp(-kRate * gap); }), kKolmogorov) << seed;
  }
}

TEST(ArrivalProcessTest, PoissonCountsOfSecondsHaveEqualMeanAndVariance) {
  constexpr int kSeconds = 4000;
  ArrivalProcess arrivals(ArrivalKind::kPoisson, 5.0, 11);
  std::vector<double> counts(kSeconds);
  for (int64_t time = 0; (time = arrivals.NextNanoseconds()) < kSeconds * 1'000'000'000LL;) {
    counts[static_cast<size_t>(time / 1'000'000'000)] += 1.0;
  }
  double mean = 0.0, variance = 0.0;
  for (double count : counts) mean += count / kSeconds;
  for (double count : counts) variance += (count - mean) * (count - mean) / (kSeconds - 1);
  // Standard errors: sqrt(5 / 4000) = 0.035, and about 5 sqrt(2 / 4000) = 0.11.
  EXPECT_NEAR(mean, 5.0, 0.14);
  EXPECT_NEAR(variance, 5.0, 0.45);
}

TEST(ArrivalProcessTest, ConstantGapsAreEqual) {
  ArrivalProcess arrivals(ArrivalKind::kConstant, 8.0, 1);
  for (int64_t i = 1; i <= 1000; ++i) EXPECT_EQ(arrivals.NextNanoseconds(), i * 125'000'000);
}

LengthDistribution Parsed(const std::string& text) {
  auto parsed = LengthDistribution::Parse(text);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return *parsed;
}

TEST(LengthDistributionTest, UniformTakesEveryLengthEquallyOften) {
  const LengthDistribution lengths = Parsed("uniform:101-120");
  Random random(1);
  std::array<double, 20> counts{};
  for (int i = 0; i < 20000; ++i) counts.at(static_cast<size_t>(lengths.Draw(random) - 101)) += 1.0;
  double chi_square = 0.0;
  for (double count : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, kChiSquare19);
}

TEST(LengthDistributionTest, LognormalHasItsMedianSigmaAndLimit) {
  Random random(2);
  const LengthDistribution lengths = Parsed("lognormal:20000,0.5");
  std::vector<double> logs;
  for (int i = 0; i < 20000; ++i) logs.push_back(std::log(lengths.Draw(random)));
  // Lengths are rounded, which moves the distribution by much less than the test can see.
  EXPECT_LT(KolmogorovSmirnov(logs, [](double x) { return NormalCdf((x - std::log(20000.0)) / 0.5); }), kKolmogorov);
  const LengthDistribution limited = Parsed("lognormal:100,2,150");
  int32_t longest = 0, shortest = 1000;
  for (int i = 0; i < 1000; ++i) {
    const int32_t length = limited.Draw(random);
    longest = std::max(longest, length);
    shortest = std::min(shortest, length);
  }
  EXPECT_EQ(longest, 150);
  EXPECT_GE(shortest, 1);
}

TEST(LengthDistributionTest, WhatIsNoDistributionIsRefused) {
  Random random(1);
  EXPECT_EQ(Parsed("17").Draw(random), 17);
  EXPECT_EQ(Parsed("fixed:17").Draw(random), 17);
  for (const char* text : {"", "0", "-1", "x", "1e3", "99999999999", "uniform:", "uniform:5", "uniform:6-5",
                           "uniform:0-5", "uniform:1-2-3", "lognormal:100", "lognormal:100,-1", "lognormal:100,nan",
                           "lognormal:100,1,0", "lognormal:100,1,2,3", "normal:3"}) {
    const auto parsed = LengthDistribution::Parse(text);
    EXPECT_FALSE(parsed.ok()) << text;
    EXPECT_THAT(std::string(parsed.status().message()), ::testing::HasSubstr(absl::StrCat("\"", text, "\"")));
  }
}

WorkloadOptions Options() {
  return {.base = {},
          .vocab_size = 50,
          .prompt_tokens = Parsed("uniform:1-30"),
          .output_tokens = Parsed("uniform:1-9"),
          .prompts = {},
          .tenants = {},
          .seed = 4};
}

TEST(WorkloadTest, TheSameSeedSendsTheSameRequests) {
  Workload first(Options()), second(Options());
  WorkloadOptions other_seed = Options();
  other_seed.seed = 5;
  Workload third(other_seed);
  int differences = 0;
  for (int i = 0; i < 50; ++i) {
    const v1::GenerateRequest request = first.Next(nullptr);
    EXPECT_EQ(request.SerializeAsString(), second.Next(nullptr).SerializeAsString());
    differences += request.SerializeAsString() != third.Next(nullptr).SerializeAsString() ? 1 : 0;
    for (int32_t id : request.token_ids().ids()) EXPECT_TRUE(id >= 0 && id < 50);
    EXPECT_GE(request.stopping().max_tokens(), 1);
  }
  EXPECT_EQ(differences, 50);
}

TEST(WorkloadTest, PrefixesAreSharedWithinTheirGroup) {
  WorkloadOptions options = Options();
  options.prompt_tokens = Parsed("40");
  options.shared_prefix_tokens = 25;
  options.prefix_groups = 3;
  Workload workload(options);
  std::set<std::vector<int32_t>> prefixes, prompts;
  for (int i = 0; i < 12; ++i) {
    const v1::GenerateRequest request = workload.Next(nullptr);
    ASSERT_EQ(request.token_ids().ids_size(), 40);
    prompts.emplace(request.token_ids().ids().begin(), request.token_ids().ids().end());
    prefixes.emplace(request.token_ids().ids().begin(), request.token_ids().ids().begin() + 25);
  }
  EXPECT_EQ(prompts.size(), 12u);
  EXPECT_EQ(prefixes.size(), 3u);
}

TEST(WorkloadTest, ATraceSaysLengthsTenantAndPriority) {
  WorkloadOptions options = Options();
  options.tenants = {"a", "b"};
  Workload workload(options);
  const TraceRequest shape{.offset = 0, .prompt_tokens = 77, .output_tokens = 5, .tenant = "t", .priority = -3};
  const v1::GenerateRequest traced = workload.Next(&shape);
  EXPECT_EQ(traced.token_ids().ids_size(), 77);
  EXPECT_EQ(traced.stopping().max_tokens(), 5);
  EXPECT_EQ(traced.scheduling().tenant(), "t");
  EXPECT_EQ(traced.scheduling().priority(), -3);
  const v1::GenerateRequest second = workload.Next(nullptr);
  EXPECT_EQ(second.scheduling().tenant(), "b");
  EXPECT_FALSE(second.scheduling().has_priority());
}

TEST(LatencyTargetsTest, ARequestIsGoodWhenItKeepsThemAll) {
  const auto targets = LatencyTargets::Parse("ttft:200ms,itl:50ms,e2e:2s");
  ASSERT_TRUE(targets.ok()) << targets.status();
  EXPECT_EQ(targets->Describe(), "ttft <= 200ms, itl <= 50ms, e2e <= 2s");
  const RequestLatency good{.first_token = 200'000'000, .end_to_end = 2'000'000'000, .longest_gap = 50'000'000};
  EXPECT_TRUE(targets->Met(good));
  for (int64_t RequestLatency::*field :
       {&RequestLatency::first_token, &RequestLatency::end_to_end, &RequestLatency::longest_gap}) {
    RequestLatency bad = good;
    ++(bad.*field);
    EXPECT_FALSE(targets->Met(bad));
  }
  EXPECT_TRUE(LatencyTargets().Met(good));
  EXPECT_FALSE(LatencyTargets().any());
  for (const char* text : {"", "ttft", "ttft:", "ttft:fast", "tft:1s", "ttft:1s,ttft:2s", "ttft:1s,", "ttft:-1s"}) {
    EXPECT_FALSE(LatencyTargets::Parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace cadre
