// The engine one step behind its runner: the same answers as step by step, counters that stay exact with rows that
// nobody wants, and whatever may happen while a step is computed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/engine_harness.h"
#include "tests/support/fake_constraint.h"

namespace cadre {
namespace {

using Code = absl::StatusCode;
using Edit = std::function<void(Request&)>;

constexpr int32_t kRowAssignments = 3 * 2;  // MoE layers x K of the harness

HarnessOptions AheadOptions() {
  HarnessOptions options;
  RunAhead(&options);
  return options;
}

// The first token of the answer that is not among those before it, from `index` on: its index.
int32_t FirstNewToken(const std::vector<int32_t>& tokens, int32_t index) {
  while (std::find(tokens.begin(), tokens.begin() + index, tokens[static_cast<size_t>(index)]) !=
         tokens.begin() + index) {
    ++index;
  }
  return index;
}

// Ends at the token of this index, unless it ends before.
Edit StopAt(const std::vector<int32_t>& expected, int32_t index) {
  return
      [token = expected[static_cast<size_t>(index)]](Request& request) { request.sampling.stop_token_ids = {token}; };
}

TEST(EngineAheadTest, OrdersAStepBeforeTheOneInFrontIsFinished) {
  EngineHarness harness(AheadOptions());
  const Ticket a = harness.MustSubmit(MakePrompt(5, 1), 20);
  const Ticket b = harness.MustSubmit(MakePrompt(9, 2), 12);
  harness.RunUntilIdle();
  EXPECT_EQ(a.sink->token_ids(), harness.Expected(a, 20));
  EXPECT_EQ(b.sink->token_ids(), harness.Expected(b, 12));
  EXPECT_EQ(harness.runner->most_ordered, 2u);
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_TRUE(snapshot.orders_ahead);
  // One with the prompts, one that decodes, and all others behind another. Ends by length are foreseen.
  EXPECT_EQ(snapshot.steps, 20);
  EXPECT_EQ(snapshot.steps_ahead, 18);
  EXPECT_EQ(snapshot.discarded_tokens, 0);
  EXPECT_EQ(std::ranges::count_if(harness.observer.steps, [](const StepReport& step) { return step.is_ahead; }), 18);
}

TEST(EngineAheadTest, CanBeTurnedOff) {
  HarnessOptions options = AheadOptions();
  options.engine.overlap_steps = false;
  EngineHarness harness(options);
  const Ticket a = harness.MustSubmit(MakePrompt(5, 1), 20);
  harness.RunUntilIdle();
  EXPECT_EQ(a.sink->token_ids(), harness.Expected(a, 20));
  EXPECT_EQ(harness.runner->most_ordered, 1u);
  EXPECT_EQ(harness.engine->Snapshot().steps_ahead, 0);
  EXPECT_FALSE(harness.engine->Snapshot().orders_ahead);
}

// The row is counted as nobody's, nobody is charged, and the blocks are held until its step has ended.
TEST(EngineAheadTest, WhoEndsUnforeseenHasOneRowThatIsNobodys) {
  EngineHarness harness(AheadOptions());
  Ticket ended{.prompt = MakePrompt(6, 1)};
  const std::vector<int32_t> expected = harness.Expected(ended, 30);
  const int32_t last = FirstNewToken(expected, 9);
  ended = harness.MustSubmit(ended.prompt, 30, StopAt(expected, last));
  const Ticket neighbor = harness.MustSubmit(MakePrompt(4, 2), 30);
  while (!ended.sink->finished()) ASSERT_TRUE(harness.engine->Step());
  EXPECT_EQ(ended.sink->token_ids(), std::vector<int32_t>(expected.begin(), expected.begin() + last + 1));
  EXPECT_EQ(ended.sink->summary().usage.generated_tokens, last + 1);
  EXPECT_EQ(ended.sink->summary().routing.total(), (6 + last) * kRowAssignments);
  EXPECT_EQ(harness.engine->Snapshot().discarded_tokens, 0) << "its step is still computed";
  ASSERT_EQ(harness.runner->num_ordered(), 1u);
  const int32_t held = harness.engine->Snapshot().kv_blocks_in_use;
  ASSERT_TRUE(harness.engine->Step());
  const EngineSnapshot after = harness.engine->Snapshot();
  EXPECT_EQ(after.discarded_tokens, 1);
  EXPECT_EQ(after.discarded_assignments, kRowAssignments);
  EXPECT_LT(after.kv_blocks_in_use, held);
  harness.RunUntilIdle();
  EXPECT_EQ(neighbor.sink->token_ids(), harness.Expected(neighbor, 30));
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.discarded_tokens, 1);
  EXPECT_EQ(snapshot.generated_tokens, last + 1 + 30);
  EXPECT_EQ(snapshot.decode_tokens, last + 29);
  int64_t of_tenants = 0;
  for (const TenantRouting& tenant : harness.engine->Tenants()) of_tenants += tenant.routing.total();
  EXPECT_EQ(of_tenants, (6 + last + 4 + 29) * kRowAssignments);
}

// Whoever goes on from there finds what was computed for the answer, and not the row behind it.
TEST(EngineAheadTest, TheRowBehindTheEndNeverEntersThePrefixCache) {
  for (int32_t end = 4; end < 12; ++end) {
    int64_t hits[2] = {};
    for (const bool overlaps : {false, true}) {
      HarnessOptions options = AheadOptions();
      options.engine.overlap_steps = overlaps;
      EngineHarness harness(options);
      Ticket first{.prompt = MakePrompt(6, 1)};
      const std::vector<int32_t> expected = harness.Expected(first, 40);
      const int32_t last = FirstNewToken(expected, end);
      first = harness.MustSubmit(first.prompt, 40, StopAt(expected, last));
      harness.RunUntilIdle();
      std::vector<int32_t> next = first.prompt;
      next.insert(next.end(), expected.begin(), expected.begin() + last + 3);
      const Ticket second = harness.MustSubmit(next, 5);
      harness.RunUntilIdle();
      EXPECT_EQ(second.sink->token_ids(), harness.Expected(second, 5));
      hits[overlaps ? 1 : 0] = harness.engine->Snapshot().prefix_hit_tokens;
    }
    EXPECT_EQ(hits[0], hits[1]) << end;
  }
}

TEST(EngineAheadTest, ARowThatNeedsTheLastTokenIsNotPlannedAhead) {
  const std::vector<std::pair<std::string, Edit>> cases = {
      {"penalty", [](Request& request) { request.sampling.presence_penalty = 1e-6f; }},
      {"constraint",
       [](Request& request) {
         request.constraint = std::make_shared<FakeConstraint>(512, [](const std::vector<int32_t>&) {
           std::vector<int32_t> all(512);
           for (int32_t i = 0; i < 512; ++i) all[static_cast<size_t>(i)] = i;
           return all;
         });
       }},
      {"routing", [](Request& request) { request.wants_routed_experts = true; }},
      {"too many words",
       [](Request& request) {
         request.sampling.logit_bias.assign(400, {1, 0.0f});
       }},
  };
  for (const auto& [name, edit] : cases) {
    EngineHarness harness(AheadOptions());
    const Ticket plain = harness.MustSubmit(MakePrompt(5, 1), 20);
    const Ticket special = harness.MustSubmit(MakePrompt(5, 2), 10, edit);
    // Behind its last token there is nothing to plan for it.
    while (special.sink->token_ids().size() < 9) ASSERT_TRUE(harness.engine->Step()) << name;
    EXPECT_EQ(harness.runner->most_ordered, 1u) << name;
    harness.RunUntilIdle();
    EXPECT_EQ(harness.runner->most_ordered, 2u) << name;
    EXPECT_EQ(plain.sink->token_ids(), harness.Expected(plain, 20)) << name;
    EXPECT_EQ(special.sink->token_ids(), harness.Expected(special, 10)) << name;
  }
}

// What the number of tokens decides is known without them.
TEST(EngineAheadTest, MinTokensArePlannedAhead) {
  EngineHarness harness(AheadOptions());
  const Ticket a = harness.MustSubmit(MakePrompt(5, 1), 20, [](Request& request) {
    request.sampling.min_tokens = 10;
    request.sampling.stop_token_ids = {511};
  });
  std::vector<int32_t> num_forbidden;  // by step
  harness.runner->on_order = [&](const ForwardBatch& batch) {
    num_forbidden.push_back(batch.sample_rows.at(0).num_forbidden);
    return absl::OkStatus();
  };
  harness.RunUntilIdle();
  EXPECT_EQ(harness.runner->most_ordered, 2u);
  ASSERT_EQ(num_forbidden.size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(num_forbidden[i], i < 10 ? 1 : 0) << i;
}

// A prompt enters as soon as the step under way has ended; while there is no seat for it, steps go on as before.
TEST(EngineAheadTest, APromptThatCouldEnterIsNotKeptWaiting) {
  HarnessOptions options = AheadOptions();
  options.engine.max_num_seqs = 2;
  EngineHarness harness(options);
  const Ticket a = harness.MustSubmit(MakePrompt(5, 1), 30);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(harness.engine->Step());
  const Ticket b = harness.MustSubmit(MakePrompt(5, 2), 30);
  ASSERT_TRUE(harness.engine->Step());  // ends what was under way
  EXPECT_EQ(harness.runner->num_ordered(), 0u);
  ASSERT_TRUE(harness.engine->Step());
  EXPECT_EQ(b.sink->token_ids().size(), 1u);
  const Ticket c = harness.MustSubmit(MakePrompt(5, 3), 10);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(harness.engine->Step());
  EXPECT_EQ(harness.runner->num_ordered(), 1u) << "both seats are taken";
  harness.RunUntilIdle();
  for (const auto& [ticket, count] : {std::pair(a, 30), std::pair(b, 30), std::pair(c, 10)}) {
    EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, count));
  }
}

