// The experts of each token, as a request is told them: complete and the same whatever the steps were.
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "engine/routing_record.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

void Want(Request& request) { request.wants_routed_experts = true; }

RoutedExperts Told(const Ticket& ticket, int32_t index = 0) {
  return ticket.sink->sequences().at(index).summary.routed_experts;
}

void ExpectSame(const RoutedExperts& got, const RoutedExperts& want) {
  EXPECT_EQ(got.num_layers, want.num_layers);
  EXPECT_EQ(got.top_k, want.top_k);
  EXPECT_EQ(got.expert_ids, want.expert_ids);
  EXPECT_EQ(got.weights, want.weights);
}

TEST(RoutedExpertsTest, AllTokensButTheLastAreTold) {
  TransformerEngine server;
  const Ticket ticket = server.Submit(MakePrompt(30, 1), 12, {}, Want);
  const Ticket other = server.Submit(MakePrompt(20, 2), 5);
  server.Run();
  const RoutedExperts told = Told(ticket);
  const RunnerLimits& limits = server.engine->limits();
  EXPECT_EQ(told.num_layers, limits.num_moe_layers);
  EXPECT_EQ(told.top_k, limits.top_k);
  const auto of_token = static_cast<size_t>(limits.num_moe_layers * limits.top_k);
  ASSERT_EQ(told.expert_ids.size(), (30 + 12 - 1) * of_token);
  ASSERT_EQ(told.weights.size(), told.expert_ids.size());
  EXPECT_TRUE(Told(other).expert_ids.empty()) << "who does not ask is not told";
  for (size_t begin = 0; begin < told.expert_ids.size(); begin += static_cast<size_t>(limits.top_k)) {
    const auto first = told.expert_ids.begin() + static_cast<std::ptrdiff_t>(begin);
    const std::set<int32_t> row(first, first + limits.top_k);
    EXPECT_EQ(row.size(), static_cast<size_t>(limits.top_k));
    EXPECT_GE(*row.begin(), 0);
    EXPECT_LT(*row.rbegin(), limits.num_experts);
  }
}

// Expert by expert, layer by layer.
TEST(RoutedExpertsTest, TheyAddUpToTheStatistics) {
  TransformerEngine server;
  const RoutedExperts told = [&] {
    const Ticket ticket = server.Submit(MakePrompt(40, 3), 20, {}, Want);
    server.Run();
    return Told(ticket);
  }();
  const ExpertSnapshot snapshot = server.engine->expert_stats().Snapshot();
  for (int32_t layer = 0; layer < told.num_layers; ++layer) {
    std::vector<int64_t> counts(static_cast<size_t>(snapshot.num_experts));
    std::vector<double> weights(counts.size());
    for (size_t i = 0; i < told.expert_ids.size(); ++i) {
      if (static_cast<int32_t>(i) / told.top_k % told.num_layers != layer) continue;
      ++counts.at(static_cast<size_t>(told.expert_ids[i]));
      weights.at(static_cast<size_t>(told.expert_ids[i])) += static_cast<double>(told.weights[i]);
    }
    EXPECT_EQ(counts, snapshot.total.at(static_cast<size_t>(layer)).processed);
    EXPECT_THAT(weights, testing::Pointwise(testing::DoubleNear(1e-6),
                                            snapshot.total.at(static_cast<size_t>(layer)).gate_weight));
  }
}

// Small chunks, and so few blocks that requests are preempted; limits, which come behind the choice and change what
// later layers see.
TEST(RoutedExpertsTest, ChunksPreemptionAndNeighborsChangeNothing) {
  for (const CapacityScope scope : {CapacityScope::kOff, CapacityScope::kRequest}) {
    const CapacityPolicy policy = {
        .scope = scope, .overflow = Overflow::kReroute, .factor = 0.75, .min_places = 1, .group_tokens = 8};
    TransformerEngine crowded(policy, {.max_num_batched_tokens = 9}, /*num_blocks=*/24);
    std::vector<Ticket> together;
    for (int32_t i = 0; i < 6; ++i) together.push_back(crowded.Submit(MakePrompt(9 + 5 * i, i), 12 + i, {}, Want));
    crowded.Run();
    EXPECT_GT(crowded.engine->Snapshot().preemptions, 0);
    for (int32_t i = 0; i < 6; ++i) {
      SCOPED_TRACE(i);
      TransformerEngine server(policy);
      const Ticket alone = server.Submit(MakePrompt(9 + 5 * i, i), 12 + i, {}, Want);
      server.Run();
      ExpectSameAnswer(together[static_cast<size_t>(i)], alone);
      ExpectSame(Told(together[static_cast<size_t>(i)]), Told(alone));
    }
  }
}

