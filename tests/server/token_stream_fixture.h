// What tests of TokenStream share: a call that takes messages when the test says so.
#ifndef CADRE_TESTS_SERVER_TOKEN_STREAM_FIXTURE_H_
#define CADRE_TESTS_SERVER_TOKEN_STREAM_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/metrics.h"
#include "server/model_host.h"
#include "server/token_stream.h"

namespace cadre {

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
    in_flight = true;
    Log(event);
    return false;
  }
  void WriteLast(const v1::GenerateResponse& event, const std::optional<RequestTotals>& t) override {
    Log(event, " .");
    Finish(absl::OkStatus(), t);
  }
  // "." marks the last.
  void Log(const v1::GenerateResponse& event, const std::string& suffix = "") {
    EXPECT_FALSE(status.has_value()) << "a write after the end";
    if (event.has_started()) log.push_back("started" + suffix);
    if (event.has_delta()) log.push_back("delta " + event.delta().text() + suffix);
    if (event.has_finished()) log.push_back("finished " + event.finished().text() + suffix);
  }
  void CutOffAfter(absl::Duration) override { log.push_back("cut off later"); }
  void Cancel() override { log.push_back("cancel"); }
  void Finish(const absl::Status& s, const std::optional<RequestTotals>& t) override {
    totals = t;
    EXPECT_FALSE(status.has_value()) << "finished twice";
    EXPECT_FALSE(in_flight) << "finished with a write in flight";
    status = s;
  }

  std::vector<std::string> log;
  bool in_flight = false;
  std::optional<absl::Status> status;
  std::optional<RequestTotals> totals;
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
                       .routing = {},
                       .capacity = {}});
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

}  // namespace cadre

#endif  // CADRE_TESTS_SERVER_TOKEN_STREAM_FIXTURE_H_