TEST(EngineAheadTest, ACancelledRequestEndsWhileItsStepIsComputed) {
  EngineHarness harness(AheadOptions());
  const Ticket kept = harness.MustSubmit(MakePrompt(5, 1), 30);
  const Ticket cancelled = harness.MustSubmit(MakePrompt(7, 2), 30);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(harness.engine->Step());
  ASSERT_EQ(harness.runner->num_ordered(), 1u);
  const std::vector<int32_t> told = cancelled.sink->token_ids();
  cancelled.cancel->Cancel();
  ASSERT_TRUE(harness.engine->Step());
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  EXPECT_EQ(cancelled.sink->summary().status.code(), Code::kCancelled);
  EXPECT_EQ(cancelled.sink->token_ids(), told);
  EXPECT_EQ(harness.engine->Snapshot().discarded_tokens, 1);
  harness.RunUntilIdle();
  EXPECT_EQ(kept.sink->token_ids(), harness.Expected(kept, 30));
  EXPECT_EQ(harness.engine->Snapshot().discarded_tokens, 1);
}

// Whether it could not be ordered or not be computed: its requests hear it, nobody else, and what is behind goes too.
TEST(EngineAheadTest, AStepThatFailsEndsItsRequestsAndTheStepBehindIt) {
  for (const bool at_order : {false, true}) {
    for (int fails_at = 1; fails_at < 8; ++fails_at) {
      EngineHarness harness(AheadOptions());
      int num_steps = 0;
      const auto fail = [&](const ForwardBatch&) {
        return ++num_steps == fails_at ? absl::UnavailableError("the device fell over") : absl::OkStatus();
      };
      (at_order ? harness.runner->on_order : harness.runner->before) = fail;
      const std::vector<Ticket> tickets = {harness.MustSubmit(MakePrompt(5, 1), 20),
                                           harness.MustSubmit(MakePrompt(7, 2), 20)};
      while (num_steps < fails_at) ASSERT_TRUE(harness.engine->Step());
      // One that could not be ordered behind another is told in its turn.
      while (!tickets[0].sink->finished()) ASSERT_TRUE(harness.engine->Step());
      ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
      EXPECT_EQ(harness.runner->num_ordered(), 0u);
      for (const Ticket& ticket : tickets) {
        EXPECT_EQ(ticket.sink->summary().status, absl::UnavailableError("the device fell over"));
        EXPECT_EQ(ticket.sink->token_ids(), harness.Expected(ticket, fails_at - 1)) << at_order;
      }
      EXPECT_EQ(harness.engine->Snapshot().kv_blocks_in_use, 0);
      const Ticket later = harness.MustSubmit(MakePrompt(5, 1), 20);
      harness.RunUntilIdle();
      EXPECT_EQ(later.sink->token_ids(), harness.Expected(later, 20));
    }
  }
}

