// Hit = miss, bit for bit, over the real transformer: every family and every type of weights and KV cache.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/engine.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_model.h"

namespace cadre {
namespace {

constexpr int32_t kVocabSize = 101;
constexpr int32_t kBlockSize = 4;
constexpr int32_t kNumRequests = 9;

// Remembers the logits of every row that was sampled, by the history that led to it.
class LogitRecorder final : public ModelRunner {
 public:
  explicit LogitRecorder(std::unique_ptr<ModelRunner> runner) : runner_(std::move(runner)) {}
  const RunnerLimits& limits() const override { return runner_->limits(); }
  void ScrubBlocks(std::span<const int32_t> blocks) override { runner_->ScrubBlocks(blocks); }
  absl::Status Forward(const ForwardBatch& batch, ForwardResult* result) override {
    absl::Status status = runner_->Forward(batch, result);
    logits.insert(logits.end(), result->logits.begin(), result->logits.end());
    if (spoil) spoil(result);
    return status;
  }

  std::vector<float> logits;
  std::function<void(ForwardResult*)> spoil;

 private:
  const std::unique_ptr<ModelRunner> runner_;
};

struct Server {
  Server(ModelFamily family, DType weights, DType kv, int32_t num_blocks, PrefixCacheScope scope) {
    device = std::move(CreateCpuDevice({.num_threads = 1})).value();
    const ModelConfig config = SmallConfig(family);
    const int64_t block_bytes = config.num_layers * 2 * config.num_kv_heads * config.head_dim * kBlockSize *
                                static_cast<int64_t>(DTypeBytes(kv));
    const RunnerOptions runner_options = {.max_model_len = 128,
                                          .max_num_seqs = 8,
                                          .max_num_batched_tokens = 48,
                                          .kv_block_size = kBlockSize,
                                          .kv_dtype = kv,
                                          .kv_cache_bytes = num_blocks * block_bytes};
    auto owned = std::make_unique<LogitRecorder>(MakeRandomRunner(config, weights, 5, runner_options, device.get()));
    recorder = owned.get();
    EngineOptions options{.max_num_seqs = 8, .max_num_batched_tokens = 48, .max_prefill_chunk = 16};
    options.prefix_cache = scope;
    engine = std::make_unique<Engine>(options, std::move(owned), nullptr, std::make_shared<FakeClock>(), nullptr);
  }
  Ticket Submit(std::vector<int32_t> prompt, int32_t max_tokens) {
    for (int32_t& token : prompt) token %= kVocabSize;
    Ticket ticket{.prompt = std::move(prompt)};
    Request request;
    request.prompt = ticket.prompt;
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = 0.8f;
    request.sampling.seed = 7;
    request.arrival = absl::UnixEpoch();
    request.wants_text = false;
    request.sink = ticket.sink;
    request.cancel = ticket.cancel;
    EXPECT_TRUE(engine->Submit(std::move(request)).ok());
    return ticket;
  }
  void Run() {
    while (engine->Step()) ASSERT_TRUE(engine->Audit().ok()) << engine->Audit();
  }

