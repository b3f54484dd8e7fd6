#include "server/token_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <latch>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/request/refusal.h"
#include "server/errors.h"
#include "tests/server/token_stream_fixture.h"

namespace cadre {
namespace {

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
  EXPECT_FALSE(writer_.status.has_value());
  WriteDone();
  EXPECT_EQ(writer_.log,
            (std::vector<std::string>{"id r1", "metadata", "started", "delta ab", "delta c", "finished ! ."}));
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

// As large messages do: the engine's step does not wait for them.
TEST_F(TokenStreamTest, NothingWaitsForAMessageThatIsBeingPutTogether) {
  struct BusyWriter final : ResponseWriter {
    void SetRequestId(const std::string&) override {}
    void SendInitialMetadata() override {}
    bool Write(const v1::GenerateResponse& event) override {
      is_writing.count_down();
      may_go.wait();
      texts.push_back(event.delta().text());
      return true;
    }
    void WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTotals>&) override {
      texts.push_back(event.finished().text());
    }
    void Finish(const absl::Status&, const std::optional<RequestTotals>&) override {}

    std::latch is_writing{1};
    std::latch may_go{1};
    std::vector<std::string> texts;
  };
  BusyWriter writer;
  stream_ = std::make_shared<TokenStream>(&writer, &host_, nullptr, TokenStreamOptions{}, absl::InfiniteFuture());
  std::thread pump([this] { Token("a"); });
  writer.is_writing.wait();
  std::future<void> step = std::async(std::launch::async, [this] {
    Token("b");
    Token("c");
    End(absl::OkStatus(), "!");
  });
  EXPECT_EQ(step.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  writer.may_go.count_down();
  pump.join();
  step.wait();
  EXPECT_EQ(writer.texts, (std::vector<std::string>{"a", "bc", "!"}));
  stream_->Detach();
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
  stream_->OnTokens({.index = 1, .text = std::string(200, 'y'), .token_ids = {1}});
  FinishSummary sibling;
  sibling.index = 1;
  sibling.is_last = false;
  sibling.reason = FinishReason::kLength;
  stream_->OnFinish(std::move(sibling));
  EXPECT_EQ(writer_.log, std::vector<std::string>{"started"}) << "tokens will still find a slow client";
  End();
  WriteDone();
  stream_->CutOff();
  EXPECT_EQ(std::ranges::count(writer_.log, "cut off later"), 2) << "it has read since";
  EXPECT_EQ(std::ranges::count(writer_.log, "cancel"), 0);
  stream_->CutOff();
  EXPECT_EQ(writer_.log.back(), "cancel") << "it has read nothing since";
}

TEST_F(TokenStreamTest, WhoTakesPartsOfAnEventReads) {
  stream_->OnStarted({});
  Token(std::string(200, 'x'));
  End();
  stream_->OnPartTaken();
  stream_->CutOff();
  EXPECT_EQ(writer_.log, (std::vector<std::string>{"started", "cut off later", "cut off later"}));
  stream_->CutOff();
  EXPECT_EQ(writer_.log.back(), "cancel") << "it has taken no part since";
}

TEST_F(TokenStreamTest, AHopelessRequestIsToldWhy) {
  End(MakeRefusal(Refusal::kDeadlineUnreachable, absl::StatusCode::kDeadlineExceeded, "too late"));
  ASSERT_TRUE(writer_.status.has_value());
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ErrorReason(*writer_.status), "DEADLINE_UNREACHABLE");
  EXPECT_EQ(writer_.status->message(), "too late");
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

}  // namespace
}  // namespace cadre
