// Routing schemes over the real transformer: under each of them an answer does not depend on neighbors, on chunks, on
// preemption or on cached prompts, bit for bit, and every assignment is accounted for. And routers that are nudged.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/engine_harness.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

struct Server : TransformerEngine {
  explicit Server(const std::string& scheme, const EngineOptions& options = {}, int32_t num_blocks = 200)
      : TransformerEngine(/*policy=*/{}, options, num_blocks, ModelFamily::kMixtral, scheme) {}

  static Request MakeRequest(const Ticket& ticket, int32_t max_tokens) {
    Request request = TransformerEngine::MakeRequest(ticket, max_tokens);
    request.sampling.seed += ticket.prompt.size();
    return request;
  }
  Ticket Submit(std::vector<int32_t> prompt, int32_t max_tokens, int32_t num_sequences = 1) {
    for (int32_t& token : prompt) token %= kSmallVocabSize;
    const Ticket ticket{.prompt = std::move(prompt)};
    Request request = MakeRequest(ticket, max_tokens);
    request.num_sequences = num_sequences;
    const absl::Status status = engine->Submit(std::move(request));
    EXPECT_TRUE(status.ok()) << status.ToString();
    return ticket;
  }
};

class EngineRoutingTest : public testing::TestWithParam<std::string> {};

// Small chunks, and so few blocks that requests are preempted and computed again.
TEST_P(EngineRoutingTest, ChunksAndPreemptionChangeNothing) {
  std::vector<Ticket> alone;
  for (int32_t i = 0; i < 6; ++i) {
    Server server(GetParam());
    alone.push_back(server.Submit(MakePrompt(9 + 5 * i, i), 12 + i));
    server.Run();
  }
  for (const int32_t rows : {17, 64}) {
    SCOPED_TRACE(rows);
    Server server(GetParam(), {.max_num_batched_tokens = rows}, /*num_blocks=*/24);
    std::vector<Ticket> together;
    for (int32_t i = 0; i < 6; ++i) together.push_back(server.Submit(MakePrompt(9 + 5 * i, i), 12 + i));
    server.Run();
    EXPECT_GT(server.engine->Snapshot().preemptions, 0);
    for (size_t i = 0; i < alone.size(); ++i) ExpectSameAnswer(together[i], alone[i]);
  }
}

// A hit is a miss: of the same prompt, of one that goes on behind it, and of one that another request generated.
TEST_P(EngineRoutingTest, CachedPromptsChangeNothing) {
  const std::vector<int32_t> prompt = MakePrompt(31, 2);
  Server server(GetParam());
  const Ticket miss = server.Submit(prompt, 20);
  server.Run();
  const Ticket hit = server.Submit(prompt, 20);
  server.Run();
  EXPECT_GE(hit.sink->summary().usage.cached_prompt_tokens, 24);
  ExpectSameAnswer(hit, miss);
  std::vector<int32_t> longer = miss.prompt;
  const std::vector<int32_t> generated = miss.sink->sequences().at(0).token_ids;
  longer.insert(longer.end(), generated.begin(), generated.end());
  const Ticket after = server.Submit(longer, 9);
  server.Run();
  Server fresh(GetParam());
  const Ticket expected = fresh.Submit(longer, 9);
  fresh.Run();
  ExpectSameAnswer(after, expected);
}

TEST_P(EngineRoutingTest, SiblingsAreAsTheyAreWithoutNeighbors) {
  Server single(GetParam());
  const Ticket alone = single.Submit(MakePrompt(30, 1), 12, /*num_sequences=*/3);
  single.Run();
  Server server(GetParam(), {.max_num_batched_tokens = 24}, /*num_blocks=*/40);
  server.Submit(MakePrompt(50, 2), 20);
  const Ticket ticket = server.Submit(MakePrompt(30, 1), 12, /*num_sequences=*/3);
  server.Run();
  for (int32_t index = 0; index < 3; ++index) ExpectSameAnswer(ticket, alone, index);
}

// What requests are told adds up to what experts did.
TEST_P(EngineRoutingTest, RequestsAddUpToTheStatistics) {
  Server server(GetParam());
  std::vector<Ticket> tickets;
  for (int32_t i = 0; i < 4; ++i) tickets.push_back(server.Submit(MakePrompt(5 + 9 * i, i), 10));
  server.Run();
  int64_t told = 0;
  for (const Ticket& ticket : tickets) told += ticket.sink->summary().routing.total();
  int64_t counted = 0;
  for (const LayerCounters& layer : server.engine->expert_stats().Snapshot().total) {
    for (const int64_t count : layer.processed) counted += count;
  }
  EXPECT_EQ(told, counted);
  EXPECT_EQ(counted, server.engine->Snapshot().routed_assignments);
}

