// Limited experts, over the real transformer: with the scope `request` an answer does not depend on neighbors that want
// the same experts, on chunks, preemption or cached prompts, bit for bit; and every assignment is accounted for.
// CADRE_CAPACITY_ATTACKS in the environment makes the attacks more.
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

CapacityPolicy Limit(Overflow overflow, CapacityScope scope = CapacityScope::kRequest) {
  return {.scope = scope, .overflow = overflow, .factor = 0.75, .min_places = 1, .group_tokens = 8};
}
constexpr Overflow kOverflows[] = {Overflow::kDrop, Overflow::kReweight, Overflow::kReroute};

void ExpectSameCounts(const RoutingReport& got, const RoutingReport& want) {
  EXPECT_EQ(got.processed, want.processed);
  EXPECT_EQ(got.rerouted, want.rerouted);
  EXPECT_EQ(got.reweighted, want.reweighted);
  EXPECT_EQ(got.dropped, want.dropped);
  EXPECT_NEAR(got.lost_gate_weight, want.lost_gate_weight, 1e-8);
  EXPECT_NEAR(got.total_gate_weight, want.total_gate_weight, 1e-8);
}

Ticket ServeAlone(const CapacityPolicy& policy, const std::vector<int32_t>& prompt, int32_t max_tokens,
                  ModelFamily family = ModelFamily::kOlmoe) {
  TransformerEngine server(policy, {}, 200, family);
  Ticket ticket = server.Submit(prompt, max_tokens);
  server.Run();
  return ticket;
}

int NumAttacks() {
  int count = 1000;
  const char* const text = std::getenv("CADRE_CAPACITY_ATTACKS");
  EXPECT_TRUE(text == nullptr || absl::SimpleAtoi(text, &count)) << text;
  return count;
}

// An attacker says one token, so that in the first layer all its rows want the same experts. They come before the
// victim and in the middle of its work, and some leave early.
TEST(EngineCapacityTest, AnAttackDoesNotReachAnotherRequest) {
  std::mt19937 random(3);
  int num_limited = 0;
  for (int attack = 0; attack < NumAttacks(); ++attack) {
    SCOPED_TRACE(attack);
    const CapacityPolicy policy = Limit(kOverflows[attack % 3]);
    const std::vector<int32_t> prompt = MakePrompt(1 + static_cast<int32_t>(random() % 40), attack);
    const int32_t max_tokens = 1 + static_cast<int32_t>(random() % 20);
    const Ticket alone = ServeAlone(policy, prompt, max_tokens);
    TransformerEngine server(policy, {.max_num_batched_tokens = 16 + static_cast<int32_t>(random() % 40)});
    // What an attacker may choose for itself.
    const std::optional<CapacityPolicy> policies[] = {
        std::nullopt, CapacityPolicy(), Limit(kOverflows[random() % 3]),
        CapacityPolicy{.scope = CapacityScope::kRequest, .overflow = Overflow::kReroute, .factor = 1000.0}};
    std::vector<Ticket> attackers;
    for (int i = 0; i < 3; ++i) {
      attackers.push_back(server.Submit(std::vector<int32_t>(20 + random() % 60, static_cast<int32_t>(random() % 101)),
                                        1 + static_cast<int32_t>(random() % 9), policies[random() % 4]));
    }
    for (uint32_t i = random() % 3; i > 0; --i) server.engine->Step();
    const Ticket victim = server.Submit(prompt, max_tokens);
    server.engine->Step();
    attackers[0].cancel->Cancel();
    server.Run();
    ExpectSameAnswer(victim, alone);
    ExpectSameCounts(victim.sink->summary().routing, alone.sink->summary().routing);
    const RoutingReport routing = victim.sink->summary().routing;
    num_limited += routing.processed < routing.total() ? 1 : 0;
    if (HasFailure()) return;
  }
  EXPECT_GT(num_limited, NumAttacks() / 4) << "victims that had nothing to lose prove nothing";
}

