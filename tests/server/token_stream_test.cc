#include "server/token_stream.h"

#include <gtest/gtest.h>

#include <latch>
#include <string>
#include <vector>

#include "server/errors.h"
#include "server/metrics.h"
#include "server/model_host.h"

namespace cadre {
namespace {

// Time that a test moves, from one thread.
class ManualClock final : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Time now = absl::UnixEpoch() + absl::Hours(1);
};

// A call whose connection takes a message when the test says so.
class FakeWriter final : public ResponseWriter {
 public:
  void SetRequestId(const std::string& id) override { log.push_back("id " + id); }
  void SendInitialMetadata() override { log.push_back("metadata"); }
  bool Write(const v1::GenerateResponse& event) override {
    EXPECT_FALSE(in_flight) << "two writes in flight";
    EXPECT_FALSE(status.has_value()) << "a write after the end";
    in_flight = true;
    if (event.has_started()) log.push_back("started");
    if (event.has_delta()) log.push_back("delta " + event.delta().text());
    if (event.has_finished()) log.push_back("finished " + event.finished().text());
    return false;
  }
  void CutOffAfter(absl::Duration) override { log.push_back("cut off later"); }
  void Cancel() override { log.push_back("cancel"); }
  void Finish(const absl::Status& s, const std::optional<RequestTimings>& t) override {
    timings = t;
    EXPECT_FALSE(status.has_value()) << "finished twice";
    EXPECT_FALSE(in_flight) << "finished with a write in flight";
    status = s;
  }

  std::vector<std::string> log;
  bool in_flight = false;
  std::optional<absl::Status> status;
  std::optional<RequestTimings> timings;
};

class TokenStreamTest : public ::testing::Test {
 protected:
  void WriteDone(bool ok = true) {
    ASSERT_TRUE(writer_.in_flight);
    writer_.in_flight = false;
    stream_->OnWriteDone(ok);
  }
  void Token(const std::string& text) { stream_->OnTokens({.text = text, .token_ids = {1}}); }
  void End(absl::Status status = absl::OkStatus(), const std::string& text = "") {
    stream_->OnFinish({.status = std::move(status),
                       .reason = FinishReason::kLength,
                       .text = text,
                       .matched_stop = {},
                       .usage = {},
                       .timings = {},
                       .routing = {}});
  }
  bool cancelled() const { return stream_->cancel_flag()->cancelled(); }

  std::shared_ptr<ManualClock> clock_ = std::make_shared<ManualClock>();
  Metrics metrics_{{.version = "", .revision = ""}};
  ModelHost host_{"m", clock_, nullptr};
  FakeWriter writer_;
  std::shared_ptr<TokenStream> stream_ = std::make_shared<TokenStream>(
      &writer_, &host_, &metrics_,
      TokenStreamOptions{.max_outbox_bytes = 100, .slow_reader_timeout = absl::Seconds(10)},
      clock_->now + absl::Minutes(1));
};

TEST_F(TokenStreamTest, EventsLeaveInOrderOneAtATime) {
  stream_->SetRequestId("r1");
  stream_->Queued();
  stream_->OnStarted({});
  Token("a");
  Token("b");
  WriteDone();
  Token("c");
  End(absl::OkStatus(), "!");
  WriteDone();
  WriteDone();
  EXPECT_FALSE(writer_.status.has_value());
  WriteDone();
  EXPECT_EQ(writer_.log,
            (std::vector<std::string>{"id r1", "metadata", "started", "delta ab", "delta c", "finished !"}));
  EXPECT_TRUE(writer_.status->ok());
}

TEST_F(TokenStreamTest, AnEngineThatIsFasterThanQueuedSendsNoMetadataTwice) {
  stream_->OnStarted({});
  stream_->Queued();
  EXPECT_EQ(writer_.log, std::vector<std::string>{"started"});
}

TEST_F(TokenStreamTest, ARejectionIsTheOnlyAnswer) {
  stream_->Reject(absl::UnavailableError("no"));
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(writer_.log.empty());  // trailers only, so that a client's retry policy may act
}

TEST_F(TokenStreamTest, AnErrorComesAfterTheTextThatWasMade) {
  stream_->OnStarted({});
  Token("a");
  End(absl::InternalError("secret detail of step 5"));
  WriteDone();
  WriteDone();
  EXPECT_EQ(writer_.log.back(), "delta a");
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kInternal);
  EXPECT_EQ(writer_.status->message().find("secret"), absl::string_view::npos);
  EXPECT_EQ(ErrorReason(*writer_.status), "ENGINE_FAILURE");
}

TEST_F(TokenStreamTest, ACancelEndsTheCallAtOnceWhenNothingIsInFlight) {
  stream_->OnStarted({});
  WriteDone();
  stream_->OnCancel();
  EXPECT_TRUE(cancelled());
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kCancelled);
  Token("late");
  End(absl::CancelledError());
  EXPECT_EQ(writer_.log, std::vector<std::string>{"started"});
}

TEST_F(TokenStreamTest, ACancelWaitsForTheWriteInFlightAndFinishesOnce) {
  stream_->OnStarted({});
  Token("a");
  stream_->OnCancel();
  EXPECT_TRUE(cancelled());
  EXPECT_FALSE(writer_.status.has_value());
  WriteDone(false);
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kCancelled);
}