// Neither does who has computed the prompt before, and each sibling is told all.
TEST(RoutedExpertsTest, NothingIsFoundAndNothingIsLeft) {
  TransformerEngine server;
  const Ticket before = server.Submit(MakePrompt(31, 2), 9);
  server.Run();
  const auto three = [](Request& request) {
    Want(request);
    request.num_sequences = 3;
    request.sampling.temperature = 0.0f;
  };
  const Ticket ticket = server.Submit(MakePrompt(31, 2), 9, {}, three);
  server.Run();
  ASSERT_EQ(ticket.sink->sequences().size(), 3u);
  for (int32_t index = 0; index < 3; ++index) {
    EXPECT_EQ(ticket.sink->sequences().at(index).summary.usage.cached_prompt_tokens, 0);
    ExpectSame(Told(ticket, index), Told(ticket));
  }
  EXPECT_FALSE(Told(ticket).expert_ids.empty());
  const Ticket other = server.Submit(MakePrompt(33, 5), 9, {}, Want);
  server.Run();
  const Ticket later = server.Submit(MakePrompt(33, 5), 9);
  server.Run();
  EXPECT_EQ(later.sink->summary().usage.cached_prompt_tokens, 0);
}

TEST(RoutingRecordTest, RowsStandWhereTheirTokensDo) {
  constexpr int64_t kRows = 3;
  ForwardResult step;  // 2 layers, 3 rows, K = 2
  for (int32_t i = 0; i < 12; ++i) {
    step.chosen_ids.push_back(i);
    step.chosen_weights.push_back(0.5f * static_cast<float>(i));
  }
  RoutingRecord record(/*num_layers=*/2, /*top_k=*/2);
  record.Add(step, kRows, /*first_row=*/1, {.sequence = 0, .begin = 0, .count = 2});
  EXPECT_THAT(record.routed().expert_ids, testing::ElementsAre(2, 3, 8, 9, 4, 5, 10, 11));
  record.Add(step, kRows, /*first_row=*/0, {.sequence = 0, .begin = 2, .count = 1});
  EXPECT_THAT(record.routed().expert_ids, testing::ElementsAre(2, 3, 8, 9, 4, 5, 10, 11, 0, 1, 6, 7));
  // Again from the second token on.
  record.Add(step, kRows, /*first_row=*/0, {.sequence = 0, .begin = 1, .count = 1});
  EXPECT_THAT(record.routed().expert_ids, testing::ElementsAre(2, 3, 8, 9, 0, 1, 6, 7, 0, 1, 6, 7));
  EXPECT_EQ(record.routed().weights.at(2), 4.0f);
  EXPECT_EQ(record.routed().weights.size(), 12u);
}

TEST(RoutingRecordTest, WhatWasNotChosenIsTold) {
  ForwardResult step;
  step.chosen_ids = {3, kPadding, kPadding, kPadding};
  step.chosen_weights = {0.5f, 0.0f, 0.0f, 0.0f};
  RoutingRecord record(/*num_layers=*/1, /*top_k=*/2);
  record.Add(step, /*num_rows=*/2, /*first_row=*/0, {.sequence = 0, .begin = 0, .count = 2});
  EXPECT_THAT(record.routed().expert_ids, testing::ElementsAre(3, kNoExpert, kNoExpert, kNoExpert));
  EXPECT_THAT(record.routed().weights, testing::ElementsAre(0.5f, 0.0f, 0.0f, 0.0f));
}

}  // namespace
}  // namespace cadre