// A choice that was not made is told as such, behind those that were.
TEST_P(EngineRoutingTest, ToldExpertsAreThoseThatAreCounted) {
  Server server(GetParam());
  Ticket ticket{.prompt = MakePrompt(30, 1)};
  for (int32_t& token : ticket.prompt) token %= kSmallVocabSize;
  Request request = Server::MakeRequest(ticket, 12);
  request.wants_routed_experts = true;
  ASSERT_TRUE(server.engine->Submit(std::move(request)).ok());
  server.Run();
  const RoutedExperts told = ticket.sink->summary().routed_experts;
  const RunnerLimits& limits = server.engine->limits();
  ASSERT_EQ(std::ssize(told.expert_ids), (30 + 12 - 1) * limits.num_moe_layers * limits.top_k);
  int64_t num_told = 0;
  for (size_t i = 0; i < told.expert_ids.size(); ++i) {
    if (told.expert_ids[i] == kNoExpert) {
      EXPECT_EQ(told.weights[i], 0.0f);
      continue;
    }
    EXPECT_GE(told.expert_ids[i], 0);
    EXPECT_LT(told.expert_ids[i], limits.num_experts);
    const bool is_first = i % static_cast<size_t>(limits.top_k) == 0;
    EXPECT_TRUE(is_first || told.expert_ids[i - 1] != kNoExpert);
    ++num_told;
  }
  EXPECT_EQ(num_told, ticket.sink->summary().routing.total());
  if (limits.min_k != kAlwaysTopK) {
    EXPECT_LT(num_told, std::ssize(told.expert_ids));
  }
}

// Noise, hashes and biases are those of the layer.
TEST(EngineRoutingLayerTest, EachLayerHasItsOwn) {
  const auto told = [](const std::string& scheme) {
    Server server(scheme);
    Ticket ticket{.prompt = MakePrompt(40, 1)};
    for (int32_t& token : ticket.prompt) token %= kSmallVocabSize;
    Request request = Server::MakeRequest(ticket, 1);
    request.wants_routed_experts = true;
    EXPECT_TRUE(server.engine->Submit(std::move(request)).ok());
    server.Run();
    return ticket.sink->summary().routed_experts;
  };
  // Positions where the first choices of both layers are the same.
  const auto num_same = [](const RoutedExperts& routed) {
    const auto at = [&](int64_t position, int64_t layer) {
      return routed.expert_ids.at(static_cast<size_t>((position * routed.num_layers + layer) * routed.top_k));
    };
    int count = 0;
    for (int64_t position = 0; position < 40; ++position) count += at(position, 0) == at(position, 1) ? 1 : 0;
    return count;
  };
  EXPECT_LT(num_same(told("hash")), 25) << "of 40, with 6 experts";
  EXPECT_LT(num_same(told("noisy-top-k,noise=1000")), 25);
  const RoutedExperts biased =
      told(R"({"scheme": "sigmoid-bias", "top_k": 1, "selection_bias": [[0, 9, 0, 0, 0, 0], [0, 0, 0, 0, 9, 0]]})");
  ASSERT_EQ(biased.num_layers, 2);
  for (size_t i = 0; i < biased.expert_ids.size(); ++i) EXPECT_EQ(biased.expert_ids[i], i % 2 == 0 ? 1 : 4);
}

INSTANTIATE_TEST_SUITE_P(Schemes, EngineRoutingTest,
                         testing::Values("switch", "noisy-top-k,noise=0.7", "hash", "top-p,p=0.6,k_max=4",
                                         "threshold,tau=0.15,k_max=4", "expert-choice,group=8,capacity_factor=1.5"),
                         [](const auto& param_info) {
                           std::string name = param_info.param.substr(0, param_info.param.find(','));
                           std::erase_if(name, [](char c) { return c == '-'; });
                           return name;
                         });

