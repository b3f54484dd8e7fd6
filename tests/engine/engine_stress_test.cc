// Many requests, small pools, cancels at random: whatever happens to a request, its neighbors hear what the model says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "engine/sample/sampler.h"
#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

using Code = absl::StatusCode;

bool IsPrefix(const std::vector<int32_t>& prefix, const std::vector<int32_t>& whole) {
  return prefix.size() <= whole.size() && std::equal(prefix.begin(), prefix.end(), whole.begin());
}

HarnessOptions SmallPool(int32_t num_blocks) {
  HarnessOptions options;
  options.limits.num_kv_blocks = num_blocks;
  options.engine.max_num_seqs = 12;
  options.engine.max_num_batched_tokens = 24;
  options.engine.max_queue_requests = 40;
  return options;
}

struct Submitted {
  Ticket ticket;
  int32_t max_tokens;
};

// Exactly one end, the promised order, and nothing but the model's own words.
void CheckAnswer(const EngineHarness& harness, const Submitted& submitted) {
  const RecordingSink& sink = *submitted.ticket.sink;
  ASSERT_EQ(sink.num_finished(), 1);
  EXPECT_TRUE(sink.in_order());
  const std::vector<int32_t> expected = harness.Expected(submitted.ticket, submitted.max_tokens);
  if (sink.summary().status.ok()) {
    EXPECT_EQ(sink.token_ids(), expected);
  } else {
    EXPECT_TRUE(IsPrefix(sink.token_ids(), expected));
  }
}

TEST(EngineStressTest, TenThousandRandomCancelsAndDeadlinesLeakNothing) {
  EngineHarness harness(SmallPool(40));
  std::mt19937 random(11);
  const auto up_to = [&](int32_t n) { return std::uniform_int_distribution<int32_t>(1, n)(random); };
  std::vector<Submitted> all;
  std::vector<size_t> live;
  int64_t num_refused = 0;
  int64_t num_cancels = 0;
  while (num_cancels < 10'000) {
    for (int32_t arrivals = up_to(3); arrivals > 1; --arrivals) {
      Submitted submitted{.ticket = {.prompt = MakePrompt(up_to(50), up_to(1000))}, .max_tokens = up_to(40)};
      Request request = harness.MakeRequest(submitted.ticket, submitted.max_tokens);
      if (up_to(8) == 1) request.deadline = request.arrival + absl::Milliseconds(up_to(300));
      const absl::Status status = harness.engine->Submit(std::move(request));
      if (status.ok()) {
        live.push_back(all.size());
        all.push_back(submitted);
      } else {
        ASSERT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
        ++num_refused;
      }
    }
    std::erase_if(live, [&](size_t i) { return all[i].ticket.sink->finished(); });
    if (!live.empty() && up_to(3) > 1) {
      const size_t victim = live[random() % live.size()];
      num_cancels += !all[victim].ticket.cancel->cancelled();
      all[victim].ticket.cancel->Cancel();
    }
    harness.engine->Step();
    const absl::Status audit = harness.engine->Audit();
    ASSERT_TRUE(audit.ok()) << "after " << harness.observer.steps.size() << " steps: " << audit.ToString();
  }
  harness.RunUntilIdle();
  for (const Submitted& submitted : all) CheckAnswer(harness, submitted);

  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
  EXPECT_EQ(snapshot.admitted_requests, static_cast<int64_t>(all.size()));
  EXPECT_EQ(snapshot.num_finished(), snapshot.admitted_requests);
  EXPECT_EQ(harness.observer.finishes.size(), all.size());
  // The storm was one: every way to end occurred, in all states.
  EXPECT_GT(snapshot.finished_ok, 50);
  EXPECT_GT(snapshot.finished_cancelled, 7000);
  EXPECT_GT(snapshot.finished_deadline, 20);
  EXPECT_GT(snapshot.preemptions, 50);
  EXPECT_GT(num_refused, 0);
  int64_t told = 0;
  for (const Submitted& submitted : all) told += static_cast<int64_t>(submitted.ticket.sink->token_ids().size());
  EXPECT_EQ(told, snapshot.generated_tokens);
}

TEST(EngineStressTest, PreemptionAtEveryPositionOfABlockChangesNoToken) {
  for (int32_t prompt_size = 1; prompt_size <= 13; ++prompt_size) {
    for (int32_t num_blocks = 7; num_blocks <= 12; ++num_blocks) {
      EngineHarness harness(SmallPool(num_blocks));
      std::vector<Submitted> all;
      for (int32_t i = 0; i < 4; ++i) {
        const int32_t max_tokens = 28 - prompt_size - i;
        all.push_back({harness.MustSubmit(MakePrompt(prompt_size + i, i), max_tokens), max_tokens});
      }
      while (harness.engine->Step()) ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit().ToString();
      for (const Submitted& submitted : all) CheckAnswer(harness, submitted);
      EXPECT_EQ(harness.engine->Snapshot().finished_ok, 4);
    }
  }
}

