// An engine whose device samples against one whose host does: the same tokens, counters and failures, and which rows of
// logits come to the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/support/engine_harness.h"
#include "tests/support/fake_constraint.h"
#include "tests/support/random_model.h"
#include "tests/support/test_target.h"

namespace cadre {
namespace {

constexpr int32_t kVocabSize = 101;

// Counts where rows are sampled.
class WatchedRunner final : public ModelRunner {
 public:
  struct Counts {
    int64_t on_device = 0;
    int64_t on_host = 0;
  };
  WatchedRunner(std::unique_ptr<ModelRunner> runner, Counts* counts) : runner_(std::move(runner)), counts_(*counts) {}

  const RunnerLimits& limits() const override { return runner_->limits(); }
  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override {
    absl::Status status = runner_->Forward(batch, result);
    Count(batch, *result);
    return status;
  }
  absl::Status Order(const ForwardBatch& batch, ForwardResult* result) override {
    return runner_->Order(batch, result);
  }
  absl::Status Finish(const ForwardBatch& batch, ForwardResult* result) override {
    absl::Status status = runner_->Finish(batch, result);
    Count(batch, *result);
    return status;
  }
  void ScrubBlocks(std::span<const int32_t> blocks) override { runner_->ScrubBlocks(blocks); }

 private:
  void Count(const ForwardBatch& batch, const ForwardResult& result) {
    const auto on_host = static_cast<int64_t>(result.logits.size()) / kVocabSize;
    counts_.on_host += on_host;
    counts_.on_device += std::ssize(batch.logit_rows) - on_host;
  }

  const std::unique_ptr<ModelRunner> runner_;
  Counts& counts_;
};

struct Served {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<TokenLogprob>> logprobs;
  std::vector<absl::Status> statuses;
  EngineSnapshot snapshot;
  WatchedRunner::Counts counts;
};

using MakeRequests = std::function<std::vector<Request>()>;

class EngineDeviceSamplingTest : public ::testing::TestWithParam<TestTarget> {
 protected:
  void SetUp() override {
    if (!GetParam().make_for_model(1)->ops().can_sample(kVocabSize)) GTEST_SKIP() << "the host samples";
  }

  static Served Serve(bool on_device, std::vector<Request> requests) {
    const auto device = GetParam().make_for_model(1);
    const EngineOptions options{.max_num_seqs = 8, .max_num_batched_tokens = 48};
    const RunnerOptions runner_options = {.max_model_len = 64,
                                          .max_num_seqs = options.max_num_seqs,
                                          .max_num_batched_tokens = options.max_num_batched_tokens,
                                          .kv_block_size = 4,
                                          .kv_dtype = {},
                                          .kv_cache_bytes = {},
                                          .sample_on_device = on_device};
    Served served;
    Engine engine(options,
                  std::make_unique<WatchedRunner>(
                      MakeRandomRunner(SmallConfig(ModelFamily::kOlmoe), DType::kF32, 5, runner_options, device.get()),
                      &served.counts),
                  nullptr, std::make_shared<FakeClock>(), nullptr);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (Request& request : requests) {
      sinks.push_back(std::make_shared<RecordingSink>());
      request.sink = sinks.back();
      request.cancel = std::make_shared<CancelFlag>();
      request.arrival = absl::UnixEpoch();
      request.wants_text = false;
      EXPECT_TRUE(engine.Submit(std::move(request)).ok());
    }
    while (engine.Step()) EXPECT_TRUE(engine.Audit().ok()) << engine.Audit().ToString();
    for (const auto& sink : sinks) {
      served.tokens.push_back(sink->token_ids());
      served.logprobs.push_back(sink->sequences()[0].logprobs);
      served.statuses.push_back(sink->summary().status);
    }
    served.snapshot = engine.Snapshot();
    return served;
  }

  static Served ExpectSame(const MakeRequests& make) {
    Served device = Serve(/*on_device=*/true, make());
    const Served host = Serve(/*on_device=*/false, make());
    EXPECT_EQ(device.tokens, host.tokens);
    EXPECT_EQ(device.statuses, host.statuses);
    EXPECT_EQ(device.snapshot.generated_tokens, host.snapshot.generated_tokens);
    EXPECT_EQ(device.snapshot.routed_assignments, host.snapshot.routed_assignments);
    EXPECT_EQ(device.snapshot.steps, host.snapshot.steps);
    EXPECT_EQ(host.counts.on_device, 0);
    for (size_t i = 0; i < host.logprobs.size(); ++i) ExpectNear(device.logprobs[i], host.logprobs[i]);
    return device;
  }

