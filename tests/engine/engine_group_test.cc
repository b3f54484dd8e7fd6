// Requests of several sequences: one request in every counter, n answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/support/engine_harness.h"

namespace cadre {
namespace {

using Code = absl::StatusCode;

constexpr size_t kVocabSize = 512;  // of the harness

// Logits that leave a choice: the simulator's own are one-hot.
void Flatten(EngineHarness* harness) {
  harness->runner->after = [](const ForwardBatch&, ForwardResult* result) {
    for (size_t i = 0; i < result->logits.size(); ++i) {
      result->logits[i] = result->logits[i] / 16.0f + static_cast<float>(i % kVocabSize % 7) * 0.3f;
    }
  };
}

void Random(Request& request, uint64_t seed, int32_t n) {
  request.sampling.temperature = 1.0f;
  request.sampling.seed = seed;
  request.num_sequences = n;
}

std::vector<std::vector<int32_t>> Answers(const RecordingSink& sink) {
  std::vector<std::vector<int32_t>> answers;
  for (const auto& [index, sequence] : sink.sequences()) answers.push_back(sequence.token_ids);
  return answers;
}

// What a request says when nobody else is served.
std::vector<std::vector<int32_t>> AnswersAlone(const std::vector<int32_t>& prompt, int32_t max_tokens, uint64_t seed,
                                               int32_t n) {
  EngineHarness harness;
  Flatten(&harness);
  const Ticket ticket = harness.MustSubmit(prompt, max_tokens, [&](Request& request) { Random(request, seed, n); });
  harness.RunUntilIdle();
  return Answers(*ticket.sink);
}

void CheckCounters(const EngineHarness& harness, int64_t ok, int64_t cancelled, int64_t deadline, int64_t failed) {
  const EngineSnapshot snapshot = harness.engine->Snapshot();
  EXPECT_EQ(snapshot.admitted_requests, ok + cancelled + deadline + failed);
  EXPECT_EQ(snapshot.finished_ok, ok);
  EXPECT_EQ(snapshot.finished_cancelled, cancelled);
  EXPECT_EQ(snapshot.finished_deadline, deadline);
  EXPECT_EQ(snapshot.finished_failed, failed);
  EXPECT_EQ(snapshot.waiting_requests + snapshot.running_requests, 0);
  EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
  EXPECT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
}

TEST(EngineGroupTest, NSequencesAnswerEachByItself) {
  EngineHarness harness;
  Flatten(&harness);
  const Ticket ticket = harness.MustSubmit(MakePrompt(9, 1), 20, [](Request& request) { Random(request, 5, 4); });
  EXPECT_EQ(harness.engine->Snapshot().waiting_requests, 1);
  harness.engine->Step();
  EXPECT_EQ(harness.engine->Snapshot().running_requests, 1);
  EXPECT_EQ(harness.engine->Snapshot().prompt_tokens, 9);
  harness.RunUntilIdle();
  const auto answers = Answers(*ticket.sink);
  ASSERT_EQ(answers.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answers[i].size(), 20u);
    for (size_t k = 0; k < i; ++k) EXPECT_NE(answers[i], answers[k]);
  }
  EXPECT_TRUE(ticket.sink->in_order());
  EXPECT_EQ(ticket.sink->num_started(), 1);
  EXPECT_EQ(ticket.sink->num_finished(), 1);
  for (const auto& [index, sequence] : ticket.sink->sequences()) {
    EXPECT_EQ(sequence.num_finished, 1);
    EXPECT_EQ(sequence.summary.reason, FinishReason::kLength);
    EXPECT_EQ(sequence.summary.usage.prompt_tokens, 9);
    EXPECT_EQ(sequence.summary.usage.generated_tokens, 20);
  }
  EXPECT_EQ(harness.observer.finishes.size(), 4u);
  EXPECT_EQ(std::ranges::count_if(harness.observer.finishes, &FinishSummary::is_last), 1);
  EXPECT_EQ(harness.engine->Snapshot().generated_tokens, 80);
  CheckCounters(harness, 1, 0, 0, 0);
}

TEST(EngineGroupTest, SequenceIOfNIsTheSameWhateverNIs) {
  const std::vector<int32_t> prompt = MakePrompt(6, 2);
  const auto four = AnswersAlone(prompt, 12, 9, 4);
  const auto one = AnswersAlone(prompt, 12, 9, 1);
  const auto two = AnswersAlone(prompt, 12, 9, 2);
  EXPECT_EQ(one[0], four[0]);
  EXPECT_EQ(two[0], four[0]);
  EXPECT_EQ(two[1], four[1]);
}

TEST(EngineGroupTest, MoreSequencesThanTheEngineRunsAtOnceWaitTheirTurn) {
  HarnessOptions options;
  options.engine.max_num_seqs = 3;
  options.engine.max_queue_requests = 1;  // one place, taken once
  EngineHarness harness(options);
  Flatten(&harness);
  const Ticket ticket = harness.MustSubmit(MakePrompt(9, 1), 5, [](Request& request) { Random(request, 5, 128); });
  Ticket refused{.prompt = MakePrompt(3, 3)};
  EXPECT_EQ(harness.engine->Submit(harness.MakeRequest(refused, 1)).code(), Code::kResourceExhausted);
  harness.engine->Step();
  EXPECT_TRUE(harness.engine->Submit(harness.MakeRequest(refused, 1)).ok()) << "the place is free once it runs";
  while (harness.engine->Step()) ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  EXPECT_EQ(Answers(*ticket.sink), AnswersAlone(ticket.prompt, 5, 5, 128));
  CheckCounters(harness, 2, 0, 0, 0);
}

TEST(EngineGroupTest, ACancelEndsAllSequences) {
  EngineHarness harness;
  Flatten(&harness);
  const Ticket waits = harness.MustSubmit(MakePrompt(9, 1), 50, [](Request& request) { Random(request, 5, 3); });
  waits.cancel->Cancel();
  const Ticket runs = harness.MustSubmit(MakePrompt(9, 1), 50, [](Request& request) { Random(request, 5, 3); });
  for (int i = 0; i < 4; ++i) harness.engine->Step();
  runs.cancel->Cancel();
  harness.RunUntilIdle();
  for (const Ticket& ticket : {waits, runs}) {
    ASSERT_EQ(ticket.sink->sequences().size(), 3u);
    for (const auto& [index, sequence] : ticket.sink->sequences()) {
      EXPECT_EQ(sequence.summary.status.code(), Code::kCancelled);
      EXPECT_EQ(sequence.num_finished, 1);
    }
    EXPECT_TRUE(ticket.sink->in_order());
  }
  EXPECT_EQ(waits.sink->num_started(), 0);
  CheckCounters(harness, 0, 2, 0, 0);
}

TEST(EngineGroupTest, OneBrokenSequenceFailsItsRequestAndNoOther) {
  EngineHarness harness;
  const Ticket broken = harness.MustSubmit(MakePrompt(9, 1), 10, [](Request& request) { Random(request, 5, 3); });
  const Ticket whole = harness.MustSubmit(MakePrompt(9, 2), 10);
  int step = 0;
  harness.runner->after = [&](const ForwardBatch& batch, ForwardResult* result) {
    // The least senior of four: a sequence that had waited for the first of its request.
    if (++step == 6) result->logits[(batch.logit_rows.size() - 1) * kVocabSize + 3] = std::nanf("");
  };
  while (harness.engine->Step()) ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  ASSERT_EQ(broken.sink->sequences().size(), 3u);
  for (const auto& [index, sequence] : broken.sink->sequences()) {
    EXPECT_EQ(sequence.summary.status.code(), Code::kInternal) << index;
  }
  EXPECT_TRUE(broken.sink->in_order());
  EXPECT_EQ(whole.sink->token_ids(), harness.Expected(whole, 10));
  CheckCounters(harness, 1, 0, 0, 1);
}

TEST(EngineGroupTest, StoppingTheEngineEndsEverySequence) {
  EngineHarness harness;
  const Ticket ticket = harness.MustSubmit(MakePrompt(9, 1), 50, [](Request& request) { Random(request, 5, 3); });
  for (int i = 0; i < 3; ++i) harness.engine->Step();
  harness.engine->Stop();
  ASSERT_EQ(ticket.sink->sequences().size(), 3u);
  for (const auto& [index, sequence] : ticket.sink->sequences()) {
    EXPECT_EQ(sequence.summary.status.code(), Code::kUnavailable);
  }
  EXPECT_TRUE(ticket.sink->in_order());
  CheckCounters(harness, 0, 0, 0, 1);
}

// Preemptions, cancels and deadlines among requests of many sizes: whoever ends well says what it says alone.
TEST(EngineGroupTest, NothingAroundAGroupChangesItsAnswer) {
  HarnessOptions options;
  options.limits.num_kv_blocks = 24;
  options.engine.max_num_seqs = 8;
  options.engine.max_num_batched_tokens = 24;
  EngineHarness harness(options);
  Flatten(&harness);
  std::mt19937 random(3);
  const auto up_to = [&](int32_t n) { return std::uniform_int_distribution<int32_t>(1, n)(random); };
  struct Submitted {
    Ticket ticket;
    int32_t max_tokens, n;
    uint64_t seed;
  };
  std::vector<Submitted> all;
  int64_t num_preemptions = 0;
  for (int i = 0; i < 600; ++i) {
    if (i < 400 && up_to(4) == 1) {
      const int32_t max_tokens = up_to(30), n = up_to(8);
      const auto seed = static_cast<uint64_t>(i);
      const Ticket ticket = harness.MustSubmit(MakePrompt(up_to(40), up_to(1000)), max_tokens, [&](Request& request) {
        Random(request, seed, n);
        if (up_to(6) == 1) request.deadline = request.arrival + absl::Milliseconds(up_to(2000));
      });
      all.push_back({ticket, max_tokens, n, seed});
    }
    if (!all.empty() && up_to(40) == 1) all[random() % all.size()].ticket.cancel->Cancel();
    harness.engine->Step();
    ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  }
  while (harness.engine->Step()) ASSERT_TRUE(harness.engine->Audit().ok()) << harness.engine->Audit();
  int64_t num_ok = 0;
  for (const Submitted& submitted : all) {
    const RecordingSink& sink = *submitted.ticket.sink;
    ASSERT_EQ(sink.num_finished(), 1);
    EXPECT_TRUE(sink.in_order());
    EXPECT_EQ(std::ssize(sink.sequences()), submitted.n);
    for (const auto& [index, sequence] : sink.sequences()) num_preemptions += sequence.summary.num_preemptions;
    if (!sink.summary().status.ok()) continue;
    ++num_ok;
    EXPECT_EQ(Answers(sink), AnswersAlone(submitted.ticket.prompt, submitted.max_tokens, submitted.seed, submitted.n));
  }
  EXPECT_GT(num_ok, 30);
  EXPECT_GT(num_preemptions, 20);
  EXPECT_EQ(harness.engine->Snapshot().finished_ok, num_ok);
}

}  // namespace
}  // namespace cadre
