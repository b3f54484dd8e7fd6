#include "engine/sample/token_chooser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "tests/support/fake_constraint.h"
#include "tests/support/reference_sampler.h"

namespace cadre {
namespace {

constexpr int32_t kVocab = 120;
const std::vector<int32_t> kEos = {0, 7};

std::vector<float> RandomRow(std::mt19937* random, float scale = 2.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> row(kVocab);
  for (float& logit : row) logit = normal(*random);
  return row;
}

template <typename T>
T Pick(std::mt19937* random, std::initializer_list<T> values) {
  return *(values.begin() + static_cast<std::ptrdiff_t>((*random)() % values.size()));
}

std::vector<int32_t> RandomIds(std::mt19937* random, size_t max_count) {
  std::set<int32_t> ids;
  for (size_t i = (*random)() % (max_count + 1); i > 0; --i) ids.insert(static_cast<int32_t>((*random)() % kVocab));
  return {ids.begin(), ids.end()};
}

SamplingParams RandomParams(std::mt19937* random) {
  SamplingParams params;
  params.temperature = Pick(random, {0.0f, 0.3f, 1.0f, 2.5f});
  params.top_k = Pick(random, {0, 1, 5, 40});
  params.top_p = Pick(random, {1.0f, 0.9f, 0.3f});
  params.min_p = Pick(random, {0.0f, 0.1f});
  params.seed = (*random)();
  params.presence_penalty = Pick(random, {0.0f, 0.7f, -1.0f, 2.0f});
  params.frequency_penalty = Pick(random, {0.0f, 0.4f, -0.5f});
  params.repetition_penalty = Pick(random, {1.0f, 1.3f, 0.5f, 10.0f});
  params.min_tokens = Pick(random, {0, 0, 6, 20});
  params.ignore_eos = (*random)() % 4 == 0;
  params.stop_token_ids = RandomIds(random, 3);
  for (const int32_t id : RandomIds(random, 6)) {
    params.logit_bias.push_back({id, Pick(random, {-100.0f, -1.5f, 3.0f, 100.0f})});
  }
  if ((*random)() % 3 == 0) {
    params.allowed_token_ids = RandomIds(random, 40);
    params.allowed_token_ids.insert(params.allowed_token_ids.begin(), 1);  // an id that never ends a sequence
    std::erase(params.stop_token_ids, 1);
  }
  params.logprobs = (*random)() % 2 == 0;
  params.top_logprobs = params.logprobs ? Pick(random, {0, 1, 20}) : 0;
  return params;
}

struct Chosen {
  std::vector<int32_t> tokens;
  std::vector<TokenLogprob> logprobs;
};

// Chooses `count` tokens from the rows that `next_row` gives.
template <typename Rows>
Chosen Generate(const Request& request, int32_t index, int count, Sampler* sampler, Rows next_row) {
  const ChoiceRules rules(request, kEos, kVocab);
  TokenChooser chooser(&rules, request.prompt, index);
  Chosen chosen;
  for (int i = 0; i < count && !chooser.done(); ++i) {
    std::vector<float> row = next_row();
    const absl::StatusOr<ChosenToken> token = chooser.Choose(row, sampler);
    EXPECT_TRUE(token.ok()) << token.status();
    if (!token.ok()) return chosen;
    EXPECT_EQ(token->logprob.has_value(), request.sampling.logprobs);
    chosen.tokens.push_back(token->token_id);
    if (token->logprob) chosen.logprobs.push_back(*token->logprob);
    chooser.Accept(token->token_id);
  }
  return chosen;
}

TEST(TokenChooserTest, EveryOptionAgreesWithTheReference) {
  std::mt19937 random(11);
  Sampler sampler;
  for (int i = 0; i < 400; ++i) {
    Request request;
    request.sampling = RandomParams(&random);
    for (int k = 0; k < 12; ++k) request.prompt.push_back(static_cast<int32_t>(random() % kVocab));
    ReferenceState state{.params = request.sampling,
                         .eos_token_ids = kEos,
                         .prompt = request.prompt,
                         .output = {},
                         .sequence = static_cast<uint32_t>(random() % 128)};
    const ChoiceRules rules(request, kEos, kVocab);
    TokenChooser chooser(&rules, request.prompt, static_cast<int32_t>(state.sequence));
    for (int step = 0; step < 15; ++step) {
      const std::vector<float> row = RandomRow(&random, i % 2 == 0 ? 1.0f : 5.0f);
      std::vector<float> scratch = row;
      const absl::StatusOr<ChosenToken> token = chooser.Choose(scratch, &sampler);
      ASSERT_TRUE(token.ok()) << token.status();
      ASSERT_EQ(token->token_id, ReferenceChoice(row, state)) << "request " << i << ", step " << step;
      if (request.sampling.logprobs) {
        const TokenLogprob expected = ReferenceLogprob(row, token->token_id, request.sampling.top_logprobs);
        ASSERT_TRUE(token->logprob.has_value());
        EXPECT_EQ(token->logprob->rank, expected.rank);
        EXPECT_NEAR(token->logprob->logprob, expected.logprob, 1e-5);
        EXPECT_EQ(token->logprob->alternatives.size(), expected.alternatives.size());
      }
      chooser.Accept(token->token_id);
      state.output.push_back(token->token_id);
    }
  }
}

// Answers worked out by hand, with what vLLM does: repetition first and by sign, then frequency times count, then
// presence.
TEST(TokenChooserTest, PenaltiesByHand) {
  Request request;
  request.sampling.temperature = 0.0f;
  request.sampling.repetition_penalty = 2.0f;
  request.sampling.frequency_penalty = 0.5f;
  request.sampling.presence_penalty = 0.25f;
  request.prompt = {1, 2};
  TokenHistory history(request.prompt, {.repetition = 2.0f, .frequency = 0.5f, .presence = 0.25f});
  history.Add(2);
  history.Add(3);
  history.Add(3);
  std::vector<float> row{4.0f, 4.0f, 4.0f, -4.0f, 0.0f};
  history.Penalize(row);
  EXPECT_EQ(row, (std::vector<float>{4.0f, 2.0f, 1.25f, -9.25f, 0.0f}));
}

TEST(TokenChooserTest, SequencesOfARequestDrawFromStreamsOfTheirOwn) {
  Request request;
  request.prompt = {3};
  request.sampling.seed = 5;
  request.sampling.temperature = 1.5f;
  const auto tokens = [&](int32_t index, Sampler* sampler) {
    std::mt19937 random(1);
    return Generate(request, index, 30, sampler, [&] { return RandomRow(&random); }).tokens;
  };
  Sampler sampler;
  const std::vector<int32_t> first = tokens(0, &sampler);
  const std::vector<int32_t> second = tokens(1, &sampler);
  EXPECT_NE(first, second);
  Sampler other;
  EXPECT_EQ(tokens(1, &other), second);
  EXPECT_EQ(tokens(0, &other), first);
  // One sequence draws what a request of one always drew.
  std::mt19937 random(1);
  for (size_t i = 0; i < first.size(); ++i) {
    const std::vector<float> row = RandomRow(&random);
    EXPECT_EQ(*other.Sample(row, {.temperature = 1.5f, .seed = 5, .index = i}), first[i]);
  }
}

TEST(TokenChooserTest, NoEndingTokenBeforeMinTokens) {
  Request request;
  request.prompt = {3};
  request.sampling.temperature = 0.0f;
  request.sampling.min_tokens = 3;
  request.sampling.stop_token_ids = {9};
  std::vector<float> row(kVocab, 0.0f);
  row[0] = 5.0f;
  row[9] = 4.0f;
  row[20] = 1.0f;
  Sampler sampler;
  const auto next_row = [&] { return row; };
  EXPECT_EQ(Generate(request, 0, 4, &sampler, next_row).tokens, (std::vector<int32_t>{20, 20, 20, 0}));
  request.sampling.ignore_eos = true;  // an end-of-sequence token is then a token like any other
  EXPECT_EQ(Generate(request, 0, 2, &sampler, next_row).tokens, (std::vector<int32_t>{0, 0}));
  request.sampling.ignore_eos = false;
  request.sampling.min_tokens = 0;
  EXPECT_EQ(Generate(request, 0, 1, &sampler, next_row).tokens, (std::vector<int32_t>{0}));
}

TEST(TokenChooserTest, AConstraintIsFollowedToItsEnd) {
  Request request;
  request.prompt = {3};
  request.sampling.temperature = 2.0f;
  request.sampling.min_tokens = 10;  // gives way to the end of the language
  request.constraint = std::make_shared<FakeConstraint>(kVocab, [](const std::vector<int32_t>& output) {
    if (output.size() == 3) return std::vector<int32_t>{};
    return std::vector<int32_t>{static_cast<int32_t>(30 + output.size()), static_cast<int32_t>(40 + output.size())};
  });
  Sampler sampler;
  std::mt19937 random(2);
  for (int i = 0; i < 50; ++i) {
    request.sampling.seed = static_cast<uint64_t>(i);
    const std::vector<int32_t> tokens = Generate(request, 0, 10, &sampler, [&] { return RandomRow(&random); }).tokens;
    ASSERT_EQ(tokens.size(), 3u);
    for (size_t k = 0; k < 3; ++k) EXPECT_EQ((tokens[k] - 30) % 10, static_cast<int32_t>(k));
  }
}

TEST(TokenChooserTest, WhereOnlyTheEndMayFollowMinTokensGivesWay) {
  Request request;
  request.prompt = {3};
  request.sampling.temperature = 0.0f;
  request.sampling.min_tokens = 10;
  request.constraint = std::make_shared<FakeConstraint>(kVocab, [](const std::vector<int32_t>& output) {
    return output.empty() ? std::vector<int32_t>{0, 50} : std::vector<int32_t>{0, 7};
  });
  Sampler sampler;
  std::vector<float> row(kVocab, 1.0f);
  EXPECT_EQ(Generate(request, 0, 2, &sampler, [&] { return row; }).tokens, (std::vector<int32_t>{50, 0}));
}

TEST(TokenChooserTest, LogprobsAreOfTheRowBeforeAnyOption) {
  Request request;
  request.prompt = {3};
  request.sampling.temperature = 0.0f;
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 2;
  request.sampling.logit_bias = {{1, 100.0f}};
  request.sampling.allowed_token_ids = {1, 2};
  std::vector<float> row(kVocab, 0.0f);
  row[5] = 3.0f;
  Sampler sampler;
  const Chosen chosen = Generate(request, 0, 1, &sampler, [&] { return row; });
  EXPECT_EQ(chosen.tokens, std::vector<int32_t>{1});
  ASSERT_EQ(chosen.logprobs.size(), 1u);
  EXPECT_NEAR(chosen.logprobs[0].logprob, -std::log(kVocab - 1 + std::exp(3.0)), 1e-5);
  EXPECT_EQ(chosen.logprobs[0].rank, 3);
  EXPECT_EQ(chosen.logprobs[0].alternatives[0].token_id, 5);
}

TEST(TokenChooserTest, ABrokenRowIsFoundBehindEveryMask) {
  Request request;
  request.prompt = {3};
  request.sampling.allowed_token_ids = {1, 2};
  request.sampling.stop_token_ids = {7};
  request.sampling.min_tokens = 1;
  request.sampling.logit_bias = {{5, 1.0f}};
  Sampler sampler;
  for (const size_t place : {0u, 1u, 5u, 7u, 119u}) {
    const ChoiceRules rules(request, kEos, kVocab);
    TokenChooser chooser(&rules, request.prompt, 0);
    std::vector<float> row(kVocab, 0.0f);
    row[place] = std::nanf("");
    EXPECT_EQ(chooser.Choose(row, &sampler).status().code(), absl::StatusCode::kInternal) << place;
  }
}

// The tokens of many seeds follow the distribution that the reference computes, penalties and masks included.
TEST(TokenChooserTest, TokensFollowTheEditedDistribution) {
  std::mt19937 random(3);
  Request request;
  request.prompt = {1, 2, 3, 4};
  SamplingParams& params = request.sampling;
  params.temperature = 1.4f;
  params.top_p = 0.97f;
  params.repetition_penalty = 1.4f;
  params.frequency_penalty = 0.3f;
  params.presence_penalty = 0.2f;
  params.min_tokens = 5;
  params.logit_bias = {{2, 2.0f}, {50, -1.0f}};
  for (int32_t id = 0; id < 60; ++id) params.allowed_token_ids.push_back(id);
  const std::vector<float> row = RandomRow(&random, 1.0f);
  const ReferenceState state{.params = params, .eos_token_ids = kEos, .prompt = request.prompt, .output = {4, 4, 8}};
  const std::vector<double> distribution = ReferenceDistribution(ReferenceEdits(row, state), params);
  constexpr int kDraws = 40'000;
  std::vector<int> counts(kVocab, 0);
  Sampler sampler;
  std::vector<float> scratch;
  for (int i = 0; i < kDraws; ++i) {
    request.sampling.seed = static_cast<uint64_t>(i);
    const ChoiceRules rules(request, kEos, kVocab);
    TokenChooser chooser(&rules, request.prompt, i % 4);
    for (const int32_t token : state.output) chooser.Accept(token);
    scratch = row;
    ++counts[static_cast<size_t>(chooser.Choose(scratch, &sampler)->token_id)];
  }
  double chi_square = 0.0;
  int degrees = -1;
  for (size_t i = 0; i < row.size(); ++i) {
    const double expected = distribution[i] * kDraws;
    if (expected == 0.0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " was filtered out";
      continue;
    }
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++degrees;
  }
  EXPECT_GT(degrees, 20);
  EXPECT_LT(chi_square, degrees + 5.0 * std::sqrt(2.0 * degrees)) << degrees << " degrees of freedom";
}

// What is planned before a token is known is what is planned when it is.
TEST(TokenChooserTest, PlansAheadWhatItPlansLater) {
  Request request;
  request.prompt = {1, 2};
  request.sampling.temperature = 0.7f;
  request.sampling.seed = 11;
  request.sampling.min_tokens = 2;
  request.sampling.logit_bias = {{5, 1.0f}};
  const ChoiceRules rules(request, kEos, kVocab);
  TokenChooser chooser(&rules, request.prompt, 0);
  ASSERT_FALSE(chooser.needs_last_token());
  for (int i = 0; i < 4; ++i) {
    std::vector<int32_t> extras_ahead;
    const std::optional<SampleRow> ahead = chooser.PlanChoiceAhead(kVocab, 1000, &extras_ahead);
    chooser.Accept(50 + i);
    std::vector<int32_t> extras;
    const std::optional<SampleRow> now = chooser.PlanChoice(kVocab, 1000, &extras);
    ASSERT_TRUE(ahead.has_value() && now.has_value());
    EXPECT_EQ(ahead->draw, now->draw) << i;
    EXPECT_EQ(ahead->num_forbidden, now->num_forbidden) << i;
    EXPECT_EQ(ahead->num_forbidden, i == 0 ? 2 : 0) << i;
    EXPECT_EQ(extras_ahead, extras) << i;
  }
}

TEST(TokenChooserTest, WhatDependsOnTheLastTokenIsNotPlannedAhead) {
  for (int kind = 0; kind < 4; ++kind) {
    Request request;
    request.prompt = {1, 2};
    if (kind == 0) request.sampling.repetition_penalty = 1.1f;
    if (kind == 1) request.sampling.frequency_penalty = 0.1f;
    if (kind == 2) request.sampling.presence_penalty = -0.1f;
    if (kind == 3) {
      request.constraint =
          std::make_shared<FakeConstraint>(kVocab, [](const std::vector<int32_t>&) { return std::vector<int32_t>{3}; });
    }
    const ChoiceRules rules(request, kEos, kVocab);
    TokenChooser chooser(&rules, request.prompt, 0);
    EXPECT_TRUE(chooser.needs_last_token()) << kind;
    std::vector<int32_t> extras;
    EXPECT_DEATH(static_cast<void>(chooser.PlanChoiceAhead(kVocab, 1000, &extras)), "needs_last_token") << kind;
  }
}

}  // namespace
}  // namespace cadre