TEST(EngineExpertChoiceTest, WhatNeedsPartsOfGroupsIsRefused) {
  Server server("expert-choice,group=8");
  const Ticket ticket{.prompt = {1, 2, 3}};
  Request request = Server::MakeRequest(ticket, 2);
  request.prompt_logprobs = 1;
  EXPECT_EQ(server.engine->Submit(std::move(request)).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(server.engine->SetCapacityPolicy({.scope = CapacityScope::kRequest}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(EngineRouterBiasTest, IsNudgedReportedAndPutBack) {
  const std::string scheme = "softmax-top-k,top_k=1,normalize=before";
  Server plain(scheme);
  const Ticket before = plain.Submit(MakePrompt(40, 3), 20);
  plain.Run();
  EXPECT_EQ(plain.engine->router_bias().bias.size(), 0u);
  EXPECT_EQ(plain.engine->ResetRouterBias().code(), absl::StatusCode::kFailedPrecondition);

  EngineOptions options = {.prefix_cache = PrefixCacheScope::kOff};
  options.bias_balancing = {.rate = 0.05, .window_tokens = 30, .limit = 0.4};
  Server server(scheme, options);
  EXPECT_EQ(server.engine->router_bias().num_updates, 0);
  const auto imbalance = [](const std::vector<LayerCounters>& layers) {
    return ComputeRouterHealth(layers[0]).load_imbalance;
  };
  double first = 0.0;
  for (int32_t i = 0; i < 20; ++i) {
    server.Submit(MakePrompt(60, i), 20);
    server.Run();
    const ExpertSnapshot last = server.engine->expert_stats().Reset();
    if (i == 0) first = imbalance(last.total);
    if (i == 19) {
      EXPECT_LT(imbalance(last.total), first);
    }
  }
  const RouterBiasReport report = server.engine->router_bias();
  EXPECT_GE(report.num_updates, 20);
  EXPECT_GT(report.largest_nudge, 0.0f);
  EXPECT_LE(report.largest_nudge, 0.4f);
  EXPECT_EQ(server.engine->Snapshot().router_bias_updates, report.num_updates);
  const Ticket nudged = server.Submit(MakePrompt(40, 3), 20);
  server.Run();
  EXPECT_NE(nudged.sink->sequences().at(0).logprobs.at(0).logprob,
            before.sink->sequences().at(0).logprobs.at(0).logprob);

  ASSERT_TRUE(server.engine->ResetRouterBias().ok());
  EXPECT_EQ(server.engine->router_bias().num_updates, 0) << "told at once";
  EXPECT_THAT(server.engine->router_bias().bias, testing::Each(0.0f));
  const Ticket again = server.Submit(before.prompt, 20);
  server.engine->Step();
  EXPECT_EQ(server.engine->router_bias().num_updates, 1) << "the window after the reset has ended with its prompt";
  server.Run();
  EXPECT_EQ(again.sink->sequences().at(0).logprobs.at(0).logprob,
            before.sink->sequences().at(0).logprobs.at(0).logprob);
}

// What was computed under a nudged bias is not found after the reset, and what was computed after it is.
TEST(EngineRouterBiasTest, AResetLeavesNothingInTheCache) {
  const std::string scheme = "softmax-top-k,top_k=1,normalize=before";
  Server plain(scheme);
  const Ticket before = plain.Submit(MakePrompt(40, 3), 20);
  plain.Run();

  Server server(scheme, {.bias_balancing = {.rate = 0.05, .window_tokens = 30, .limit = 0.4}});
  for (int32_t i = 4; i < 24; ++i) server.Submit(MakePrompt(60, i), 20);
  server.Run();
  const Ticket nudged = server.Submit(before.prompt, 20);
  server.Run();
  EXPECT_NE(nudged.sink->sequences().at(0).logprobs.at(0).logprob,
            before.sink->sequences().at(0).logprobs.at(0).logprob);
  ASSERT_TRUE(server.engine->ResetRouterBias().ok());
  const Ticket again = server.Submit(before.prompt, 20);
  server.Run();
  EXPECT_EQ(again.sink->summary().usage.cached_prompt_tokens, 0);
  EXPECT_EQ(again.sink->sequences().at(0).logprobs.at(0).logprob,
            before.sink->sequences().at(0).logprobs.at(0).logprob);
  const Ticket later = server.Submit(before.prompt, 20);
  server.Run();
  EXPECT_GT(later.sink->summary().usage.cached_prompt_tokens, 0);
}

}  // namespace
}  // namespace cadre