// Who lost its blocks ends like anybody else, at once and without being computed again.
TEST(EngineStressTest, APreemptedRequestIsCancelledAndExpiresWhereItWaits) {
  for (const bool expires : {false, true}) {
    EngineHarness harness(SmallPool(10));
    const Ticket kept = harness.MustSubmit(MakePrompt(12, 1), 26);
    const Ticket victim = harness.MustSubmit(MakePrompt(12, 2), 26, [&](Request& request) {
      if (expires) request.deadline = request.arrival + absl::Seconds(100);
    });
    while (harness.engine->Snapshot().preemptions == 0) ASSERT_TRUE(harness.engine->Step());
    ASSERT_EQ(harness.engine->Snapshot().waiting_requests, 1);
    const size_t num_tokens = victim.sink->token_ids().size();
    if (expires) {
      harness.clock->Advance(absl::Seconds(100));
    } else {
      victim.cancel->Cancel();
    }
    ASSERT_TRUE(harness.engine->Step());
    ASSERT_TRUE(victim.sink->finished());
    EXPECT_EQ(victim.sink->summary().status.code(), expires ? Code::kDeadlineExceeded : Code::kCancelled);
    EXPECT_EQ(victim.sink->token_ids().size(), num_tokens);
    harness.RunUntilIdle();
    EXPECT_EQ(kept.sink->token_ids(), harness.Expected(kept, 26));
    EXPECT_EQ(harness.engine->Snapshot().recomputed_tokens, 0);
  }
}

// Demand of ten times the pool. What a preemption costs is recomputed rows.
TEST(EngineStressTest, APreemptionStormStaysCheap) {
  HarnessOptions options = SmallPool(160);
  options.engine.max_num_seqs = 64;
  options.engine.max_num_batched_tokens = 256;
  options.engine.max_queue_requests = 1000;
  EngineHarness harness(options);
  std::mt19937 random(5);
  std::vector<Submitted> all;
  for (int32_t i = 0; i < 160; ++i) {
    const int32_t max_tokens = 10 + static_cast<int32_t>(random() % 50);
    all.push_back({harness.MustSubmit(MakePrompt(5 + static_cast<int32_t>(random() % 20), i), max_tokens), max_tokens});
  }
  harness.RunUntilIdle();
  int32_t most_preemptions = 0;
  for (const Submitted& submitted : all) {
    CheckAnswer(harness, submitted);
    most_preemptions = std::max(most_preemptions, submitted.ticket.sink->summary().num_preemptions);
  }
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_GT(snapshot.preemptions, 10);
  EXPECT_LE(most_preemptions, 4);
  EXPECT_LE(snapshot.recomputed_tokens * 4, snapshot.prefill_tokens + snapshot.decode_tokens);
}

// What a neighbor does, even when it is cancelled in the middle, is not heard.
TEST(EngineStressTest, SampledTokensDoNotDependOnTheBatch) {
  const auto run = [](int32_t num_neighbors, int32_t rows) {
    HarnessOptions options = SmallPool(200);
    options.engine.max_num_batched_tokens = rows;
    EngineHarness harness(options);
    // Flat logits: the choice is the sampler's.
    harness.runner->after = [](const ForwardBatch&, ForwardResult* result) {
      for (float& logit : result->logits) logit *= 0.02f;
    };
    std::vector<Ticket> neighbors;
    for (int32_t i = 0; i < num_neighbors; ++i) neighbors.push_back(harness.MustSubmit(MakePrompt(9, 100 + i), 30));
    const Ticket ticket = harness.MustSubmit(MakePrompt(17, 1), 25, [](Request& request) {
      request.sampling.temperature = 0.9f;
      request.sampling.top_p = 0.95f;
      request.sampling.seed = 1234;
    });
    for (int step = 0; harness.engine->Step(); ++step) {
      if (step == 6 && !neighbors.empty()) neighbors.front().cancel->Cancel();
    }
    return ticket.sink->token_ids();
  };
  const std::vector<int32_t> alone = run(0, 24);
  ASSERT_EQ(alone.size(), 25u);
  EXPECT_EQ(run(7, 24), alone);
  EXPECT_EQ(run(3, 5), alone);
  EXPECT_EQ(run(11, 12), alone);
}

TEST(EngineStressTest, TheIthTokenIsTheIthDraw) {
  EngineHarness harness;
  std::vector<std::vector<float>> rows;
  harness.runner->after = [&](const ForwardBatch&, ForwardResult* result) {
    for (float& logit : result->logits) logit *= 0.02f;
    rows.push_back(result->logits);
  };
  const Ticket ticket = harness.MustSubmit(MakePrompt(5, 1), 20, [](Request& request) {
    request.sampling.temperature = 0.8f;
    request.sampling.top_k = 300;
    request.sampling.top_p = 0.9f;
    request.sampling.min_p = 0.1f;
    request.sampling.seed = 77;
  });
  harness.RunUntilIdle();
  const std::vector<int32_t> tokens = ticket.sink->token_ids();
  ASSERT_EQ(tokens.size(), 20u);
  ASSERT_EQ(rows.size(), 20u);
  Sampler sampler;
  for (size_t i = 0; i < 20; ++i) {
    const SampleOptions options{
        .temperature = 0.8f, .top_k = 300, .top_p = 0.9f, .min_p = 0.1f, .seed = 77, .index = i};
    EXPECT_EQ(tokens[i], *sampler.Sample(rows[i], options)) << "token " << i;
  }
}

}  // namespace
}  // namespace cadre