TEST(EngineAheadTest, NotANumberEndsItsOwnRequestAndIsClearedBehindTheStepUnderWay) {
  EngineHarness harness(AheadOptions());
  const Ticket sound = harness.MustSubmit(MakePrompt(5, 1), 20);
  const Ticket spoiled = harness.MustSubmit(MakePrompt(7, 2), 20);
  int num_steps = 0;
  harness.runner->after = [&](const ForwardBatch&, ForwardResult* result) {
    if (++num_steps == 6) result->logits.back() = std::numeric_limits<float>::quiet_NaN();
  };
  harness.RunUntilIdle();
  EXPECT_EQ(spoiled.sink->summary().status.code(), Code::kInternal);
  EXPECT_EQ(spoiled.sink->token_ids(), harness.Expected(spoiled, 5));
  EXPECT_FALSE(harness.runner->scrubbed.empty());
  EXPECT_EQ(sound.sink->token_ids(), harness.Expected(sound, 20));
  EXPECT_EQ(harness.engine->Snapshot().discarded_tokens, 1);
}

// Its blocks go to others, who would read what is not cleared.
TEST(EngineAheadTest, NotANumberInARowThatIsNobodysIsClearedToo) {
  for (const bool is_nan : {false, true}) {
    EngineHarness harness(AheadOptions());
    Ticket ended{.prompt = MakePrompt(6, 1)};
    const std::vector<int32_t> expected = harness.Expected(ended, 30);
    const int32_t last = FirstNewToken(expected, 9);
    const Ticket neighbor = harness.MustSubmit(MakePrompt(4, 2), 30);
    ended = harness.MustSubmit(ended.prompt, 30, StopAt(expected, last));
    while (!ended.sink->finished()) ASSERT_TRUE(harness.engine->Step());
    ASSERT_EQ(harness.runner->num_ordered(), 1u);
    harness.runner->after = [&, is_first = true](const ForwardBatch&, ForwardResult* result) mutable {
      // The last row: who came last.
      if (std::exchange(is_first, false) && is_nan) result->logits.back() = std::numeric_limits<float>::quiet_NaN();
    };
    ASSERT_TRUE(harness.engine->Step());
    harness.runner->after = nullptr;
    EXPECT_EQ(harness.engine->Snapshot().discarded_tokens, 1);
    EXPECT_EQ(harness.runner->scrubbed.empty(), !is_nan);
    EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
    harness.RunUntilIdle();
    EXPECT_EQ(neighbor.sink->token_ids(), harness.Expected(neighbor, 30));
    EXPECT_TRUE(ended.sink->summary().status.ok());
  }
}

