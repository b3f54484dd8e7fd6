// Ten thousand calls that are given up at random moments, among others that are not: nothing leaks, and nobody else
// hears of it.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "engine/model/simulated_runner.h"
#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

constexpr int kNumStreams = 64;
constexpr int64_t kNumCancels = 10'000;

struct Storm {
  v1::GenerationService::Stub* stub;
  int32_t vocab_size;
  absl::BlockingCounter num_open{kNumStreams};
  std::atomic<int64_t> num_calls = 0;
  std::atomic<int64_t> num_cancels = 0;
  // How the calls ended.
  std::atomic<int64_t> num_cancelled = 0;
  std::atomic<int64_t> num_complete = 0;  // OK, and every token as the model says
  std::atomic<int64_t> num_wrong = 0;     // anything else
};

// One call, which starts the next one at its end. Two of three are cancelled: at once, or when so many tokens came.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  explicit Call(Storm* storm) : storm_(storm) {
    std::mt19937_64 random(static_cast<uint64_t>(storm->num_calls++));
    const auto below = [&](uint64_t bound) { return static_cast<int32_t>(random() % bound); };
    // Half of the prompts begin alike, so that blocks are shared between those that go and those that stay.
    std::vector<int32_t> prompt;
    prompt.reserve(32 + 24);
    for (int32_t i = 0; i < 32 * below(2); ++i) prompt.push_back(i + 1);
    for (int32_t i = 1 + below(24); i > 0; --i) prompt.push_back(below(static_cast<uint64_t>(storm->vocab_size)));
    const bool is_victim = below(3) > 0;
    cancel_after_ = is_victim ? below(24) - 4 : kNever;
    const int32_t max_tokens = is_victim ? 400 : 1 + below(16);
    expected_ = SimulatedRunner::ExpectedTokens(prompt, max_tokens, storm->vocab_size);
    request_ = IdsRequest(prompt, max_tokens);
    request_.mutable_scheduling()->set_priority(below(3) - 1);
    storm->stub->async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    AddHold();  // the call must not end, and delete this, before it is cancelled
    StartCall();
    if (cancel_after_ < 0) Cancel();
    RemoveHold();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    for (const int32_t token : event_.delta().token_ids()) {
      is_right_ &= num_tokens_ < expected_.size() && token == expected_[num_tokens_];
      ++num_tokens_;
    }
    if (cancel_after_ >= 0 && num_tokens_ >= static_cast<size_t>(cancel_after_)) Cancel();
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    const bool is_complete = status.ok() && num_tokens_ == expected_.size();
    const bool is_cancelled = status.error_code() == grpc::StatusCode::CANCELLED && cancel_after_ != kNever;
    if (!is_right_ || !(is_complete || is_cancelled)) {
      if (storm_->num_wrong++ == 0) ADD_FAILURE() << status.error_code() << ": " << status.error_message();
    } else {
      ++(is_cancelled ? storm_->num_cancelled : storm_->num_complete);
    }
    if (storm_->num_cancels < kNumCancels) {
      new Call(storm_);
    } else {
      storm_->num_open.DecrementCount();
    }
    delete this;
  }

 private:
  static constexpr int32_t kNever = 1 << 30;

  void Cancel() {
    cancel_after_ = kNever - 1;  // once
    ++storm_->num_cancels;
    context_.TryCancel();
  }

  Storm* const storm_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse event_;
  std::vector<int32_t> expected_;
  int32_t cancel_after_ = kNever;
  size_t num_tokens_ = 0;
  bool is_right_ = true;
};

TEST(CancelStormTest, TenThousandCancelsLeakNothingAndTouchNobody) {
  ServerConfig config = InProcessServer::Config("sim:step_ms=0.5,blocks=120,block_size=4,max_len=512");
  config.max_num_seqs = 40;
  InProcessServer server(config);
  Storm storm{.stub = server.generation.get(), .vocab_size = 1024};
  for (int i = 0; i < kNumStreams; ++i) new Call(&storm);
  storm.num_open.Wait();
  EXPECT_EQ(storm.num_wrong, 0);
  EXPECT_EQ(storm.num_cancelled + storm.num_complete, storm.num_calls);
  EXPECT_GE(storm.num_cancelled, kNumCancels);
  EXPECT_GE(storm.num_complete, kNumCancels / 4);

  EXPECT_TRUE(Eventually([&] { return server.IsAtRest() && server.host().num_open_calls() == 0; }));
  const EngineSnapshot snapshot = server.host().Snapshot();
  EXPECT_EQ(snapshot.kv_blocks_free + snapshot.kv_blocks_cached, snapshot.kv_blocks_total);
  EXPECT_EQ(snapshot.finished_ok, storm.num_complete);
  EXPECT_EQ(snapshot.finished_ok + snapshot.finished_cancelled, snapshot.admitted_requests);
  // Most were cancelled under way.
  EXPECT_GE(snapshot.finished_cancelled, kNumCancels / 2);
  EXPECT_NE(server.metrics().RenderDefaultPage().find("\ncadre_stream_outbox_bytes 0\n"), std::string::npos);
}

}  // namespace
}  // namespace cadre
