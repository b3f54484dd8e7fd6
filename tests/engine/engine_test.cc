// The life of requests in an engine that is driven step by step.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

using Code = absl::StatusCode;

TEST(EngineTest, OneRequestRunsFromPromptToLength) {
  EngineHarness harness;
  const Ticket ticket = harness.MustSubmit(MakePrompt(10, 1), 5);
  harness.RunUntilIdle();

  ASSERT_EQ(ticket.sink->num_finished(), 1);
  EXPECT_TRUE(ticket.sink->in_order());
  EXPECT_EQ(ticket.sink->num_started(), 1);
  EXPECT_EQ(ticket.sink->num_deltas(), 5);
  EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, 5));
  const FinishSummary summary = ticket.sink->summary();
  EXPECT_TRUE(summary.status.ok());
  EXPECT_EQ(summary.reason, FinishReason::kLength);
  EXPECT_EQ(summary.usage.prompt_tokens, 10);
  EXPECT_EQ(summary.usage.generated_tokens, 5);
  EXPECT_EQ(summary.routing.total(), (10 + 5 - 1) * 3 * 2);
  EXPECT_EQ(summary.timings.queue, absl::ZeroDuration());
  EXPECT_EQ(summary.timings.prefill, absl::Milliseconds(10));
  EXPECT_EQ(summary.timings.decode, absl::Milliseconds(40));
  EXPECT_EQ(summary.timings.total, absl::Milliseconds(50));
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit().ToString();
}

TEST(EngineTest, RequestsJoinAndLeaveTheBatchBetweenSteps) {
  EngineHarness harness;
  const Ticket first = harness.MustSubmit(MakePrompt(6, 1), 8);
  ASSERT_TRUE(harness.engine->Step());
  ASSERT_TRUE(harness.engine->Step());
  EXPECT_EQ(first.sink->num_deltas(), 2);
  const Ticket second = harness.MustSubmit(MakePrompt(9, 2), 3);
  ASSERT_TRUE(harness.engine->Step());
  EXPECT_EQ(first.sink->num_deltas(), 3);
  EXPECT_EQ(second.sink->num_deltas(), 1);
  EXPECT_EQ(harness.observer.steps.back().decode_tokens, 1);
  EXPECT_EQ(harness.observer.steps.back().prefill_tokens, 9);
  harness.RunUntilIdle();
  EXPECT_EQ(first.sink->token_ids(), harness.Expected(first, 8));
  EXPECT_EQ(second.sink->token_ids(), harness.Expected(second, 3));
  EXPECT_EQ(harness.observer.steps.size(), 8u);  // the second cost no step of its own
}

TEST(EngineTest, ChunkSizeChangesNothingButTheSteps) {
  for (int32_t rows : {1, 3, 4, 5, 7, 64, 2048}) {
    HarnessOptions options;
    options.engine.max_num_batched_tokens = rows;
    EngineHarness harness(options);
    std::vector<Ticket> tickets;
    for (int32_t i = 0; i < 6; ++i) tickets.push_back(harness.MustSubmit(MakePrompt(5 + 11 * i, i), 4 + i));
    harness.RunUntilIdle();
    for (int32_t i = 0; i < 6; ++i) {
      EXPECT_EQ(tickets[static_cast<size_t>(i)].sink->token_ids(),
                harness.Expected(tickets[static_cast<size_t>(i)], 4 + i))
          << rows << " rows, request " << i;
    }
    EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit().ToString();
  }
}

TEST(EngineTest, LongPromptsDoNotStarveDecodes) {
  HarnessOptions options;
  options.engine.max_num_batched_tokens = 8;
  EngineHarness harness(options);
  const Ticket talker = harness.MustSubmit(MakePrompt(4, 1), 40);
  ASSERT_TRUE(harness.engine->Step());
  const Ticket reader = harness.MustSubmit(MakePrompt(200, 2), 1);
  for (int step = 0; step < 25; ++step) {
    ASSERT_TRUE(harness.engine->Step());
    EXPECT_EQ(talker.sink->num_deltas(), step + 2);
  }
  EXPECT_EQ(reader.sink->num_started(), 1);
  harness.RunUntilIdle();
  EXPECT_EQ(reader.sink->token_ids(), harness.Expected(reader, 1));
}

