// Requests that are routed by recorded choices: they get the answer that was recorded with them, whatever runs beside
// them, and nobody else notices.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/request/refusal.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

using testing::HasSubstr;

RoutedExperts Told(const Ticket& ticket, int32_t index = 0) {
  return ticket.sink->sequences().at(index).summary.routed_experts;
}

void ExpectSame(const RoutedExperts& got, const RoutedExperts& want) {
  ASSERT_FALSE(want.expert_ids.empty());
  EXPECT_EQ(got.expert_ids, want.expert_ids);
  EXPECT_EQ(got.weights, want.weights);
}

TransformerEngine::Edit Replaying(const RoutedExperts& record, bool uses_recorded_weights, int32_t first_position = 0) {
  auto replay = std::make_shared<RoutingReplay>();
  replay->first_position = first_position;
  replay->uses_recorded_weights = uses_recorded_weights;
  replay->record = record;
  if (!uses_recorded_weights) replay->record.weights.clear();
  return [replay](Request& request) {
    request.replay = replay;
    request.wants_routed_experts = true;
  };
}

void Record(Request& request) { request.wants_routed_experts = true; }

// The positions [begin, end) of a record.
RoutedExperts Part(const RoutedExperts& record, int64_t begin, int64_t end) {
  const int64_t of_token = int64_t{record.num_layers} * record.top_k;
  RoutedExperts part = {.num_layers = record.num_layers, .top_k = record.top_k};
  part.expert_ids.assign(record.expert_ids.begin() + begin * of_token, record.expert_ids.begin() + end * of_token);
  part.weights.assign(record.weights.begin() + begin * of_token, record.weights.begin() + end * of_token);
  return part;
}

class ReplaySchemeTest : public testing::TestWithParam<std::string> {
 protected:
  static bool ExpertsChoose() { return GetParam().starts_with("expert-choice"); }
  static TransformerEngine Make(EngineOptions options = {}, int32_t num_blocks = 200) {
    return TransformerEngine({}, options, num_blocks, ModelFamily::kMixtral, GetParam());
  }
};

// Of the whole answer, of the prompt alone, and of some tokens in the middle.
TEST_P(ReplaySchemeTest, AnOwnRecordGivesTheSameAnswerAndTheSameRecord) {
  TransformerEngine server = Make();
  const Ticket recorded = server.Submit(MakePrompt(30, 1), 12, {}, Record);
  server.Run();
  const RoutedExperts record = Told(recorded);
  for (const bool uses_recorded_weights : {true, false}) {
    if (ExpertsChoose() && !uses_recorded_weights) continue;
    for (const auto& [begin, end] : {std::pair<int32_t, int32_t>{0, 41}, {0, 30}, {13, 35}}) {
      SCOPED_TRACE(testing::Message() << uses_recorded_weights << " " << begin << " " << end);
      const Ticket replayed =
          server.Submit(MakePrompt(30, 1), 12, {}, Replaying(Part(record, begin, end), uses_recorded_weights, begin));
      server.Run();
      ExpectSameAnswer(replayed, recorded);
      ExpectSame(Told(replayed), record);
    }
  }
}

