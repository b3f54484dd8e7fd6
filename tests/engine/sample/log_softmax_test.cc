#include "engine/sample/log_softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/reference_sampler.h"

namespace cadre {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> Logprobs(const std::vector<float>& logits) {
  std::vector<float> result;
  for (size_t i = 0; i < logits.size(); ++i) {
    result.push_back(DescribeToken(logits, static_cast<int32_t>(i), 0)->logprob);
  }
  return result;
}

TEST(LogSoftmaxTest, KnownAnswers) {
  const std::vector<float> logprobs = Logprobs({std::log(1.0f), std::log(2.0f), std::log(5.0f)});
  EXPECT_NEAR(logprobs[0], std::log(0.125), 1e-6);
  EXPECT_NEAR(logprobs[1], std::log(0.25), 1e-6);
  EXPECT_NEAR(logprobs[2], std::log(0.625), 1e-6);
  EXPECT_EQ(Logprobs({7.0f}), std::vector<float>{0.0f});
}

TEST(LogSoftmaxTest, RandomRowsAgreeWithTheReference) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  for (int i = 0; i < 500; ++i) {
    std::vector<float> row(1 + random() % 400);
    for (float& logit : row) logit = normal(random);
    if (i % 2 == 0) {
      for (float& logit : row) logit = std::round(logit);  // many ties
    }
    const auto token = static_cast<int32_t>(random() % row.size());
    const auto count = static_cast<int32_t>(random() % 21);
    const TokenLogprob found = *DescribeToken(row, token, count);
    const TokenLogprob expected = ReferenceLogprob(row, token, count);
    EXPECT_EQ(found.token_id, token);
    EXPECT_EQ(found.rank, expected.rank);
    EXPECT_NEAR(found.logprob, expected.logprob, 1e-5);
    ASSERT_EQ(found.alternatives.size(), expected.alternatives.size());
    for (size_t k = 0; k < found.alternatives.size(); ++k) {
      EXPECT_EQ(found.alternatives[k].token_id, expected.alternatives[k].token_id);
      EXPECT_NEAR(found.alternatives[k].logprob, expected.alternatives[k].logprob, 1e-5);
    }
  }
}

TEST(LogSoftmaxTest, EqualLogitsRankByIdAndMoreAlternativesThanTokensAreAll) {
  const std::vector<float> row{1.0f, 2.0f, 2.0f, 1.0f};
  EXPECT_EQ(DescribeToken(row, 1, 0)->rank, 1);
  EXPECT_EQ(DescribeToken(row, 2, 0)->rank, 2);
  EXPECT_EQ(DescribeToken(row, 0, 0)->rank, 3);
  const TokenLogprob last = *DescribeToken(row, 3, 20);
  EXPECT_EQ(last.rank, 4);
  ASSERT_EQ(last.alternatives.size(), 4u);
  EXPECT_EQ(last.alternatives[0].token_id, 1);
  EXPECT_EQ(last.alternatives[1].token_id, 2);
  EXPECT_EQ(last.alternatives[2].token_id, 0);
  EXPECT_EQ(last.alternatives[3].token_id, 3);
}

TEST(LogSoftmaxTest, InfiniteLogits) {
  const std::vector<float> masked = Logprobs({-kInf, 3.0f, -kInf});
  EXPECT_EQ(masked[0], -kInf);
  EXPECT_EQ(masked[1], 0.0f);
  const std::vector<float> shared = Logprobs({kInf, 3.0f, kInf, -kInf});
  EXPECT_NEAR(shared[0], std::log(0.5), 1e-6);
  EXPECT_EQ(shared[1], -kInf);
  EXPECT_NEAR(shared[2], std::log(0.5), 1e-6);
  EXPECT_EQ(shared[3], -kInf);
  const float big = std::numeric_limits<float>::max();
  EXPECT_EQ(Logprobs({big, -big})[0], 0.0f);
}

TEST(LogSoftmaxTest, NanAnywhereIsAnError) {
  EXPECT_EQ(DescribeToken(std::vector<float>{1.0f, std::nanf("")}, 0, 2).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(DescribeToken(std::vector<float>{-kInf, -kInf}, 0, 2).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace cadre