TEST(EngineAheadTest, StoppingWaitsForTheStepUnderWay) {
  EngineHarness harness(AheadOptions());
  const Ticket a = harness.MustSubmit(MakePrompt(5, 1), 20);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(harness.engine->Step());
  ASSERT_EQ(harness.runner->num_ordered(), 1u);
  harness.engine->Stop();
  EXPECT_EQ(harness.runner->num_ordered(), 0u);
  EXPECT_EQ(a.sink->summary().status.code(), Code::kUnavailable);
  EXPECT_EQ(a.sink->token_ids(), harness.Expected(a, 6)) << "what was computed is told";
}

TEST(EngineAheadTest, NothingIsOrderedAheadWhileMemoryIsShort) {
  EngineHarness harness(AheadOptions());
  const Ticket a = harness.MustSubmit(MakePrompt(5, 1), 20);
  harness.engine->SetMemoryPressure(MemoryPressure::kEvict);
  harness.RunUntilIdle();
  EXPECT_EQ(harness.runner->most_ordered, 1u);
  EXPECT_EQ(a.sink->token_ids(), harness.Expected(a, 20));
}

struct Submitted {
  Ticket ticket;
  int32_t num_expected = 0;  // tokens of each sequence
  int32_t num_sequences = 1;
};

// Nothing but the model's own words, and all of them for who ended normally.
void CheckAnswer(const EngineHarness& harness, const Submitted& submitted) {
  ASSERT_TRUE(submitted.ticket.sink->finished());
  const std::vector<int32_t> expected = harness.Expected(submitted.ticket, submitted.num_expected);
  for (int32_t index = 0; index < submitted.num_sequences; ++index) {
    const RecordedSequence sequence = submitted.ticket.sink->sequences()[index];
    ASSERT_LE(sequence.token_ids.size(), expected.size());
    EXPECT_TRUE(std::equal(sequence.token_ids.begin(), sequence.token_ids.end(), expected.begin()));
    if (sequence.summary.status.ok()) {
      EXPECT_EQ(sequence.token_ids.size(), expected.size());
    }
  }
}