TEST(EngineTest, CancelIsSeenAtTheNextStep) {
  EngineHarness harness;
  const Ticket kept = harness.MustSubmit(MakePrompt(20, 1), 10);
  const Ticket cancelled = harness.MustSubmit(MakePrompt(20, 2), 10);
  ASSERT_TRUE(harness.engine->Step());
  const int32_t in_use = harness.engine->Snapshot().kv_blocks_in_use;
  cancelled.cancel->Cancel();
  EXPECT_FALSE(cancelled.sink->finished());
  ASSERT_TRUE(harness.engine->Step());
  EXPECT_TRUE(cancelled.sink->finished());
  EXPECT_EQ(cancelled.sink->summary().status.code(), Code::kCancelled);
  EXPECT_EQ(cancelled.sink->summary().reason, FinishReason::kNone);
  EXPECT_EQ(cancelled.sink->num_deltas(), 1);
  EXPECT_LT(harness.engine->Snapshot().kv_blocks_in_use, in_use);
  harness.RunUntilIdle();
  EXPECT_EQ(kept.sink->token_ids(), harness.Expected(kept, 10));
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_in_use, 0);
}

TEST(EngineTest, CancelledAndExpiredRequestsAreNeverComputed) {
  EngineHarness harness;
  Ticket cancelled{.prompt = MakePrompt(20, 1)};
  cancelled.cancel->Cancel();
  ASSERT_TRUE(harness.engine->Submit(harness.MakeRequest(cancelled, 4)).ok());
  const Ticket expired = harness.MustSubmit(MakePrompt(20, 2), 4, [](Request& r) { r.deadline = r.arrival; });
  EXPECT_TRUE(harness.engine->Step());
  EXPECT_FALSE(harness.engine->Step());
  EXPECT_EQ(cancelled.sink->summary().status.code(), Code::kCancelled);
  EXPECT_EQ(expired.sink->summary().status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(cancelled.sink->num_started() + expired.sink->num_started(), 0);
  EXPECT_TRUE(harness.observer.steps.empty());
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.prefill_tokens, 0);
  EXPECT_EQ(snapshot.finished_cancelled, 1);
  EXPECT_EQ(snapshot.finished_deadline, 1);
}