  std::unique_ptr<Device> device;
  LogitRecorder* recorder = nullptr;  // the engine's
  std::unique_ptr<Engine> engine;
};

// Prompts that share their first 18 tokens, and a few that do not.
std::vector<int32_t> PromptOf(int32_t index) {
  std::vector<int32_t> prompt = MakePrompt(18, index % 4 == 3 ? index : 0);
  for (int32_t i = 0; i < index % 5; ++i) prompt.push_back(index + i);
  return prompt;
}

class EnginePrefixTransformerTest : public testing::TestWithParam<std::tuple<ModelFamily, DType, DType>> {
 protected:
  Server MakeServer(int32_t num_blocks, PrefixCacheScope scope) const {
    const auto& [family, weights, kv] = GetParam();
    return Server(family, weights, kv, num_blocks, scope);
  }
  std::vector<std::vector<int32_t>> ServeAlone() const {
    std::vector<std::vector<int32_t>> tokens;
    for (int32_t i = 0; i < kNumRequests; ++i) {
      Server server = MakeServer(64, PrefixCacheScope::kOff);
      const Ticket ticket = server.Submit(PromptOf(i), 9 + i);
      server.Run();
      tokens.push_back(ticket.sink->token_ids());
    }
    return tokens;
  }
};

TEST_P(EnginePrefixTransformerTest, LogitsOfAHitAreThoseOfAMiss) {
  Server server = MakeServer(64, PrefixCacheScope::kTenant);
  for (int32_t length : {17, 18, 19, 20, 21}) {
    server.Submit(MakePrompt(length, length), 7);
    server.recorder->logits.clear();
    server.Run();
    const std::vector<float> miss = std::exchange(server.recorder->logits, {});
    ASSERT_EQ(miss.size(), 7u * kVocabSize);
    const int64_t hits = server.engine->Snapshot().prefix_hit_tokens;
    server.Submit(MakePrompt(length, length), 7);
    server.Run();
    EXPECT_EQ(server.engine->Snapshot().prefix_hit_tokens - hits, (length - 1) / kBlockSize * kBlockSize);
    ASSERT_EQ(server.recorder->logits.size(), miss.size());
    EXPECT_EQ(std::memcmp(server.recorder->logits.data(), miss.data(), miss.size() * sizeof(float)), 0) << length;
  }
}

TEST_P(EnginePrefixTransformerTest, TokensDoNotDependOnHitsAndPreemption) {
  const std::vector<std::vector<int32_t>> alone = ServeAlone();
  for (const int32_t num_blocks : {64, 16}) {
    Server server = MakeServer(num_blocks, PrefixCacheScope::kTenant);
    for (int round = 0; round < 2; ++round) {
      std::vector<Ticket> tickets;
      for (int32_t i = 0; i < kNumRequests; ++i) tickets.push_back(server.Submit(PromptOf(i), 9 + i));
      server.Run();
      for (size_t i = 0; i < tickets.size(); ++i) EXPECT_EQ(tickets[i].sink->token_ids(), alone[i]) << i;
    }
    EXPECT_GT(server.engine->Snapshot().prefix_hit_tokens, 60);
    EXPECT_GE(server.engine->Snapshot().preemptions, num_blocks == 16 ? 1 : 0);
  }
}

// What one request wrote is cleared; a neighbor that shares its prompt goes on, bit for bit.
TEST_P(EnginePrefixTransformerTest, AFailedRequestLeavesItsNeighborsAlone) {
  Server quiet = MakeServer(64, PrefixCacheScope::kTenant);
  const Ticket expected = quiet.Submit(PromptOf(0), 12);
  quiet.Run();
  Server server = MakeServer(64, PrefixCacheScope::kTenant);
  const Ticket neighbor = server.Submit(PromptOf(0), 12);
  server.engine->Step();
  const Ticket poisoned = server.Submit(PromptOf(1), 12);  // the same first 16 tokens
  int step = 0;
  server.recorder->spoil = [&](ForwardResult* result) {
    if (++step == 3) std::fill_n(result->logits.begin() + kVocabSize, kVocabSize, std::nanf(""));
  };
  server.Run();
  EXPECT_EQ(poisoned.sink->summary().status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(neighbor.sink->token_ids(), expected.sink->token_ids());
}

std::string NameOf(const testing::TestParamInfo<EnginePrefixTransformerTest::ParamType>& param_info) {
  const auto& [family, weights, kv] = param_info.param;
  return std::string(ModelFamilyName(family)) + "_" + std::string(DTypeName(weights)) + "_" +
         std::string(DTypeName(kv));
}

INSTANTIATE_TEST_SUITE_P(Families, EnginePrefixTransformerTest,
                         testing::Combine(testing::Values(ModelFamily::kOlmoe, ModelFamily::kQwen2Moe,
                                                          ModelFamily::kQwen3Moe, ModelFamily::kMixtral),
                                          testing::Values(DType::kF32, DType::kBF16),
                                          testing::Values(DType::kF32, DType::kBF16, DType::kF16)),
                         NameOf);

}  // namespace
}  // namespace cadre
