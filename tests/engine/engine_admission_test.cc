// Who is refused, and why: shares of the queue, tokens, deadlines; and what that does to a server under too much load.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "engine/deadline_admission.h"
#include "engine/request/refusal.h"
#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

using Code = absl::StatusCode;

absl::Status TrySubmit(EngineHarness& harness, int32_t prompt_tokens, int32_t max_tokens,
                       const std::function<void(Request&)>& edit = nullptr) {
  Request request = harness.MakeRequest({.prompt = MakePrompt(prompt_tokens, 3)}, max_tokens);
  if (edit) edit(request);
  return harness.engine->Submit(std::move(request));
}

std::function<void(Request&)> OfTenant(const char* tenant) {
  return [=](Request& request) { request.tenant = tenant; };
}

TEST(EngineAdmissionTest, OneTenantCannotFillTheQueue) {
  HarnessOptions options;
  options.engine.max_queue_requests = 8;
  options.engine.max_tenant_share = 0.5;
  EngineHarness harness(options);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(TrySubmit(harness, 3, 3, OfTenant("a")).ok());
  const absl::Status refused = TrySubmit(harness, 3, 3, OfTenant("a"));
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_EQ(RefusalOf(refused), Refusal::kTenantShare) << refused;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(TrySubmit(harness, 3, 3, OfTenant("b")).ok());
  EXPECT_TRUE(TrySubmit(harness, 3, 3).ok());
  EXPECT_EQ(RefusalOf(TrySubmit(harness, 3, 3, OfTenant("c"))), Refusal::kQueueFull);
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  harness.RunUntilIdle();
  EXPECT_TRUE(TrySubmit(harness, 3, 3, OfTenant("a")).ok());  // places are given back
}

TEST(EngineAdmissionTest, AShareIsOfTokensToo) {
  HarnessOptions options;
  options.engine.max_queue_tokens = 100;
  options.engine.max_tenant_share = 0.5;
  EngineHarness harness(options);
  EXPECT_TRUE(TrySubmit(harness, 60, 3, OfTenant("a")).ok());  // one request is never more than a share
  EXPECT_EQ(RefusalOf(TrySubmit(harness, 1, 3, OfTenant("a"))), Refusal::kTenantShare);
  EXPECT_TRUE(TrySubmit(harness, 30, 3, OfTenant("b")).ok());
}

TEST(EngineAdmissionTest, WhatMayBeGeneratedIsCountedForEverySequence) {
  HarnessOptions options;
  options.engine.max_queue_total_tokens = 100;
  EngineHarness harness(options);
  const auto twice = [](Request& request) { request.num_sequences = 2; };
  EXPECT_EQ(TrySubmit(harness, 10, 46, twice).code(), Code::kInvalidArgument);  // 102, by itself
  EXPECT_TRUE(TrySubmit(harness, 10, 20, twice).ok());                          // 50
  EXPECT_EQ(RefusalOf(TrySubmit(harness, 11, 40)), Refusal::kQueueFull);
  EXPECT_TRUE(TrySubmit(harness, 10, 40).ok());
}

TEST(EngineAdmissionTest, QueuedRequestsAreCountedByClassOfPriority) {
  EngineHarness harness;
  for (const int32_t priority : {-5, 0, 0, 1, 2, 100}) {
    ASSERT_TRUE(TrySubmit(harness, 3, 3, [&](Request& request) { request.priority = priority; }).ok());
  }
  EXPECT_EQ(harness.engine->Snapshot().queued_requests, (std::array<int64_t, 3>{1, 2, 3}));
  harness.RunUntilIdle();
  EXPECT_EQ(harness.engine->Snapshot().queued_requests, (std::array<int64_t, 3>{0, 0, 0}));
}

// ---- deadlines ----

// Ten milliseconds a step, four seats.
HarnessOptions FourSeats() {
  HarnessOptions options;
  options.engine.max_num_seqs = 4;
  options.engine.deadline_admission = true;
  options.engine.max_queue_requests = 1000;
  return options;
}

std::function<void(Request&)> Within(absl::Duration time) {
  return [=](Request& request) { request.deadline = request.arrival + time; };
}

void WarmUp(EngineHarness& harness) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(TrySubmit(harness, 5, 30).ok());
  harness.RunUntilIdle();
}

TEST(EngineAdmissionTest, NothingIsRefusedBeforeThePaceIsKnown) {
  EngineHarness harness(FourSeats());
  EXPECT_TRUE(TrySubmit(harness, 5, 400, Within(absl::Milliseconds(1))).ok());
}

