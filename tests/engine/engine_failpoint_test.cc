// The engine with delays and errors at every failpoint. Built with CADRE_FAILPOINTS alone: the presets asan and tsan.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/failpoint.h"
#include "tests/support/running_engine.h"

namespace cadre {
namespace {

constexpr int kRequestsPerPoint = 1000;
constexpr int32_t kVocabSize = 512;

// Everything the engine passes on the way of a request.
const char* const kPoints[] = {"queue.push",      "engine.admit",   "engine.plan",    "scheduler.preempt",
                               "blocks.allocate", "blocks.release", "engine.forward", "engine.sample",
                               "engine.publish",  "engine.end",     "engine.farewell"};

struct Load {
  std::vector<Ticket> accepted;
  int num_refused = 0;
};

// Sends requests as fast as the queue takes them, and cancels random ones at random times.
Load SendAndCancel(RunningEngine* running, uint32_t seed) {
  std::mt19937 random(seed);
  Load load;
  for (int i = 0; i < kRequestsPerPoint; ++i) {
    const Ticket ticket{.prompt = MakePrompt(1 + static_cast<int32_t>(random() % 24), i)};
    if (running->Submit(ticket, 1 + static_cast<int32_t>(random() % 40)).ok()) {
      load.accepted.push_back(ticket);
    } else {
      ++load.num_refused;
      if (!load.accepted.empty()) load.accepted.back().sink->AwaitFinish();
    }
    if (random() % 2 == 0 && !load.accepted.empty()) {
      load.accepted[load.accepted.size() - 1 - random() % std::min<size_t>(load.accepted.size(), 12)].cancel->Cancel();
      running->engine->Wake();
    }
  }
  return load;
}

class EngineFailpointTest : public ::testing::Test {
 protected:
  EngineFailpointTest() { failpoint::Reset(); }
  ~EngineFailpointTest() override { failpoint::Reset(); }

  static EngineOptions Options() { return {.max_num_seqs = 8, .max_num_batched_tokens = 32, .max_queue_requests = 32}; }

  // One end, one release, no foreign token for each of them; the audit exact.
  static void ExpectClean(RunningEngine* running, const Load& load) {
    running->engine->StartDrain();
    EXPECT_TRUE(running->engine->AwaitIdle(absl::InfiniteFuture()));
    const EngineSnapshot snapshot = running->engine->Snapshot();
    running->engine.reset();
    EXPECT_TRUE(running->observer.failure.ok()) << running->observer.failure;
    EXPECT_EQ(snapshot.admitted_requests, std::ssize(load.accepted));
    EXPECT_EQ(snapshot.num_finished(), std::ssize(load.accepted));
    EXPECT_EQ(snapshot.kv_blocks_in_use, 0);
    for (const Ticket& ticket : load.accepted) {
      ASSERT_EQ(ticket.sink->num_finished(), 1);
      EXPECT_TRUE(ticket.sink->in_order());
      const std::vector<int32_t> tokens = ticket.sink->token_ids();
      EXPECT_EQ(tokens,
                SimulatedRunner::ExpectedTokens(ticket.prompt, static_cast<int32_t>(tokens.size()), kVocabSize));
    }
  }
};

TEST_F(EngineFailpointTest, CancelsAroundADelayAtEachPointEndEachRequestOnce) {
  for (const char* point : kPoints) {
    SCOPED_TRACE(point);
    failpoint::Reset();
    RunningEngine running(Options());
    ASSERT_TRUE(failpoint::Configure(point, "20%sleep(1)->30%yield").ok());
    const Load load = SendAndCancel(&running, 7);
    EXPECT_GT(failpoint::Hits()[point], 0) << "the load does not pass it";
    ExpectClean(&running, load);
  }
}

TEST_F(EngineFailpointTest, FailedStepsFailTheirRequestsAndNoOthers) {
  RunningEngine running(Options());
  ASSERT_TRUE(failpoint::Configure("engine.forward", "5%return(the device is lost)").ok());
  const Load load = SendAndCancel(&running, 8);
  ExpectClean(&running, load);
  int num_failed = 0;
  int num_ok = 0;
  for (const Ticket& ticket : load.accepted) {
    const absl::Status status = ticket.sink->summary().status;
    num_ok += status.ok();
    if (status.ok() || absl::IsCancelled(status)) continue;
    ++num_failed;
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("the device is lost"));
  }
  EXPECT_GT(num_failed, 0);
  EXPECT_GT(num_ok, 0);
}

TEST_F(EngineFailpointTest, ARequestThatFoundNoPlaceIsNeverHeardOf) {
  RunningEngine running(Options());
  ASSERT_TRUE(failpoint::Configure("queue.push", "1*return(no place)").ok());
  const Ticket ticket{.prompt = MakePrompt(4, 1)};
  EXPECT_TRUE(absl::IsInternal(running.Submit(ticket, 4)));
  const Ticket next{.prompt = MakePrompt(4, 2)};
  EXPECT_TRUE(running.Submit(next, 4).ok());
  next.sink->AwaitFinish();
  EXPECT_EQ(ticket.sink->num_started() + ticket.sink->num_deltas() + ticket.sink->num_finished(), 0);
  ExpectClean(&running, {.accepted = {next}});
}

// A deadline that passes while a step hangs ends its request at the step's end, and the others go on.
TEST_F(EngineFailpointTest, AHangingStepDelaysNoVerdictByMoreThanItself) {
  RunningEngine running(Options());
  ASSERT_TRUE(failpoint::Configure("engine.forward", "1*sleep(50)").ok());
  const Ticket hurried{.prompt = MakePrompt(4, 1)};
  const Ticket patient{.prompt = MakePrompt(4, 2)};
  ASSERT_TRUE(running.Submit(patient, 4).ok());
  ASSERT_TRUE(running.Submit(hurried, 100, absl::Milliseconds(20)).ok());
  hurried.sink->AwaitFinish();
  EXPECT_TRUE(absl::IsDeadlineExceeded(hurried.sink->summary().status)) << hurried.sink->summary().status;
  patient.sink->AwaitFinish();
  EXPECT_TRUE(patient.sink->summary().status.ok());
  ExpectClean(&running, {.accepted = {hurried, patient}});
}

}  // namespace
}  // namespace cadre