// Experts that this model did not choose, under chunks, preemption and neighbors of all kinds.
TEST_P(ReplaySchemeTest, ChoicesOfAnotherAreMadeAndNothingElseMatters) {
  TransformerEngine first = Make();
  const Ticket other = first.Submit(MakePrompt(36, 5), 14, {}, Record);
  first.Run();
  const RoutedExperts record = Part(Told(other), 0, 30);
  const auto edit = [&](int32_t i) {
    return i % 3 == 2 ? TransformerEngine::Edit(Record) : Replaying(record, ExpertsChoose() || i % 3 == 1, i);
  };
  TransformerEngine crowded = Make({.max_num_batched_tokens = 17}, /*num_blocks=*/36);
  std::vector<Ticket> together;
  for (int32_t i = 0; i < 6; ++i) together.push_back(crowded.Submit(MakePrompt(25 + i, i), 14 + i, {}, edit(i)));
  crowded.Run();
  EXPECT_GT(crowded.engine->Snapshot().preemptions, 0);
  for (int32_t i = 0; i < 6; ++i) {
    SCOPED_TRACE(i);
    TransformerEngine server = Make();
    const Ticket alone = server.Submit(MakePrompt(25 + i, i), 14 + i, {}, edit(i));
    server.Run();
    ExpectSameAnswer(together[static_cast<size_t>(i)], alone);
    const RoutedExperts told = Told(alone);
    ExpectSame(Told(together[static_cast<size_t>(i)]), told);
    if (i % 3 == 2) continue;
    const RoutedExperts replayed = Part(told, i, i + 30);
    EXPECT_EQ(replayed.expert_ids, record.expert_ids);
    if (i % 3 == 1) {
      EXPECT_EQ(replayed.weights, record.weights);
    }
    // Routed as ever, it is another answer: the record says something.
    const Ticket usual = server.Submit(MakePrompt(25 + i, i), 14 + i, {}, Record);
    server.Run();
    EXPECT_NE(Told(usual).expert_ids, told.expert_ids);
    EXPECT_NE(usual.sink->sequences().at(0).logprobs.at(0).logprob,
              alone.sink->sequences().at(0).logprobs.at(0).logprob);
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, ReplaySchemeTest,
                         testing::Values("family", "sigmoid-bias,scaling_factor=2.5", "noisy-top-k,noise=0.7",
                                         "top-p,p=0.6,k_max=4", "threshold,tau=0.15",
                                         "expert-choice,group=8,capacity_factor=1.5"),
                         [](const auto& param_info) {
                           std::string name = param_info.param.substr(0, param_info.param.find(','));
                           std::erase_if(name, [](char c) { return c == '-'; });
                           return name;
                         });

// What is counted of a request are the replayed choices.
TEST(EngineReplayTest, StatisticsAreOfReplayedChoices) {
  TransformerEngine server;
  // Expert 1 before expert 0, everywhere.
  RoutedExperts record = {.num_layers = server.engine->limits().num_moe_layers, .top_k = server.engine->limits().top_k};
  for (int32_t i = 0; i < 20 * record.num_layers; ++i) {
    for (int32_t j = 0; j < record.top_k; ++j) {
      record.expert_ids.push_back(record.top_k - 1 - j);
      record.weights.push_back(0.125f * static_cast<float>(j + 1));
    }
  }
  const Ticket ticket = server.Submit(MakePrompt(20, 3), 1, {}, Replaying(record, true));
  server.Run();
  const ExpertSnapshot snapshot = server.engine->expert_stats().Snapshot();
  for (const LayerCounters& layer : snapshot.total) {
    for (int32_t e = 0; e < snapshot.num_experts; ++e) {
      const bool is_used = e < record.top_k;
      EXPECT_EQ(layer.processed.at(static_cast<size_t>(e)), is_used ? 20 : 0);
      EXPECT_EQ(layer.gate_weight.at(static_cast<size_t>(e)), is_used ? 20 * 0.125 * (record.top_k - e) : 0.0);
    }
  }
  EXPECT_EQ(ticket.sink->summary().routing.total(), 20 * record.num_layers * record.top_k);
}

// Limits come behind the choice, whoever made it.
TEST(EngineReplayTest, LimitsHoldForReplayedChoices) {
  const CapacityPolicy policy = {.scope = CapacityScope::kRequest,
                                 .overflow = Overflow::kReroute,
                                 .factor = 0.75,
                                 .min_places = 1,
                                 .group_tokens = 8};
  TransformerEngine server(policy);
  const Ticket recorded = server.Submit(MakePrompt(40, 3), 10, {}, Record);
  server.Run();
  EXPECT_GT(recorded.sink->summary().routing.rerouted, 0);
  const Ticket replayed = server.Submit(MakePrompt(40, 3), 10, {}, Replaying(Told(recorded), false));
  server.Run();
  ExpectSameAnswer(replayed, recorded);
  ExpectSame(Told(replayed), Told(recorded));
  EXPECT_EQ(replayed.sink->summary().routing.rerouted, recorded.sink->summary().routing.rerouted);
}

// The bias of a router has no say in what is replayed, neither in the choice nor in its weights.
TEST(EngineReplayTest, NudgedRoutersChangeNoReplayedRequest) {
  const std::string scheme = "sigmoid-bias,top_k=1,renormalize=false";
  TransformerEngine server({}, {.bias_balancing = {.rate = 0.05, .window_tokens = 30, .limit = 0.4}}, 200,
                           ModelFamily::kMixtral, scheme);
  const Ticket recorded = server.Submit(MakePrompt(40, 3), 20, {}, Record);
  server.Run();
  for (int32_t i = 4; i < 24; ++i) server.Submit(MakePrompt(60, i), 20);
  server.Run();
  EXPECT_GT(server.engine->router_bias().num_updates, 10);
  const Ticket usual = server.Submit(MakePrompt(40, 3), 20, {}, Record);
  server.Run();
  EXPECT_NE(Told(usual).expert_ids, Told(recorded).expert_ids);
  for (const bool uses_recorded_weights : {true, false}) {
    const Ticket replayed = server.Submit(MakePrompt(40, 3), 20, {}, Replaying(Told(recorded), uses_recorded_weights));
    server.Run();
    ExpectSame(Told(replayed), Told(recorded));
    EXPECT_EQ(replayed.sink->sequences().at(0).token_ids.front(), recorded.sink->sequences().at(0).token_ids.front());
    if (uses_recorded_weights) continue;
    ExpectSameAnswer(replayed, recorded);
  }
}

// Neither finds what others computed of the same tokens, nor leaves anything; but siblings share.
TEST(EngineReplayTest, CachedPromptsAreItsOwn) {
  TransformerEngine server;
  const Ticket recorded = server.Submit(MakePrompt(31, 2), 9, {}, Record);
  server.Run();
  const Ticket other = server.Submit(MakePrompt(25, 4), 9, {}, Record);
  server.Run();
  const Ticket before = server.Submit(MakePrompt(31, 2), 9);
  server.Run();
  const auto three = [&](Request& request) {
    Replaying(Part(Told(other), 0, 25), true)(request);
    request.wants_routed_experts = false;
    request.num_sequences = 3;
  };
  const Ticket ticket = server.Submit(MakePrompt(31, 2), 9, {}, three);
  server.Run();
  EXPECT_EQ(ticket.sink->sequences().at(0).summary.usage.cached_prompt_tokens, 0);
  EXPECT_GT(ticket.sink->sequences().at(2).summary.usage.cached_prompt_tokens, 0);
  const Ticket alone = server.Submit(MakePrompt(31, 2), 9, {}, Replaying(Part(Told(other), 0, 25), true));
  server.Run();
  ExpectSameAnswer(ticket, alone);
  const Ticket later = server.Submit(MakePrompt(31, 2), 9);
  server.Run();
  ExpectSameAnswer(later, before);
  EXPECT_GT(later.sink->summary().usage.cached_prompt_tokens, 0) << "of the one before";
}

TEST(EngineReplayTest, WhatDoesNotFitIsRefused) {
  TransformerEngine server;
  const Ticket recorded = server.Submit(MakePrompt(20, 1), 5, {}, Record);
  server.Run();
  const RoutedExperts record = Told(recorded);
  const Ticket ticket{.prompt = recorded.prompt};
  absl::Status status = server.TrySubmit(ticket, 4, {}, Replaying(record, true));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("replay_routing.record.expert_ids: positions 0 to 23, the request computes 0 to 22"));
  RoutedExperts wrong = record;
  wrong.expert_ids[3] = 99;
  status = server.TrySubmit(ticket, 5, {}, Replaying(wrong, true));
  EXPECT_THAT(std::string(status.message()), HasSubstr("replay_routing.record.expert_ids[3]: 99"));
  EXPECT_TRUE(server.TrySubmit(ticket, 5, {}, Replaying(record, true)).ok());
  server.Run();
}

