// The engine with its own thread: many callers, cancels from anywhere, drains and stops. Run under ThreadSanitizer too.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/model/simulated_runner.h"
#include "tests/support/engine_harness.h"
#include "tests/support/recording_sink.h"
#include "tests/support/running_engine.h"

namespace cadre {
namespace {

TEST(EngineThreadTest, ManyThreadsSubmitAndCancel) {
  RunningEngine running({.max_num_seqs = 8, .max_num_batched_tokens = 32, .max_queue_requests = 16});
  constexpr int kThreads = 4;
  constexpr int kRequests = 600;
  std::atomic<int64_t> num_accepted = 0;
  std::vector<std::vector<Ticket>> accepted(kThreads);
  std::vector<std::thread> callers;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      std::vector<Ticket>& mine = accepted[static_cast<size_t>(t)];
      for (int i = 0; i < kRequests; ++i) {
        const Ticket ticket{.prompt = MakePrompt(1 + static_cast<int32_t>(random() % 40), t * kRequests + i)};
        const bool hurries = random() % 10 == 0;
        const absl::Status status = running.Submit(ticket, 1 + static_cast<int32_t>(random() % 30),
                                                   hurries ? absl::Microseconds(300) : absl::InfiniteDuration());
        if (status.ok()) {
          ++num_accepted;
          mine.push_back(ticket);
        } else if (!mine.empty()) {
          mine[random() % mine.size()].sink->AwaitFinish();
        }
        if (random() % 2 == 0 && !mine.empty()) {
          mine[random() % mine.size()].cancel->Cancel();
          running.engine->Wake();
        }
      }
    });
  }
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done) {
      const EngineSnapshot s = running.engine->Snapshot();
      EXPECT_EQ(s.admitted_requests, s.num_finished() + s.waiting_requests + s.running_requests);
      EXPECT_EQ(s.kv_blocks_free + s.kv_blocks_in_use + s.kv_blocks_cached, s.kv_blocks_total);
      std::this_thread::yield();
    }
  });
  for (std::thread& caller : callers) caller.join();
  running.engine->StartDrain();
  EXPECT_TRUE(running.engine->AwaitIdle(absl::InfiniteFuture()));
  done = true;
  reader.join();
  const EngineSnapshot snapshot = running.engine->Snapshot();
  running.engine.reset();
  EXPECT_TRUE(running.observer.failure.ok()) << running.observer.failure.ToString();
  EXPECT_EQ(snapshot.admitted_requests, num_accepted);
  EXPECT_EQ(snapshot.num_finished(), num_accepted);
  EXPECT_EQ(running.observer.num_finished, num_accepted);
  EXPECT_EQ(snapshot.finished_failed, 0);
  EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
  EXPECT_GT(snapshot.finished_ok, 0);
  EXPECT_GT(snapshot.finished_cancelled, 0);
  for (const std::vector<Ticket>& tickets : accepted) {
    for (const Ticket& ticket : tickets) {
      ASSERT_EQ(ticket.sink->num_finished(), 1);
      EXPECT_TRUE(ticket.sink->in_order());
      const std::vector<int32_t> tokens = ticket.sink->token_ids();
      EXPECT_EQ(tokens, SimulatedRunner::ExpectedTokens(ticket.prompt, static_cast<int32_t>(tokens.size()), 512));
    }
  }
}

TEST(EngineThreadTest, WhoeverHearsTheEndFindsItselfCounted) {
  RunningEngine running({});
  for (int64_t i = 1; i <= 50; ++i) {
    const Ticket ticket{.prompt = MakePrompt(3, static_cast<int32_t>(i))};
    ASSERT_TRUE(running.Submit(ticket, 2).ok());
    ticket.sink->AwaitFinish();
    EXPECT_EQ(running.engine->Snapshot().finished_ok, i);
  }
}

TEST(EngineThreadTest, IdleCostsNothingAndWakesAtOnce) {
  RunningEngine running({});
  const Ticket warm_up{.prompt = MakePrompt(3, 1)};
  ASSERT_TRUE(running.Submit(warm_up, 2).ok());
  ASSERT_TRUE(running.engine->AwaitIdle(absl::InfiniteFuture()));
  const int64_t num_steps = running.observer.num_steps;
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double cpu_seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(cpu_seconds, 0.1);
  EXPECT_EQ(running.observer.num_steps, num_steps);
  const Ticket ticket{.prompt = MakePrompt(3, 2)};
  ASSERT_TRUE(running.Submit(ticket, 2).ok());
  ticket.sink->AwaitFinish();
  EXPECT_TRUE(ticket.sink->summary().status.ok());
}

TEST(EngineThreadTest, ACancelIsHeardWithinAStep) {
  RunningEngine running({}, absl::Milliseconds(5));
  const Ticket ticket{.prompt = MakePrompt(3, 1)};
  ASSERT_TRUE(running.Submit(ticket, 150).ok());
  while (ticket.sink->num_deltas() < 3) std::this_thread::yield();
  ticket.cancel->Cancel();
  const int num_deltas = ticket.sink->num_deltas();
  ticket.sink->AwaitFinish();
  EXPECT_EQ(ticket.sink->summary().status.code(), absl::StatusCode::kCancelled);
  EXPECT_LE(ticket.sink->num_deltas(), num_deltas + 1);
}

TEST(EngineThreadTest, DrainWaitsForWhatRunsAndStopDoesNot) {
  RunningEngine running({}, absl::Milliseconds(20));
  std::vector<Ticket> tickets;
  for (int32_t i = 0; i < 5; ++i) {
    tickets.push_back({.prompt = MakePrompt(3, i)});
    ASSERT_TRUE(running.Submit(tickets.back(), 100).ok());
  }
  running.engine->StartDrain();
  EXPECT_EQ(running.Submit(Ticket{.prompt = {1}}, 1).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(running.engine->AwaitIdle(running.clock->Now() + absl::Milliseconds(20)));
  running.engine.reset();
  EXPECT_LT(running.observer.num_steps, 50);  // two or so on an idle machine; draining takes a hundred
  for (const Ticket& ticket : tickets) {
    EXPECT_EQ(ticket.sink->num_finished(), 1);
    EXPECT_EQ(ticket.sink->summary().status.code(), absl::StatusCode::kUnavailable);
  }
}

}  // namespace
}  // namespace cadre