TEST(EngineTest, DeadlinesEndQueuedPrefillingAndDecodingRequests) {
  HarnessOptions options;  // 10 ms a step
  options.engine.max_num_seqs = 2;
  options.engine.max_num_batched_tokens = 8;
  EngineHarness harness(options);
  const auto within = [](absl::Duration d) { return [d](Request& r) { r.deadline = r.arrival + d; }; };
  const Ticket decoding = harness.MustSubmit(MakePrompt(4, 1), 100, within(absl::Milliseconds(55)));
  const Ticket prefilling = harness.MustSubmit(MakePrompt(200, 2), 100, within(absl::Milliseconds(45)));
  const Ticket queued = harness.MustSubmit(MakePrompt(4, 3), 100, within(absl::Milliseconds(25)));
  harness.RunUntilIdle();
  EXPECT_EQ(decoding.sink->summary().status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(decoding.sink->num_deltas(), 6);  // the step that was running at 55 ms was the sixth
  EXPECT_EQ(prefilling.sink->summary().status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(prefilling.sink->num_started(), 1);
  EXPECT_EQ(prefilling.sink->num_deltas(), 0);
  EXPECT_EQ(queued.sink->summary().status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(queued.sink->num_started(), 0);
  EXPECT_EQ(queued.sink->summary().timings.total, absl::Milliseconds(30));
  EXPECT_EQ(queued.sink->summary().timings.queue, absl::ZeroDuration());
  EXPECT_NE(decoding.sink->summary().status.message().find("6 of at most 100"), absl::string_view::npos)
      << decoding.sink->summary().status.ToString();
  EXPECT_EQ(harness.engine->Snapshot().finished_deadline, 3);
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_in_use, 0);
}

TEST(EngineTest, ADeadlineIsNamedEvenWhenTheTransportCancelsToo) {
  EngineHarness harness;
  const Ticket ticket =
      harness.MustSubmit(MakePrompt(4, 1), 10, [](Request& r) { r.deadline = r.arrival + absl::Milliseconds(15); });
  ASSERT_TRUE(harness.engine->Step());
  harness.clock->Advance(absl::Milliseconds(5));
  ticket.cancel->Cancel();
  harness.RunUntilIdle();
  EXPECT_EQ(ticket.sink->summary().status.code(), Code::kDeadlineExceeded);
}

TEST(EngineTest, TheQueueIsBounded) {
  HarnessOptions options;
  options.engine.max_queue_requests = 3;
  options.engine.max_queue_tokens = 100;
  options.engine.max_num_seqs = 1;
  EngineHarness harness(options);
  const auto submit = [&](int32_t length) {
    const Ticket ticket{.prompt = MakePrompt(length, 1)};
    const absl::Status status = harness.engine->Submit(harness.MakeRequest(ticket, 2));
    EXPECT_FALSE(ticket.sink->finished());
    return status;
  };
  EXPECT_TRUE(submit(90).ok());
  EXPECT_EQ(submit(11).code(), Code::kResourceExhausted);  // 101 tokens
  EXPECT_TRUE(submit(5).ok());
  EXPECT_TRUE(submit(5).ok());
  EXPECT_EQ(submit(1).message(), "3 requests are waiting, the limit is 3");
  // The engine thread has taken them over, but only one has started: the bound is on waiting, wherever they wait.
  ASSERT_TRUE(harness.engine->Step());
  EXPECT_EQ(harness.engine->Snapshot().waiting_requests, 2);
  EXPECT_TRUE(submit(90).ok());
  EXPECT_EQ(submit(1).code(), Code::kResourceExhausted);
  EXPECT_EQ(submit(101).code(), Code::kInvalidArgument);
  harness.RunUntilIdle();
  EXPECT_EQ(harness.engine->Snapshot().finished_ok, 4);
  EXPECT_TRUE(submit(100).ok());
}

TEST(EngineTest, WhatCanNeverFitIsRefusedAtOnce) {
  HarnessOptions options;
  options.limits.max_model_len = 64;
  options.limits.num_kv_blocks = 12;  // 48 tokens
  EngineHarness harness(options);
  const auto submit = [&](int32_t length, int32_t max_tokens) {
    const Ticket ticket{.prompt = MakePrompt(length, 1)};
    return harness.engine->Submit(harness.MakeRequest(ticket, max_tokens));
  };
  EXPECT_EQ(submit(60, 5).message(),
            "prompt has 60 tokens and max_tokens is 5, together more than the model's limit of 64 tokens");
  EXPECT_EQ(submit(10, 40).message(),
            "prompt has 10 tokens and max_tokens is 40, together 49 tokens to keep, but the KV cache holds 48");
  EXPECT_EQ(submit(10, std::numeric_limits<int32_t>::max()).code(), Code::kInvalidArgument);
  EXPECT_EQ(submit(1, 0).code(), Code::kInvalidArgument);
  EXPECT_TRUE(submit(10, 39).ok());  // the pool, exactly full
  harness.RunUntilIdle();
  EXPECT_EQ(harness.engine->Snapshot().generated_tokens, 39);
  const Ticket empty;
  EXPECT_EQ(harness.engine->Submit(harness.MakeRequest(empty, 1)).code(), Code::kInvalidArgument);
  const Ticket unknown{.prompt = {1, 512}};
  EXPECT_EQ(harness.engine->Submit(harness.MakeRequest(unknown, 1)).message(),
            "prompt has token id 512, vocabulary is 512");
}

TEST(EngineTest, DrainFinishesWhatWasAccepted) {
  EngineHarness harness;
  const Ticket accepted = harness.MustSubmit(MakePrompt(4, 1), 3);
  EXPECT_FALSE(harness.engine->draining());
  harness.engine->StartDrain();
  harness.engine->StartDrain();
  EXPECT_TRUE(harness.engine->draining());
  const Ticket refused{.prompt = MakePrompt(4, 2)};
  EXPECT_EQ(harness.engine->Submit(harness.MakeRequest(refused, 3)).code(), Code::kUnavailable);
  EXPECT_FALSE(harness.engine->AwaitIdle(harness.clock->Now()));
  harness.RunUntilIdle();
  EXPECT_TRUE(harness.engine->AwaitIdle(harness.clock->Now()));
  EXPECT_TRUE(accepted.sink->summary().status.ok());
  EXPECT_FALSE(refused.sink->finished());
}

TEST(EngineTest, StoppingEndsEveryRequestWithUnavailable) {
  std::vector<Ticket> tickets;
  {
    HarnessOptions options;
    options.engine.max_num_seqs = 1;
    EngineHarness harness(options);
    for (int32_t i = 0; i < 2; ++i) tickets.push_back(harness.MustSubmit(MakePrompt(4, i), 10));
    ASSERT_TRUE(harness.engine->Step());
    tickets.push_back(harness.MustSubmit(MakePrompt(4, 2), 10));  // not even taken over
    harness.engine.reset();
  }
  for (const Ticket& ticket : tickets) {
    EXPECT_EQ(ticket.sink->num_finished(), 1);
    EXPECT_EQ(ticket.sink->summary().status.code(), Code::kUnavailable);
  }
}

TEST(EngineTest, AForwardErrorFailsTheStepAndNoMore) {
  HarnessOptions options;
  options.engine.max_num_seqs = 2;
  EngineHarness harness(options);
  std::vector<Ticket> tickets;
  for (int32_t i = 0; i < 4; ++i) tickets.push_back(harness.MustSubmit(MakePrompt(4, i), 6));
  int num_forwards = 0;
  harness.runner->before = [&](const ForwardBatch&) {
    return ++num_forwards == 3 ? absl::DataLossError("bad sector") : absl::OkStatus();
  };
  harness.RunUntilIdle();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(tickets[i].sink->summary().status.code(), Code::kInternal);
    EXPECT_EQ(tickets[i].sink->num_deltas(), 2);
  }
  for (size_t i = 2; i < 4; ++i) EXPECT_EQ(tickets[i].sink->token_ids(), harness.Expected(tickets[i], 6));
  EXPECT_EQ(harness.engine->Snapshot().finished_failed, 2);
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit().ToString();
  EXPECT_EQ(harness.engine->Snapshot().kv_blocks_in_use, 0);
}

TEST(EngineTest, NanLogitsFailTheirRequestAlone) {
  EngineHarness harness;
  const Ticket healthy = harness.MustSubmit(MakePrompt(4, 1), 6);
  const Ticket poisoned = harness.MustSubmit(MakePrompt(4, 2), 6);
  harness.runner->after = [&](const ForwardBatch& batch, ForwardResult* result) {
    if (batch.num_sequences == 2 && batch.positions.back() == 5) {
      result->logits.back() = std::numeric_limits<float>::quiet_NaN();
    }
  };
  harness.RunUntilIdle();
  EXPECT_EQ(poisoned.sink->summary().status.code(), Code::kInternal);
  EXPECT_NE(poisoned.sink->summary().status.message().find("nan"), absl::string_view::npos);
  EXPECT_EQ(poisoned.sink->num_deltas(), 2);
  EXPECT_EQ(healthy.sink->token_ids(), harness.Expected(healthy, 6));
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit().ToString();
}

TEST(EngineTest, EndAndStopTokensCountButStopTheRequest) {
  HarnessOptions options;
  const std::vector<int32_t> prompt = MakePrompt(8, 1);
  const std::vector<int32_t> expected = SimulatedRunner::ExpectedTokens(prompt, 10, options.limits.vocab_size);
  options.engine.eos_token_ids = {expected[4]};
  EngineHarness harness(options);
  const Ticket eos = harness.MustSubmit(prompt, 10);
  const Ticket ignoring = harness.MustSubmit(prompt, 10, [](Request& r) { r.sampling.ignore_eos = true; });
  const Ticket stopped = harness.MustSubmit(prompt, 10, [&](Request& r) { r.sampling.stop_token_ids = {expected[2]}; });
  const Ticket both = harness.MustSubmit(prompt, 5);  // eos is the last token that max_tokens allows
  harness.RunUntilIdle();
  EXPECT_EQ(eos.sink->summary().reason, FinishReason::kEos);
  EXPECT_EQ(eos.sink->summary().matched_token, expected[4]);
  EXPECT_EQ(eos.sink->token_ids(), std::vector<int32_t>(expected.begin(), expected.begin() + 5));
  EXPECT_EQ(eos.sink->summary().usage.generated_tokens, 5);
  EXPECT_EQ(ignoring.sink->summary().reason, FinishReason::kLength);
  EXPECT_EQ(ignoring.sink->token_ids(), expected);
  EXPECT_EQ(stopped.sink->summary().reason, FinishReason::kStopToken);
  EXPECT_EQ(stopped.sink->summary().matched_token, expected[2]);
  EXPECT_EQ(stopped.sink->num_deltas(), 3);
  EXPECT_EQ(both.sink->summary().reason, FinishReason::kEos);
}

TEST(EngineTest, RoutingOfRequestsStepsAndExpertsIsTheSameSum) {
  HarnessOptions options;
  options.limits.num_kv_blocks = 24;  // small enough to preempt
  options.engine.max_num_batched_tokens = 16;
  EngineHarness harness(options);
  for (int32_t i = 0; i < 12; ++i) harness.MustSubmit(MakePrompt(3 + 4 * i, i), 20);
  harness.RunUntilIdle();
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_GT(snapshot.preemptions, 0);
  int64_t of_requests = 0;
  for (const FinishSummary& summary : harness.observer.finishes) of_requests += summary.routing.total();
  int64_t of_experts = 0;
  for (const LayerCounters& layer : harness.engine->expert_stats().Snapshot().total) {
    for (int64_t processed : layer.processed) of_experts += processed;
  }
  int64_t of_steps = 0;
  for (const StepReport& step : harness.observer.steps) of_steps += step.prefill_tokens + step.decode_tokens;
  EXPECT_EQ(of_requests, snapshot.routed_assignments);
  EXPECT_EQ(of_experts, snapshot.routed_assignments);
  EXPECT_EQ(of_steps * 3 * 2, snapshot.routed_assignments);
  EXPECT_EQ(snapshot.routed_tokens * 2, snapshot.routed_assignments);
}

TEST(EngineTest, SnapshotCountsWhatWaitsAndWhatRuns) {
  HarnessOptions options;
  options.engine.max_num_seqs = 2;
  EngineHarness harness(options);
  for (int32_t i = 0; i < 5; ++i) harness.MustSubmit(MakePrompt(10, i), 3);
  harness.clock->Advance(absl::Milliseconds(7));
  EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.admitted_requests, 5);
  EXPECT_EQ(snapshot.waiting_requests, 5);
  EXPECT_EQ(snapshot.waiting_tokens, 50);
  EXPECT_EQ(snapshot.oldest_wait, absl::Milliseconds(7));
  EXPECT_EQ(snapshot.last_step_end, absl::InfinitePast());
  ASSERT_TRUE(harness.engine->Step());
  snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.waiting_requests, 3);
  EXPECT_EQ(snapshot.running_requests, 2);
  EXPECT_EQ(snapshot.waiting_tokens, 30);
  EXPECT_EQ(snapshot.oldest_wait, absl::Milliseconds(17));
  EXPECT_EQ(snapshot.prompt_tokens, 20);
  EXPECT_EQ(snapshot.generated_tokens, 2);
  EXPECT_EQ(snapshot.steps, 1);
  EXPECT_EQ(snapshot.last_step_end, harness.clock->Now());
  EXPECT_EQ(snapshot.kv_blocks_free + snapshot.kv_blocks_in_use + snapshot.kv_blocks_cached, snapshot.kv_blocks_total);
  harness.RunUntilIdle();
  snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.admitted_requests, snapshot.finished_ok);
  EXPECT_EQ(snapshot.oldest_wait, absl::ZeroDuration());
}

}  // namespace
}  // namespace cadre