TEST(EngineAdmissionTest, AnAnswerThatTakesTooLongIsRefusedForGood) {
  EngineHarness harness(FourSeats());
  WarmUp(harness);
  const absl::Status refused = TrySubmit(harness, 5, 200, Within(absl::Seconds(1)));  // 2 s
  EXPECT_EQ(refused.code(), Code::kDeadlineExceeded) << refused;
  EXPECT_EQ(RefusalOf(refused), Refusal::kDeadlineUnreachable);
  EXPECT_TRUE(TrySubmit(harness, 5, 200, Within(absl::Seconds(3))).ok());
  EXPECT_TRUE(TrySubmit(harness, 5, 50, Within(absl::Seconds(1))).ok());
}

TEST(EngineAdmissionTest, AQueueThatIsTooLongIsRefusedForNow) {
  EngineHarness harness(FourSeats());
  WarmUp(harness);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(TrySubmit(harness, 5, 50).ok());  // 40 x 50 / 4 steps: 5 s
  const absl::Status refused = TrySubmit(harness, 5, 50, Within(absl::Seconds(2)));
  EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused;
  EXPECT_EQ(RefusalOf(refused), Refusal::kDeadlineUnreachable);
  EXPECT_TRUE(TrySubmit(harness, 5, 50, Within(absl::Seconds(10))).ok());
  // Another tenant does not wait behind all of them.
  EXPECT_TRUE(TrySubmit(harness, 5, 50, [](Request& request) {
                request.deadline = request.arrival + absl::Seconds(3);
                request.tenant = "other";
              }).ok());
}

TEST(EngineAdmissionTest, WhoCanNoLongerBeAnsweredCostsNoWork) {
  EngineHarness harness(FourSeats());
  WarmUp(harness);
  const Ticket late = harness.MustSubmit(MakePrompt(5, 1), 50, Within(absl::Seconds(1)));
  harness.clock->Advance(absl::Milliseconds(600));  // half of what it needs is gone
  harness.RunUntilIdle();
  EXPECT_EQ(late.sink->summary().status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(RefusalOf(late.sink->summary().status), Refusal::kDeadlineUnreachable);
  EXPECT_TRUE(late.sink->token_ids().empty());
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
}

TEST(EngineAdmissionTest, AWaitCanHaveALimit) {
  HarnessOptions options = FourSeats();
  options.engine.max_queue_wait = absl::Seconds(1);
  EngineHarness harness(options);
  WarmUp(harness);
  int32_t num_accepted = 0;
  absl::Status status;
  while ((status = TrySubmit(harness, 5, 50)).ok()) ASSERT_LT(++num_accepted, 100);
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_EQ(RefusalOf(status), Refusal::kQueueFull) << status;
  // Four seats that pass on a request every half second: seats for four, two waits of half a second for four more each.
  EXPECT_GE(num_accepted, 8);
  EXPECT_LE(num_accepted, 16);
  harness.RunUntilIdle();
  EXPECT_TRUE(TrySubmit(harness, 5, 50).ok());
}

TEST(EngineAdmissionTest, WhomATimeLimitEndsBeforeItsDeadlineIsNotRefused) {
  EngineHarness harness(FourSeats());
  WarmUp(harness);
  const auto limited = [](Request& request) {
    request.deadline = request.arrival + absl::Seconds(1);
    request.time_limit = absl::Milliseconds(500);
  };
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 400, limited);  // 4 s
  harness.RunUntilIdle();
  EXPECT_TRUE(ticket.sink->summary().status.ok()) << ticket.sink->summary().status;
  EXPECT_EQ(ticket.sink->summary().reason, FinishReason::kTimeLimit);
  EXPECT_GE(ticket.sink->token_ids().size(), 49u);
}

TEST(EngineAdmissionTest, WhoIsAheadByPriorityDoesNotWaitForTheOthers) {
  HarnessOptions options = FourSeats();
  options.engine.max_queue_wait = absl::Seconds(8);
  EngineHarness harness(options);
  WarmUp(harness);
  const auto with = [](int32_t priority, const char* tenant) {
    return [=](Request& request) {
      request.deadline = request.arrival + absl::Seconds(2);
      request.priority = priority;
      request.tenant = tenant;
    };
  };
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(TrySubmit(harness, 5, 50).ok());  // 5 s
  EXPECT_EQ(RefusalOf(TrySubmit(harness, 5, 50, with(0, ""))), Refusal::kDeadlineUnreachable);
  EXPECT_EQ(RefusalOf(TrySubmit(harness, 5, 50, with(-1, "other"))), Refusal::kDeadlineUnreachable);
  Ticket urgent{.prompt = MakePrompt(5, 4)};
  Request request = harness.MakeRequest(urgent, 50);
  with(1, "")(request);
  EXPECT_TRUE(harness.engine->Submit(std::move(request)).ok());
  harness.RunUntilIdle();
  EXPECT_TRUE(urgent.sink->summary().status.ok()) << urgent.sink->summary().status;
}