// The same attack under the scope `batch`: it does reach others, and the report says what happened.
TEST(EngineCapacityTest, InABatchAnAttackIsFeltAndReported) {
  const CapacityPolicy policy = Limit(Overflow::kDrop, CapacityScope::kBatch);
  const std::vector<int32_t> prompt = MakePrompt(20, 4);
  const Ticket alone = ServeAlone(policy, prompt, 6);
  TransformerEngine server(policy);
  const Ticket victim = server.Submit(prompt, 6);
  server.Submit(std::vector<int32_t>(40, victim.prompt[3]), 6);
  server.Run();
  const RoutingReport with = victim.sink->summary().routing;
  const RoutingReport without = alone.sink->summary().routing;
  EXPECT_EQ(with.total(), without.total());
  EXPECT_GT(with.dropped, 0);
  EXPECT_NE(with.dropped, without.dropped);
  EXPECT_GT(with.lost_gate_weight, 0.0);
  EXPECT_LT(with.fidelity(), 1.0);
}

class EngineCapacityFamilyTest : public testing::TestWithParam<ModelFamily> {};

// Small chunks, and so few blocks that requests are preempted and computed again.
TEST_P(EngineCapacityFamilyTest, ChunksAndPreemptionChangeNothing) {
  for (const Overflow overflow : kOverflows) {
    SCOPED_TRACE(static_cast<int>(overflow));
    std::vector<Ticket> alone;
    for (int32_t i = 0; i < 6; ++i) {
      alone.push_back(ServeAlone(Limit(overflow), MakePrompt(9 + 5 * i, i), 12 + i, GetParam()));
    }
    for (const int32_t rows : {9, 64}) {
      TransformerEngine server(Limit(overflow), {.max_num_batched_tokens = rows}, /*num_blocks=*/24, GetParam());
      std::vector<Ticket> together;
      for (int32_t i = 0; i < 6; ++i) together.push_back(server.Submit(MakePrompt(9 + 5 * i, i), 12 + i));
      server.Run();
      EXPECT_GT(server.engine->Snapshot().preemptions, 0);
      for (size_t i = 0; i < alone.size(); ++i) ExpectSameAnswer(together[i], alone[i]);
    }
  }
}

