// TokenStream with a pump: what leaves when, and with what.
#include <gtest/gtest.h>

#include <chrono>
#include <latch>
#include <memory>
#include <string>
#include <vector>

#include "tests/server/token_stream_fixture.h"

namespace cadre {
namespace {

// Streams whose messages leave on the pump's thread.
class PumpedTokenStreamTest : public TokenStreamTest {
 protected:
  explicit PumpedTokenStreamTest(TokenStreamOptions options = {}) {
    options.pump = &pump_;
    stream_ = std::make_shared<TokenStream>(&writer_, &host_, &metrics_, options, clock_->now + absl::Minutes(1));
  }
  ~PumpedTokenStreamTest() override { pump_.Stop(); }

  // Until the pump has done what was asked for by now.
  void AwaitPump() {
    auto turn = std::make_shared<Turn>();
    pump_.Post(turn, StreamPump::Time::min());
    turn->done.wait();
  }

  struct Turn final : Pumped {
    void PumpNow() override { done.count_down(); }
    std::latch done{1};
  };

  StreamPump pump_;
};

class PatientTokenStreamTest : public PumpedTokenStreamTest {
 protected:
  PatientTokenStreamTest() : PumpedTokenStreamTest({.min_interval = absl::Hours(1)}) {}
};

class SharingTokenStreamTest : public PumpedTokenStreamTest {
 protected:
  SharingTokenStreamTest() : PumpedTokenStreamTest({.interval_per_call = absl::Hours(1)}) {}
  void SendFirstToken() {
    stream_->OnStarted({});
    AwaitPump();
    WriteDone();
    Token("a");
    AwaitPump();
    WriteDone();
  }
};

TEST_F(SharingTokenStreamTest, WhoSharesTheServerSendsLessOftenButNotForLong) {
  host_.CallOpened();
  SendFirstToken();
  const auto sent = std::chrono::steady_clock::now();
  Token("b");
  while (!writer_.in_flight && std::chrono::steady_clock::now() < sent + std::chrono::seconds(30)) AwaitPump();
  EXPECT_TRUE(writer_.in_flight) << "an hour for each call, bounded by kMaxSharedInterval";
  EXPECT_GE(std::chrono::steady_clock::now() - sent, std::chrono::milliseconds(25));
  WriteDone();
}

TEST_F(SharingTokenStreamTest, NobodyWaitsForCallsThatHaveEnded) {
  host_.CallOpened();
  host_.CallClosed();
  SendFirstToken();
  Token("b");
  AwaitPump();
  EXPECT_TRUE(writer_.in_flight);
  WriteDone();
}

TEST_F(PumpedTokenStreamTest, EventsLeaveInOrderOneAtATime) {
  stream_->Queued();
  stream_->OnStarted({});
  AwaitPump();
  Token("a");
  Token("b");
  WriteDone();
  Token("c");
  End(absl::OkStatus(), "!");
  for (int i = 0; i < 2; ++i) {
    AwaitPump();
    WriteDone();
  }
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"metadata", "started", "delta ab", "delta c", "finished ! ."}));
  EXPECT_TRUE(writer_.status->ok());
}

TEST_F(PumpedTokenStreamTest, WhatTheEngineSaysIsNotWrittenOnItsThread) {
  std::latch may_go(1);
  struct Block final : Pumped {
    explicit Block(std::latch* latch) : latch_(latch) {}
    void PumpNow() override { latch_->wait(); }
    std::latch* const latch_;
  };
  pump_.Post(std::make_shared<Block>(&may_go), StreamPump::Time::min());
  stream_->OnStarted({});
  Token("a");
  EXPECT_TRUE(writer_.log.empty());
  may_go.count_down();
  AwaitPump();
  EXPECT_EQ(writer_.log, std::vector<std::string>{"started"});
  WriteDone();
}

TEST_F(PumpedTokenStreamTest, AStreamGoesOnWhenThePumpHasStopped) {
  pump_.Stop();
  stream_->OnStarted({});
  WriteDone();
  Token("a");
  WriteDone();
  End();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "delta a", "finished  ."}));
}

TEST_F(PatientTokenStreamTest, TheFirstTokenAndTheEndDoNotWaitAndTheRestTravelsTogether) {
  stream_->OnStarted({});
  AwaitPump();
  WriteDone();
  Token("a");
  AwaitPump();
  WriteDone();
  Token("b");
  Token("c");
  AwaitPump();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "delta a"}));
  End(absl::OkStatus(), "!");
  AwaitPump();
  WriteDone();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "delta a", "delta bc", "finished ! ."}));
  EXPECT_TRUE(writer_.status->ok());
}

