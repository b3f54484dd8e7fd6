// Same request, same answer, over the real transformer: continuous batching, chunks, preemption and neighbors that
// leave in the middle change no token.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_model.h"

namespace cadre {
namespace {

constexpr int32_t kVocabSize = 101;
constexpr int32_t kNumRequests = 10;

struct Served {
  std::vector<std::vector<int32_t>> tokens;  // of each request
  EngineSnapshot snapshot;
};

Request MakeRequest(int32_t index, const Ticket& ticket) {
  Request request;
  request.prompt = ticket.prompt;
  for (int32_t& token : request.prompt) token %= kVocabSize;
  request.sampling.max_tokens = 8 + 3 * index;
  request.sampling.temperature = index % 2 == 0 ? 0.0f : 1.0f;
  request.sampling.seed = static_cast<uint64_t>(index);
  request.arrival = absl::UnixEpoch();
  request.wants_text = false;
  request.sink = ticket.sink;
  request.cancel = ticket.cancel;
  return request;
}

// Serves requests [first, last) together.
Served Serve(ModelFamily family, int32_t first, int32_t last, int32_t num_blocks, const EngineOptions& options,
             bool with_leaver = false) {
  auto device = CreateCpuDevice({.num_threads = 1});
  CADRE_CHECK(device.ok());
  const ModelConfig config = SmallConfig(family);
  constexpr int32_t kBlockSize = 4;
  const int64_t block_bytes = config.num_layers * 2 * config.num_kv_heads * config.head_dim * kBlockSize * 4;
  const RunnerOptions runner_options = {.max_model_len = 64,
                                        .max_num_seqs = options.max_num_seqs,
                                        .max_num_batched_tokens = options.max_num_batched_tokens,
                                        .kv_block_size = kBlockSize,
                                        .kv_dtype = DType::kF32,
                                        .kv_cache_bytes = num_blocks * block_bytes};
  Engine engine(options, MakeRandomRunner(config, DType::kF32, 5, runner_options, device->get()), nullptr,
                std::make_shared<FakeClock>(), nullptr);
  EXPECT_EQ(engine.limits().num_kv_blocks, num_blocks);
  std::vector<Ticket> tickets;
  for (int32_t i = first; i < last; ++i) {
    tickets.push_back({.prompt = MakePrompt(1 + (i * 5) % 23, i)});
    const absl::Status status = engine.Submit(MakeRequest(i, tickets.back()));
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  const Ticket leaver{.prompt = MakePrompt(9, 99)};
  if (with_leaver) {
    EXPECT_TRUE(engine.Submit(MakeRequest(6, leaver)).ok());
  }
  for (int step = 0; engine.Step(); ++step) {
    if (step == 5) leaver.cancel->Cancel();
    EXPECT_TRUE(engine.Audit().ok()) << engine.Audit().ToString();
  }
  Served served;
  for (const Ticket& ticket : tickets) {
    EXPECT_TRUE(ticket.sink->summary().status.ok()) << ticket.sink->summary().status.ToString();
    served.tokens.push_back(ticket.sink->token_ids());
  }
  served.snapshot = engine.Snapshot();
  return served;
}

class EngineTransformerTest : public testing::TestWithParam<ModelFamily> {};

TEST_P(EngineTransformerTest, TokensDoNotDependOnCompany) {
  const EngineOptions roomy{.max_num_seqs = 16, .max_num_batched_tokens = 64};
  std::vector<std::vector<int32_t>> alone;
  for (int32_t i = 0; i < kNumRequests; ++i) {
    alone.push_back(Serve(GetParam(), i, i + 1, 64, roomy).tokens.front());
    EXPECT_EQ(alone.back().size(), static_cast<size_t>(8 + 3 * i));
  }
  EXPECT_NE(alone[1], alone[3]);

  EXPECT_EQ(Serve(GetParam(), 0, kNumRequests, 160, roomy, true).tokens, alone) << "together";
  const EngineOptions small_chunks{.max_num_seqs = 5, .max_num_batched_tokens = 7};
  EXPECT_EQ(Serve(GetParam(), 0, kNumRequests, 160, small_chunks).tokens, alone) << "in small chunks";
  const Served squeezed = Serve(GetParam(), 0, kNumRequests, 24, roomy, true);
  EXPECT_EQ(squeezed.tokens, alone) << "preempted";
  EXPECT_GT(squeezed.snapshot.preemptions, 3);
}

INSTANTIATE_TEST_SUITE_P(Families, EngineTransformerTest,
                         testing::Values(ModelFamily::kOlmoe, ModelFamily::kQwen2Moe, ModelFamily::kMixtral),
                         [](const auto& param_info) { return std::string(ModelFamilyName(param_info.param)); });

}  // namespace
}  // namespace cadre
