#include "engine/experts/token_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace cadre {
namespace {

constexpr ExpertTier kHere = ExpertTier::kDevice;
constexpr ExpertTier kAway = ExpertTier::kCheckpoint;
constexpr TokenExpertsShape kShape = {.vocab_size = 10, .num_layers = 2, .num_experts = 3, .top_k = 2};
// Experts 0 and 1 of the first layer and 2 of the second.
const std::vector<ExpertTier> kTiers = {kHere, kHere, kAway, kAway, ExpertTier::kHost, kHere};

TEST(TokenExpertsTest, WhatIsNotKnownCountsNothing) {
  TokenExperts table(kShape);
  EXPECT_EQ(table.ResidentShare({}, kTiers), 0.0);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{4, 5}, kTiers), 0.0);
  table.Observe(std::vector<int32_t>{4}, std::vector<int32_t>{0, 1, 2, 0});
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{4}, kTiers), 0.75);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{4, 5}, kTiers), 0.375);
  table.Observe(std::vector<int32_t>{5}, std::vector<int32_t>{0, 1, 1, 0});
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{5}, kTiers), 0.5);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{5}, kTiers, ExpertTier::kHost), 0.75);
}

TEST(TokenExpertsTest, LayersAndTokensAreKeptApart) {
  TokenExperts table(kShape);
  // Layer 0: token 1 to 0 and 1, token 2 to 2 and 0; layer 1: to 2 and 2, and to 0 and 1.
  table.Observe(std::vector<int32_t>{1, 2}, std::vector<int32_t>{0, 1, 2, 0, 2, 2, 0, 1});
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{1}, kTiers), 1.0);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{2}, kTiers), 0.25);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{1, 2}, kTiers), 0.625);
}

TEST(TokenExpertsTest, TheLastOccurrenceCounts) {
  TokenExperts table(kShape);
  table.Observe(std::vector<int32_t>{3, 3}, std::vector<int32_t>{2, 2, 0, 0, 0, 0, 2, 2});
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{3}, kTiers), 1.0);
  table.Observe(std::vector<int32_t>{3}, std::vector<int32_t>{2, 2, 2, 2});
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{3}, kTiers), 0.5);
}

TEST(TokenExpertsTest, ALostAssignmentIsNoChoice) {
  TokenExperts table(kShape);
  table.Observe(std::vector<int32_t>{3, 4}, std::vector<int32_t>{0, -1, -1, -1, 0, -1, -1, -1});
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{3}, kTiers), 0.5);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{4}, kTiers), 0.0);
}

// Rows of 4 + 2 x 2 x 2 bytes.
TEST(TokenExpertsTest, MemoryIsBounded) {
  EXPECT_EQ(TokenExperts::Bytes(kShape), 10 * 12);
  EXPECT_EQ(TokenExperts::Bytes(kShape, 59), 4 * 12);
  EXPECT_EQ(TokenExperts::Bytes(kShape, 1), 12);
  constexpr TokenExpertsShape kLarge = {.vocab_size = 151936, .num_layers = 48, .num_experts = 128, .top_k = 8};
  EXPECT_LE(TokenExperts::Bytes(kLarge), TokenExperts::kMaxBytes);
  EXPECT_GT(TokenExperts::Bytes(kLarge), TokenExperts::kMaxBytes * 9 / 10);
}

// Four rows: 1 and 5 share one, and neither is taken for the other.
TEST(TokenExpertsTest, WhoSharesARowIsForgotten) {
  TokenExperts table(kShape, 59);
  table.Observe(std::vector<int32_t>{1, 2}, std::vector<int32_t>{0, 1, 0, 1, 2, 2, 2, 2});
  table.Observe(std::vector<int32_t>{5}, std::vector<int32_t>{2, 2, 2, 2});
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{1}, kTiers), 0.0);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{5}, kTiers), 0.5);
  EXPECT_EQ(table.ResidentShare(std::vector<int32_t>{2}, kTiers), 1.0);
}

// Of long steps and prompts a sample is looked at, from the first to the last part.
TEST(TokenExpertsTest, LongStepsAndPromptsAreSampled) {
  constexpr TokenExpertsShape kPlain = {.vocab_size = 5000, .num_layers = 1, .num_experts = 2, .top_k = 1};
  const std::vector<ExpertTier> tiers = {kHere, kAway};
  std::vector<int32_t> tokens(4 * TokenExperts::kMaxLearned);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  TokenExperts table(kPlain);
  table.Observe(tokens, std::vector<int32_t>(tokens.size(), 0));
  size_t num_known = 0;
  for (const int32_t token : tokens) {
    const double share = table.ResidentShare(std::vector<int32_t>{token}, tiers);
    EXPECT_EQ(share, token % 4 == 0 ? 1.0 : 0.0) << token;
    num_known += share > 0.0 ? 1 : 0;
  }
  EXPECT_EQ(num_known, TokenExperts::kMaxLearned);
  // Half of it is known to be there.
  std::vector<int32_t> prompt(1000, 1);
  std::fill(prompt.begin() + 500, prompt.end(), 4);
  EXPECT_EQ(table.ResidentShare(prompt, tiers), 0.5);
}

}  // namespace
}  // namespace cadre