// A record is given back with its request, however that ends.
TEST(EngineReplayTest, RecordsInFlightAreBounded) {
  TransformerEngine measure;
  const Ticket recorded = measure.Submit(MakePrompt(20, 1), 5, {}, Record);
  measure.Run();
  const RoutedExperts record = Told(recorded);
  const auto bytes = static_cast<int64_t>(record.expert_ids.size() * 8);
  TransformerEngine server({}, {.max_queue_requests = 2, .max_replay_bytes = 2 * bytes});
  const Ticket ticket{.prompt = recorded.prompt};
  const Ticket second{.prompt = recorded.prompt};
  const Ticket third{.prompt = recorded.prompt};
  EXPECT_TRUE(server.TrySubmit(ticket, 5, {}, Replaying(record, true)).ok());
  EXPECT_TRUE(server.TrySubmit(second, 5, {}, Replaying(record, true)).ok());
  server.engine->Step();  // both run
  const absl::Status refused = server.TrySubmit(third, 5, {}, Replaying(record, true));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("the limit is " + std::to_string(2 * bytes)));
  EXPECT_TRUE(server.TrySubmit(third, 5, {}).ok()) << "without a record there is room";
  second.cancel->Cancel();
  server.Run();
  // A request that the queue refuses gives back, too.
  std::vector<Ticket> queued;
  for (int i = 0; i < 2; ++i) queued.push_back(server.Submit(MakePrompt(20, 1), 5));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(
        std::string(server.TrySubmit(Ticket{.prompt = recorded.prompt}, 5, {}, Replaying(record, true)).message()),
        HasSubstr("2 requests are waiting"));
  }
  server.Run();
  const Ticket again{.prompt = recorded.prompt};
  EXPECT_TRUE(server.TrySubmit(again, 5, {}, Replaying(record, true)).ok());
  server.Run();
  ExpectSameAnswer(again, recorded);
}

TEST(EngineReplayTest, ATenantsRecordsInFlightAreItsShare) {
  TransformerEngine measure;
  const Ticket recorded = measure.Submit(MakePrompt(20, 1), 5, {}, Record);
  measure.Run();
  const RoutedExperts record = Told(recorded);
  const auto bytes = static_cast<int64_t>(record.expert_ids.size() * 8);
  TransformerEngine server({}, {.max_tenant_share = 0.5, .max_replay_bytes = 4 * bytes});
  const auto submit = [&](const std::string& tenant) {
    return server.TrySubmit(Ticket{.prompt = recorded.prompt}, 5, {}, [&](Request& request) {
      Replaying(record, true)(request);
      request.tenant = tenant;
    });
  };
  EXPECT_TRUE(submit("a").ok());
  EXPECT_TRUE(submit("a").ok());
  EXPECT_EQ(RefusalOf(submit("a")), Refusal::kTenantShare);
  EXPECT_TRUE(submit("b").ok());
  EXPECT_TRUE(submit("").ok());
  EXPECT_EQ(RefusalOf(submit("c")), Refusal::kQueueFull);
  server.Run();
  EXPECT_TRUE(submit("a").ok());
  server.Run();
}

}  // namespace
}  // namespace cadre