TEST_F(TokenStreamTest, AFailedWriteCancelsTheRequest) {
  stream_->OnStarted({});
  WriteDone(false);
  EXPECT_TRUE(cancelled());
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kCancelled);
}

TEST_F(TokenStreamTest, TheEngineMayOutliveTheCall) {
  stream_->OnStarted({});
  stream_->OnCancel();
  WriteDone(false);
  stream_->Detach();
  Token("late");
  End(absl::CancelledError());
  EXPECT_EQ(host_.num_open_calls(), 0);
}

TEST_F(TokenStreamTest, ACancelAtTheDeadlineLeavesTheVerdictToTheEngine) {
  stream_->OnStarted({});
  WriteDone();
  clock_->now += absl::Minutes(1) - absl::Milliseconds(5);  // gRPC's timer is a little early
  stream_->OnCancel();
  EXPECT_FALSE(cancelled());
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(TokenStreamTest, ASlowReaderIsToleratedForAWhileOnly) {
  stream_->OnStarted({});
  Token(std::string(90, 'x'));
  Token(std::string(90, 'x'));  // over the limit from now on
  clock_->now += absl::Milliseconds(9999);
  Token("x");
  EXPECT_FALSE(cancelled());
  clock_->now += absl::Milliseconds(1);
  Token("x");
  EXPECT_TRUE(cancelled());
  EXPECT_FALSE(writer_.status.has_value());  // the write in flight comes first
  WriteDone();
  ASSERT_TRUE(writer_.status.has_value());
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(*writer_.status), "SLOW_READER");
  stream_->CutOff();  // too late
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "cut off later"}));
}

TEST_F(TokenStreamTest, AReaderOfNothingIsCutOff) {
  stream_->OnStarted({});
  Token(std::string(200, 'x'));
  End();
  stream_->CutOff();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "cut off later", "cancel"}));
  WriteDone(/*ok=*/false);
  EXPECT_TRUE(writer_.status.has_value());
}

TEST_F(TokenStreamTest, WhoReadsSlowlyIsNotCutOff) {
  stream_->OnStarted({});
  Token(std::string(200, 'x'));
  FinishSummary sibling;
  sibling.index = 1;
  sibling.is_last = false;
  sibling.reason = FinishReason::kLength;
  stream_->OnFinish(std::move(sibling));
  EXPECT_EQ(writer_.log, std::vector<std::string>{"started"}) << "tokens will still find a slow client";
  End();
  WriteDone();
  Token(std::string(200, 'x'));
  EXPECT_TRUE(writer_.in_flight);
  stream_->CutOff();
  EXPECT_EQ(std::ranges::count(writer_.log, "cancel"), 0);
}

TEST_F(TokenStreamTest, WhatFitsMayWaitForItsReader) {
  stream_->OnStarted({});
  Token("x");
  End();
  stream_->CutOff();
  EXPECT_EQ(writer_.log, std::vector<std::string>{"started"});
}

TEST_F(TokenStreamTest, AReaderThatCatchesUpIsNotSlow) {
  stream_->OnStarted({});
  Token(std::string(200, 'x'));
  clock_->now += absl::Seconds(9);
  WriteDone();  // takes the outbox
  Token(std::string(200, 'x'));
  clock_->now += absl::Seconds(9);
  Token("x");
  EXPECT_FALSE(cancelled());
}

// Streams whose messages leave on the pump's thread.
class PumpedTokenStreamTest : public TokenStreamTest {
 protected:
  explicit PumpedTokenStreamTest(absl::Duration min_interval = absl::ZeroDuration()) {
    stream_ = std::make_shared<TokenStream>(&writer_, &host_, &metrics_,
                                            TokenStreamOptions{.pump = &pump_, .min_interval = min_interval},
                                            clock_->now + absl::Minutes(1));
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
  PatientTokenStreamTest() : PumpedTokenStreamTest(absl::Hours(1)) {}
};

TEST_F(PumpedTokenStreamTest, EventsLeaveInOrderOneAtATime) {
  stream_->Queued();
  stream_->OnStarted({});
  AwaitPump();
  Token("a");
  Token("b");
  WriteDone();
  Token("c");
  End(absl::OkStatus(), "!");
  for (int i = 0; i < 3; ++i) {
    AwaitPump();
    WriteDone();
  }
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"metadata", "started", "delta ab", "delta c", "finished !"}));
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
  WriteDone();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "delta a", "finished "}));
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
  WriteDone();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "delta a", "delta bc", "finished !"}));
  EXPECT_TRUE(writer_.status->ok());
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
    stream_->OnFinish(std::move(summary));
    WriteDone();
  };
  end(2, false, {{}, {}, {}, absl::Seconds(4)});  // its time was over while it waited
  end(0, false, {absl::Seconds(1), absl::Seconds(3), absl::Seconds(4), absl::Seconds(8)});
  // The second one had to wait for the prompt of the first.
  end(1, true, {absl::Seconds(5), absl::Seconds(1), absl::Seconds(3), absl::Seconds(9)});
  ASSERT_TRUE(writer_.timings.has_value());
  EXPECT_EQ(writer_.timings->queue, absl::Seconds(1));
  EXPECT_EQ(writer_.timings->prefill, absl::Seconds(3));
  EXPECT_EQ(writer_.timings->decode, absl::Seconds(5));
  EXPECT_EQ(writer_.timings->total, absl::Seconds(9));
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