// Arrivals, ends of all kinds, cancels, deadlines and preemption by the thousand: nobody hears anything but what the
// model says, and every count is exact after every step.
TEST(EngineAheadTest, RandomMixesHearWhatTheModelSays) {
  int64_t steps_ahead = 0;
  int64_t discarded = 0;
  int64_t preemptions = 0;
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](int32_t n) { return static_cast<int32_t>(random() % static_cast<uint32_t>(n)); };
    HarnessOptions options = AheadOptions();
    options.limits.num_kv_blocks = 16 + up_to(40);
    options.engine.max_num_seqs = 3 + up_to(8);
    options.engine.max_num_batched_tokens = 16 + up_to(20);
    options.engine.max_queue_requests = 100;
    EngineHarness harness(options);
    std::vector<Submitted> all;
    for (int turn = 0; turn < 600; ++turn) {
      if (up_to(6) == 0 && all.size() < 120) {
        Submitted submitted{.ticket = {.prompt = MakePrompt(1 + up_to(20), up_to(8))}};
        const std::vector<int32_t> expected = harness.Expected(submitted.ticket, 40);
        submitted.num_expected = 1 + up_to(36);
        const int32_t kind = up_to(5);
        Edit edit;
        if (kind == 0 || kind == 1) {
          const int32_t last = FirstNewToken(expected, up_to(submitted.num_expected));
          edit = StopAt(expected, last);
          submitted.num_expected = std::min(submitted.num_expected, last + 1);
        } else if (kind == 2 && up_to(4) == 0) {
          edit = [](Request& request) { request.sampling.frequency_penalty = 1e-6f; };
        } else if (kind == 3 && up_to(3) == 0) {
          edit = [&](Request& request) { request.deadline = request.arrival + absl::Milliseconds(100 + up_to(500)); };
        }
        if (up_to(6) == 0) submitted.num_sequences = 2;
        const int32_t max_tokens = kind <= 1 ? 38 : submitted.num_expected;
        if (kind <= 1) submitted.num_expected = std::min(submitted.num_expected, max_tokens);
        submitted.ticket = harness.MustSubmit(submitted.ticket.prompt, max_tokens, [&](Request& request) {
          if (edit) edit(request);
          request.num_sequences = submitted.num_sequences;
        });
        all.push_back(submitted);
      }
      if (!all.empty() && up_to(40) == 0) all[random() % all.size()].ticket.cancel->Cancel();
      harness.engine->Step();
      ASSERT_TRUE(harness.engine->Audit().ok())
          << "seed " << seed << ", turn " << turn << ": " << harness.engine->Audit();
    }
    harness.RunUntilIdle();
    EXPECT_EQ(harness.runner->num_ordered(), 0u);
    for (const Submitted& submitted : all) CheckAnswer(harness, submitted);
    const EngineSnapshot snapshot = harness.engine->Snapshot();
    EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
    steps_ahead += snapshot.steps_ahead;
    discarded += snapshot.discarded_tokens;
    preemptions += snapshot.preemptions;
  }
  EXPECT_GT(steps_ahead, 500);
  EXPECT_GT(discarded, 50);
  EXPECT_GT(preemptions, 10);
}

}  // namespace
}  // namespace cadre