// A hit ends where a group does, and what was computed under another policy is no hit.
TEST_P(EngineCapacityFamilyTest, AHitIsAMiss) {
  const std::vector<int32_t> prompt = MakePrompt(31, 2);
  for (const Overflow overflow : kOverflows) {
    SCOPED_TRACE(static_cast<int>(overflow));
    TransformerEngine server(Limit(overflow), {}, 200, GetParam());
    const Ticket miss = server.Submit(prompt, 9);
    server.Run();
    const Ticket hit = server.Submit(prompt, 9);
    server.Run();
    EXPECT_EQ(hit.sink->summary().usage.cached_prompt_tokens, 24) << "3 groups of 8, but 7 blocks of 4 are known";
    ExpectSameAnswer(hit, miss);
    ASSERT_TRUE(server.engine->SetCapacityPolicy({}).ok());
    const Ticket unlimited = server.Submit(prompt, 9);
    server.Run();
    EXPECT_EQ(unlimited.sink->summary().usage.cached_prompt_tokens, 0);
    ExpectSameAnswer(unlimited, ServeAlone({}, prompt, 9, GetParam()));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, EngineCapacityFamilyTest,
                         testing::Values(ModelFamily::kOlmoe, ModelFamily::kQwen2Moe, ModelFamily::kQwen3Moe,
                                         ModelFamily::kMixtral),
                         [](const auto& param_info) { return std::string(ModelFamilyName(param_info.param)); });

// Among limited neighbors, in the same steps.
TEST(EngineCapacityTest, WhoDemandsItLosesNothing) {
  const Ticket alone = ServeAlone({}, MakePrompt(30, 1), 12);
  TransformerEngine server(Limit(Overflow::kDrop));
  const Ticket neighbor = server.Submit(MakePrompt(30, 1), 12);
  const Ticket dropless = server.Submit(MakePrompt(30, 1), 12, CapacityPolicy());
  server.Run();
  ExpectSameAnswer(dropless, alone);
  EXPECT_EQ(dropless.sink->summary().routing.processed, dropless.sink->summary().routing.total());
  EXPECT_EQ(dropless.sink->summary().routing.fidelity(), 1.0);
  EXPECT_GT(neighbor.sink->summary().routing.dropped, 0);
}

// The siblings of a request find what the first has computed, up to where a group begins. Without chance each says what
// a request of one sequence says; in a batch they are neighbors, and share nothing.
TEST(EngineCapacityTest, SiblingsAreAsIfAlone) {
  const auto three = [](Request& request) {
    request.num_sequences = 3;
    request.sampling.temperature = 0.0f;
  };
  for (const Overflow overflow : kOverflows) {
    SCOPED_TRACE(static_cast<int>(overflow));
    TransformerEngine single(Limit(overflow));
    const Ticket alone =
        single.Submit(MakePrompt(30, 1), 12, {}, [](Request& request) { request.sampling.temperature = 0.0f; });
    single.Run();
    TransformerEngine server(Limit(overflow), {}, /*num_blocks=*/40);
    const Ticket ticket = server.Submit(MakePrompt(30, 1), 12, {}, three);
    server.Submit(MakePrompt(50, 2), 20);
    server.Run();
    ASSERT_EQ(ticket.sink->sequences().size(), 3u);
    for (const auto& [index, sequence] : ticket.sink->sequences()) {
      EXPECT_EQ(sequence.token_ids, alone.sink->sequences().at(0).token_ids) << index;
      EXPECT_EQ(sequence.summary.usage.cached_prompt_tokens, index == 0 ? 0 : 24) << "3 groups of 8";
    }
    TransformerEngine batch(Limit(overflow, CapacityScope::kBatch));
    const Ticket neighbors = batch.Submit(MakePrompt(30, 1), 12, {}, three);
    batch.Run();
    ASSERT_EQ(neighbors.sink->sequences().size(), 3u);
    for (const auto& [index, sequence] : neighbors.sink->sequences()) {
      EXPECT_TRUE(sequence.summary.status.ok());
      EXPECT_EQ(sequence.summary.usage.cached_prompt_tokens, 0);
    }
  }
}

// Enough places for everybody: nothing changes, to the bit.
TEST(EngineCapacityTest, RoomForAllIsAsIfThereWereNoLimit) {
  CapacityPolicy roomy = Limit(Overflow::kReroute);
  roomy.factor = 1000.0;
  const Ticket limited = ServeAlone(roomy, MakePrompt(30, 1), 12);
  ExpectSameAnswer(limited, ServeAlone({}, MakePrompt(30, 1), 12));
  EXPECT_EQ(limited.sink->summary().routing.lost_gate_weight, 0.0);
  EXPECT_GT(limited.sink->summary().routing.total_gate_weight, 0.0);
}

// The sum over requests is what the statistics say, state by state and to the last assignment.
TEST(EngineCapacityTest, RequestsAddUpToTheStatistics) {
  TransformerEngine server(Limit(Overflow::kDrop));
  std::vector<Ticket> tickets;
  for (int32_t i = 0; i < 9; ++i) {
    std::optional<CapacityPolicy> policy;
    if (i % 3 == 1) policy = CapacityPolicy();
    if (i % 3 == 2) policy = Limit(kOverflows[1 + i / 3 % 2]);
    tickets.push_back(server.Submit(MakePrompt(8 + 3 * i, i), 10, policy,
                                    [&](Request& request) { request.tenant = i < 4 ? "early" : ""; }));
  }
  server.Run();
  RoutingReport early;
  RoutingReport sum;
  for (size_t i = 0; i < tickets.size(); ++i) {
    const FinishSummary summary = tickets[i].sink->summary();
    sum += summary.routing;
    if (i < 4) early += summary.routing;
    EXPECT_GT(summary.routing.total_gate_weight, 0.0) << "also of those that are not limited";
    EXPECT_EQ(summary.capacity.is_on(), i % 3 != 1);
  }
  const std::vector<TenantRouting> tenants = server.engine->Tenants();
  ASSERT_EQ(tenants.size(), 3u);
  EXPECT_EQ(tenants[1].routing.total(), 0);
  EXPECT_EQ(tenants[2].tenant, "early");
  ExpectSameCounts(tenants[2].routing, early);
  RoutingReport of_tenants = tenants[0].routing;
  of_tenants += tenants[2].routing;
  ExpectSameCounts(of_tenants, sum);
  RoutingReport counted;
  const ExpertSnapshot snapshot = server.engine->expert_stats().Snapshot();
  for (const LayerCounters& layer : snapshot.total) {
    int64_t of_layer = 0;
    for (size_t e = 0; e < layer.processed.size(); ++e) {
      counted.processed += layer.processed[e];
      counted.rerouted += layer.rerouted[e];
      counted.reweighted += layer.reweighted[e];
      counted.dropped += layer.dropped[e];
      counted.lost_gate_weight += layer.lost_gate_weight[e];
      counted.total_gate_weight += layer.gate_weight[e];
      of_layer += layer.processed[e] + layer.rerouted[e] + layer.reweighted[e] + layer.dropped[e];
    }
    EXPECT_EQ(of_layer, layer.tokens * snapshot.top_k);
  }
  for (const int64_t count : {sum.rerouted, sum.reweighted, sum.dropped}) EXPECT_GT(count, 0);
  ExpectSameCounts(sum, counted);
}

TEST(EngineCapacityTest, APolicyHoldsForRequestsThatComeLater) {
  TransformerEngine server(Limit(Overflow::kDrop));
  const Ticket early = server.Submit(MakePrompt(30, 1), 12);
  const absl::StatusOr<CapacityPolicy> before = server.engine->SetCapacityPolicy({});
  ASSERT_TRUE(before.ok());
  EXPECT_EQ(*before, Limit(Overflow::kDrop));
  const Ticket late = server.Submit(MakePrompt(30, 3), 12);
  server.Run();
  EXPECT_GT(early.sink->summary().routing.dropped, 0);
  EXPECT_EQ(late.sink->summary().routing.dropped, 0);
}

// Whoever says only a part means the rest of the policy that holds when the request is submitted, not when it was made.
TEST(EngineCapacityTest, WhatARequestSaysIsSaidOfThePolicyAtSubmit) {
  TransformerEngine server(Limit(Overflow::kDrop));
  std::vector<CapacityPolicy> asked;
  const auto edit = [&](Request& request) {
    request.choose_capacity = [&](const CapacityPolicy& own) -> absl::StatusOr<CapacityPolicy> {
      asked.push_back(own);
      CapacityPolicy wanted = own;
      wanted.min_places = 7;
      return wanted;
    };
    ASSERT_TRUE(server.engine->SetCapacityPolicy(Limit(Overflow::kReroute)).ok());  // meanwhile
  };
  const Ticket ticket = server.Submit(MakePrompt(30, 1), 4, {}, edit);
  server.Run();
  EXPECT_EQ(asked, std::vector<CapacityPolicy>{Limit(Overflow::kReroute)});
  CapacityPolicy expected = Limit(Overflow::kReroute);
  expected.min_places = 7;
  EXPECT_EQ(ticket.sink->summary().capacity, expected);
  const auto fails = [](Request& request) {
    request.choose_capacity = [](const CapacityPolicy&) { return absl::InvalidArgumentError("of the request"); };
  };
  EXPECT_EQ(server.TrySubmit(ticket, 1, {}, fails), absl::InvalidArgumentError("of the request"));
}

TEST(EngineCapacityTest, WhatIsNotToBeHadIsRefused) {
  CapacityPolicy broken = Limit(Overflow::kDrop);
  broken.factor = -1.0;
  TransformerEngine server(Limit(Overflow::kDrop));
  const Ticket ticket{.prompt = {1, 2}};
  EXPECT_EQ(server.engine->SetCapacityPolicy(broken).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server.engine->capacity_policy(), Limit(Overflow::kDrop));
  EXPECT_EQ(server.TrySubmit(ticket, 1, broken).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server.TrySubmit(ticket, 1, Limit(Overflow::kDrop, CapacityScope::kBatch)).code(),
            absl::StatusCode::kFailedPrecondition);
  TransformerEngine strict(Limit(Overflow::kDrop), {.allow_capacity_override = false});
  EXPECT_EQ(strict.TrySubmit(ticket, 1, CapacityPolicy()).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(strict.TrySubmit(ticket, 1, Limit(Overflow::kDrop)).ok()) << "what it would get anyway";
  ASSERT_TRUE(strict.engine->SetCapacityPolicy({.scope = CapacityScope::kOff, .factor = 3.0}).ok());
  EXPECT_TRUE(strict.TrySubmit(ticket, 1, CapacityPolicy()).ok()) << "off is off";
  strict.Run();
}

TEST(EngineCapacityTest, ARunnerThatCannotSaysSo) {
  EngineHarness harness;
  EXPECT_EQ(harness.engine->SetCapacityPolicy(Limit(Overflow::kDrop)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(harness.engine->SetCapacityPolicy({}).ok());
}

}  // namespace
}  // namespace cadre