 private:
  static void ExpectNear(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a[i].logprob, b[i].logprob, 1e-5);
      EXPECT_EQ(a[i].rank, b[i].rank);
      ASSERT_EQ(a[i].alternatives.size(), b[i].alternatives.size());
      for (size_t j = 0; j < a[i].alternatives.size(); ++j) {
        EXPECT_EQ(a[i].alternatives[j].token_id, b[i].alternatives[j].token_id);
      }
    }
  }
};

Request MakeRequest(int32_t index, int32_t max_tokens) {
  Request request;
  request.prompt = MakePrompt(3 + index * 5 % 17, index);
  for (int32_t& token : request.prompt) token %= kVocabSize;
  request.sampling.max_tokens = max_tokens;
  request.sampling.seed = static_cast<uint64_t>(index);
  return request;
}

TEST_P(EngineDeviceSamplingTest, EveryOptionGivesTheSameTokens) {
  const auto make = [] {
    std::vector<Request> requests;
    for (int32_t i = 0; i < 9; ++i) requests.push_back(MakeRequest(i, 6 + i));
    requests[0].sampling.temperature = 0.0f;
    requests[1].sampling.top_k = 5;
    requests[2].sampling.top_p = 0.8f;
    requests[2].num_sequences = 3;
    requests[3].sampling.min_p = 0.05f;
    requests[3].sampling.repetition_penalty = 1.3f;
    requests[4].sampling.presence_penalty = 0.5f;
    requests[4].sampling.frequency_penalty = 0.5f;
    requests[4].sampling.logit_bias = {{3, 2.0f}, {50, -3.0f}};
    requests[5].sampling.allowed_token_ids = {1, 4, 9, 16, 25, 36, 49, 64, 81, 100};
    requests[6].sampling.logprobs = true;
    requests[6].sampling.top_logprobs = 4;
    requests[7].sampling.stop_token_ids = {2, 7, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39};
    requests[7].sampling.min_tokens = 4;
    requests[8].constraint = std::make_shared<FakeConstraint>(kVocabSize, [](const std::vector<int32_t>& output) {
      const auto next = static_cast<int32_t>(output.size());
      return next == 5 ? std::vector<int32_t>() : std::vector<int32_t>{next, 20 + next, 99};
    });
    return requests;
  };
  const Served served = ExpectSame(make);
  EXPECT_EQ(served.counts.on_host, 0);
  EXPECT_EQ(served.counts.on_device, served.snapshot.generated_tokens);
  EXPECT_EQ(served.logprobs[6].size(), served.tokens[6].size());
}

// The logits of a prompt come to the host, and its first token is chosen there; nothing else.
TEST_P(EngineDeviceSamplingTest, RowsOfAPromptWithLogprobsAreSampledOnTheHost) {
  const auto make = [] {
    std::vector<Request> requests = {MakeRequest(1, 5), MakeRequest(0, 7)};
    requests[0].prompt.resize(4);
    requests[0].prompt_logprobs = 2;
    return requests;
  };
  const Served served = ExpectSame(make);
  EXPECT_EQ(served.counts.on_host, 4);
}

TEST_P(EngineDeviceSamplingTest, ABiasTowardsNothingFailsAlone) {
  const auto make = [] {
    std::vector<Request> requests = {MakeRequest(1, 5), MakeRequest(0, 7)};
    requests[0].sampling.allowed_token_ids = {5};
    requests[0].sampling.logit_bias = {{5, -std::numeric_limits<float>::infinity()}};
    return requests;
  };
  const Served served = Serve(/*on_device=*/true, make());
  EXPECT_EQ(served.statuses[0].code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(served.statuses[1].ok());
  EXPECT_EQ(served.tokens[1].size(), 7u);
}

INSTANTIATE_TEST_SUITE_P(All, EngineDeviceSamplingTest, testing::ValuesIn(TestTargets()),
                         [](const testing::TestParamInfo<TestTarget>& target) { return target.param.name; });

}  // namespace
}  // namespace cadre