HarnessOptions FourSeatsWithEos() {
  HarnessOptions options = FourSeats();
  options.engine.eos_token_ids = {500};
  return options;
}

// From now on the model ends what it says with the `length`-th step after a prompt.
void EndAfter(EngineHarness& harness, size_t length) {
  harness.runner->after = [length, num_steps = size_t{0}](const ForwardBatch& batch, ForwardResult* result) mutable {
    num_steps = batch.positions.front() == 0 ? 1 : num_steps + 1;
    if (num_steps < length) return;
    for (size_t row = 0; row < batch.logit_rows.size(); ++row) result->logits[row * 512 + 500] = 100.0f;
  };
}

// max_tokens is a bound, and few come near it: clients that set none must not be judged by it.
TEST(EngineAdmissionTest, AnswersThatEndByThemselvesAreExpectedAsLongAsOfLate) {
  EngineHarness harness(FourSeatsWithEos());
  EndAfter(harness, 20);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(TrySubmit(harness, 5, 500).ok());
    harness.RunUntilIdle();
  }
  // 5 s if max_tokens were what is expected, half a second as it is. The engine is not idle.
  ASSERT_TRUE(TrySubmit(harness, 5, 500).ok());
  EXPECT_TRUE(TrySubmit(harness, 5, 500, Within(absl::Seconds(2))).ok());
  // What cannot end early is not expected to.
  const auto to_the_end = [](Request& request) {
    request.deadline = request.arrival + absl::Seconds(2);
    request.sampling.ignore_eos = true;
  };
  EXPECT_EQ(RefusalOf(TrySubmit(harness, 5, 500, to_the_end)), Refusal::kDeadlineUnreachable);
}

// What was learned from one load must not shut out another for ever: who is refused teaches nothing.
TEST(EngineAdmissionTest, AnIdleEngineTriesWhatItHadLearnedToRefuse) {
  EngineHarness harness(FourSeatsWithEos());
  for (int i = 0; i < 200; ++i) {  // all cut off by max_tokens: how long would they have been?
    ASSERT_TRUE(TrySubmit(harness, 5, 20).ok());
    harness.RunUntilIdle();
  }
  EndAfter(harness, 20);
  const Ticket tried = harness.MustSubmit(MakePrompt(5, 1), 500, Within(absl::Seconds(2)));
  EXPECT_EQ(RefusalOf(TrySubmit(harness, 5, 500, Within(absl::Seconds(2)))), Refusal::kDeadlineUnreachable);
  harness.RunUntilIdle();
  EXPECT_TRUE(tried.sink->summary().status.ok()) << tried.sink->summary().status;
  EXPECT_EQ(tried.sink->summary().reason, FinishReason::kEos);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(TrySubmit(harness, 5, 500, Within(absl::Seconds(2))).ok());
    harness.RunUntilIdle();
  }
  ASSERT_TRUE(TrySubmit(harness, 5, 500).ok());
  EXPECT_TRUE(TrySubmit(harness, 5, 500, Within(absl::Seconds(2))).ok());
}

// Where experts choose the tokens of prompts, rows that are too few for a group are left over in every step of a long
// prompt. Who waits then waits for rows, not for blocks.
TEST(EngineAdmissionTest, RowsThatNoGroupFitsIntoAreNoSeats) {
  HarnessOptions options = FourSeats();
  options.limits.prompt_group = 16;
  options.engine.max_num_batched_tokens = 24;
  options.engine.prefix_cache = PrefixCacheScope::kOff;
  EngineHarness harness(options);
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(TrySubmit(harness, 160, 2).ok());
  harness.RunUntilIdle();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(TrySubmit(harness, 5, 100).ok());
  // One second for all together, in the fourth seat.
  EXPECT_TRUE(TrySubmit(harness, 5, 100, Within(absl::Milliseconds(1500))).ok());
}

// ---- overload ----

struct Outcome {
  double goodput;  // tokens of requests that ended in time, per second
  int64_t num_refused = 0;
  int64_t num_late = 0;  // accepted, and not answered in time
  double wasted = 0.0;   // share of the rows that were computed for those
  int64_t most_queued = 0;
  absl::Duration slow_first_token;  // 99th percentile of accepted requests
};