TEST_F(PatientTokenStreamTest, OnlyWhatIsFollowedAtOnceMayWaitForTheNext) {
  stream_->OnStarted({});
  AwaitPump();
  Token("a");
  stream_->OnTokens({.index = 1, .text = "x", .token_ids = {1}});
  WriteDone();
  AwaitPump();
  WriteDone();
  AwaitPump();
  Token("b");  // has to wait an hour
  stream_->OnTokens({.index = 1, .text = "y", .token_ids = {1}});
  WriteDone();
  AwaitPump();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "delta a", "delta x"}));
}

TEST_F(PatientTokenStreamTest, AFinishedWriteDoesNotHurryTheNext) {
  stream_->OnStarted({});
  AwaitPump();
  WriteDone();
  Token("a");
  AwaitPump();
  Token("b");
  WriteDone();
  AwaitPump();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "delta a"}));
  EXPECT_FALSE(writer_.in_flight);
}

TEST(StreamPumpTest, TheEarliestDueIsFirstAndStopPumpsTheRest) {
  std::vector<int> order;
  struct Note final : Pumped {
    Note(std::vector<int>* out, int number) : out_(out), number_(number) {}
    void PumpNow() override { out_->push_back(number_); }
    std::vector<int>* const out_;
    const int number_;
  };
  StreamPump pump;
  const auto later = std::chrono::steady_clock::now() + std::chrono::hours(1);
  EXPECT_TRUE(pump.Post(std::make_shared<Note>(&order, 3), later + std::chrono::seconds(1)));
  EXPECT_TRUE(pump.Post(std::make_shared<Note>(&order, 1), later));
  EXPECT_TRUE(pump.Post(std::make_shared<Note>(&order, 2), later));
  pump.Stop();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_FALSE(pump.Post(std::make_shared<Note>(&order, 4), later));
}

TEST(StreamPumpTest, WhatIsDueLaterIsPumpedThen) {
  struct Note final : Pumped {
    void PumpNow() override {
      when = std::chrono::steady_clock::now();
      done.count_down();
    }
    StreamPump::Time when;
    std::latch done{1};
  };
  StreamPump pump;
  auto note = std::make_shared<Note>();
  const auto due = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  pump.Post(note, due);
  note->done.wait();
  EXPECT_GE(note->when, due);
}

TEST_F(TokenStreamTest, TheTimingsOfARequestCoverAllItsSequences) {
  const auto end = [this](int32_t index, bool is_last, const RequestTimings& timings) {
    FinishSummary summary;
    summary.index = index;
    summary.is_last = is_last;
    summary.timings = timings;
    summary.routing = {.processed = 10, .dropped = 2, .lost_gate_weight = 0.5, .total_gate_weight = 4.0};
    stream_->OnFinish(std::move(summary));
    if (!is_last) WriteDone();
  };
  end(2, false, {{}, {}, {}, absl::Seconds(4)});  // its time was over while it waited
  end(0, false, {absl::Seconds(1), absl::Seconds(3), absl::Seconds(4), absl::Seconds(8)});
  // The second one had to wait for the prompt of the first.
  end(1, true, {absl::Seconds(5), absl::Seconds(1), absl::Seconds(3), absl::Seconds(9)});
  ASSERT_TRUE(writer_.totals.has_value());
  EXPECT_EQ(writer_.totals->timings.queue, absl::Seconds(1));
  EXPECT_EQ(writer_.totals->timings.prefill, absl::Seconds(3));
  EXPECT_EQ(writer_.totals->timings.decode, absl::Seconds(5));
  EXPECT_EQ(writer_.totals->timings.total, absl::Seconds(9));
  EXPECT_EQ(RoutingTrailer(writer_.totals->routing),
            "processed=30;rerouted=0;reweighted=0;dropped=6;gate_weight=12;lost_gate_weight=1.5;fidelity=0.875");
}

TEST_F(TokenStreamTest, OutboxBytesAreGivenBack) {
  const auto outbox_bytes = [this] {
    const std::string page = metrics_.RenderDefaultPage();
    const size_t at = page.find("\ncadre_stream_outbox_bytes ");
    return at == std::string::npos ? -1.0 : std::stod(page.substr(at + 27));
  };
  stream_->OnStarted({});
  Token("12345678");
  EXPECT_EQ(outbox_bytes(), 12);
  stream_->OnCancel();
  EXPECT_EQ(outbox_bytes(), 0);
}

}  // namespace
}  // namespace cadre