// Poisson arrivals at `load` times what the engine can do, for a minute of simulated time; each has two seconds for 20
// tokens, or more.
Outcome Serve(double load, uint32_t seed, absl::Duration max_wait = absl::InfiniteDuration(),
              int32_t num_blocks = 256) {
  HarnessOptions options;
  options.limits.num_kv_blocks = num_blocks;
  options.engine.max_num_seqs = 8;
  options.engine.max_num_batched_tokens = 64;
  options.engine.deadline_admission = true;
  options.engine.max_queue_requests = 200;
  options.engine.max_queue_wait = max_wait;
  options.engine.prefix_cache = PrefixCacheScope::kOff;
  EngineHarness harness(options);
  std::mt19937 random(seed);
  const double capacity =
      8 / (20 * 0.010);  // requests a second: 8 seats, 20 steps of 10 ms, and the prompts ride along
  std::exponential_distribution<double> gap(load * capacity);
  std::vector<Ticket> tickets;
  Outcome outcome{};
  const absl::Time begin = harness.clock->Now();
  absl::Time next_arrival = begin;
  while (harness.clock->Now() < begin + absl::Seconds(60)) {
    while (next_arrival <= harness.clock->Now()) {
      Ticket ticket{.prompt = MakePrompt(8, static_cast<int32_t>(random() % 500))};
      Request request = harness.MakeRequest(ticket, 20);
      request.arrival = next_arrival;
      request.deadline = next_arrival + absl::Milliseconds(800 + static_cast<int>(random() % 400));
      if (harness.engine->Submit(std::move(request)).ok()) {
        tickets.push_back(ticket);
      } else {
        ++outcome.num_refused;
      }
      next_arrival += absl::Seconds(gap(random));
    }
    outcome.most_queued = std::max(outcome.most_queued, harness.engine->Snapshot().waiting_requests);
    if (!harness.engine->Step()) harness.clock->Advance(next_arrival - harness.clock->Now());
  }
  const double seconds = absl::ToDoubleSeconds(harness.clock->Now() - begin);
  harness.RunUntilIdle();
  int64_t good_tokens = 0;
  int64_t late_rows = 0;
  std::vector<absl::Duration> first_tokens;
  for (const Ticket& ticket : tickets) {
    const auto tokens = static_cast<int64_t>(ticket.sink->token_ids().size());
    if (ticket.sink->summary().status.ok()) {
      good_tokens += tokens;
      const RequestTimings& timings = ticket.sink->summary().timings;
      // Until the pace is known, everybody is accepted.
      if (&ticket >= &tickets[100]) first_tokens.push_back(timings.queue + timings.prefill);
    } else {
      ++outcome.num_late;
      late_rows += tokens > 0 ? tokens + 7 : 0;
    }
  }
  std::ranges::sort(first_tokens);
  outcome.slow_first_token = first_tokens[first_tokens.size() * 99 / 100];
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  outcome.goodput = static_cast<double>(good_tokens) / seconds;
  outcome.wasted =
      static_cast<double>(late_rows) / static_cast<double>(snapshot.prefill_tokens + snapshot.decode_tokens);
  return outcome;
}

TEST(EngineOverloadTest, GoodputHoldsAtTenTimesTheLoad) {
  double peak = 0.0;
  for (const double load : {0.5, 0.9, 1.0, 2.0, 5.0, 10.0}) {
    const Outcome outcome = Serve(load, 7);
    peak = std::max(peak, outcome.goodput);
    if (load > 1.0) {
      EXPECT_GE(outcome.goodput, 0.95 * peak) << "at " << load;
      EXPECT_GT(outcome.num_refused, 0);
    }
    EXPECT_LE(outcome.wasted, 0.01) << "at " << load << ", " << outcome.num_late << " late";
    EXPECT_LT(outcome.most_queued, 200);
  }
  EXPECT_GT(peak, 700);  // of 800
}

TEST(EngineOverloadTest, WithALimitOnTheWaitAcceptedRequestsBeginSoonAtAnyLoad) {
  const absl::Duration max_wait = absl::Milliseconds(150);
  const Outcome busy = Serve(0.9, 7, max_wait);
  for (const double load : {2.0, 10.0}) {
    const Outcome outcome = Serve(load, 7, max_wait);
    EXPECT_LE(outcome.slow_first_token, 2 * busy.slow_first_token) << "at " << load;
    EXPECT_GE(outcome.goodput, 0.95 * 800) << "at " << load;
  }
}

// Blocks for about five of the eight seats: how many run at once is not the number of seats.
TEST(EngineOverloadTest, WhereBlocksAreTheBoundAcceptedRequestsBeginSoonToo) {
  constexpr int32_t kNumBlocks = 24;  // a request holds two to seven
  const absl::Duration max_wait = absl::Milliseconds(150);
  const Outcome busy = Serve(0.3, 7, max_wait, kNumBlocks);
  const Outcome full = Serve(1.0, 7, max_wait, kNumBlocks);
  for (const double load : {2.0, 10.0}) {
    const Outcome outcome = Serve(load, 7, max_wait, kNumBlocks);
    EXPECT_LE(outcome.slow_first_token, 1.75 * busy.slow_first_token) << "at " << load;
    EXPECT_GE(outcome.goodput, 0.95 * full.goodput) << "at " << load;
    EXPECT_LE(outcome.wasted, 0.01);
  }
}

}  // namespace
}  // namespace cadre
