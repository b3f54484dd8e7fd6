// An engine over the real transformer with random weights, small enough to be made a thousand times, driven step by
// step.
#ifndef CADRE_TESTS_SUPPORT_TRANSFORMER_ENGINE_H_
#define CADRE_TESTS_SUPPORT_TRANSFORMER_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/model/routing_scheme.h"
#include "gtest/gtest.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_model.h"
#include "tests/support/test_target.h"

namespace cadre {

inline constexpr int32_t kSmallVocabSize = 101;
inline constexpr int32_t kSmallBlockSize = 4;
inline constexpr int32_t kSmallMostRows = 64;

struct TransformerEngine {
  explicit TransformerEngine(const CapacityPolicy& policy = {}, EngineOptions options = {}, int32_t num_blocks = 200,
                             ModelFamily family = ModelFamily::kOlmoe, const std::string& scheme = "family") {
    device = TestTargets().front().make_for_model(1);
    ModelConfig config = SmallConfig(family);
    EXPECT_TRUE(ApplyRoutingScheme(*ParseRoutingOverride(scheme, "test"), "test", &config).ok()) << scheme;
    if (options.bias_balancing.is_on()) {
      config.routing.selection_bias.resize(static_cast<size_t>(config.num_moe_layers() * config.num_experts));
    }
    const int64_t block_bytes = config.num_layers * 2 * config.num_kv_heads * config.head_dim * kSmallBlockSize * 4;
    options.max_num_seqs = 8;
    if (options.max_num_batched_tokens > kSmallMostRows) options.max_num_batched_tokens = kSmallMostRows;
    const RunnerOptions runner_options = {.max_model_len = 128,
                                          .max_num_seqs = 8,
                                          .max_num_batched_tokens = kSmallMostRows,
                                          .kv_block_size = kSmallBlockSize,
                                          .kv_dtype = DType::kF32,
                                          .kv_cache_bytes = num_blocks * block_bytes};
    engine = std::make_unique<Engine>(options, MakeRandomRunner(config, DType::kF32, 5, runner_options, device.get()),
                                      nullptr, std::make_shared<FakeClock>(), nullptr);
    EXPECT_TRUE(engine->SetCapacityPolicy(policy).ok());
  }

  TransformerEngine(std::unique_ptr<Device> made_device, std::unique_ptr<Engine> made_engine)
      : device(std::move(made_device)), engine(std::move(made_engine)) {}

  using Edit = std::function<void(Request&)>;

  static Request MakeRequest(const Ticket& ticket, int32_t max_tokens) {
    Request request;
    request.prompt = ticket.prompt;
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = 0.8f;
    request.sampling.seed = 7;
    request.sampling.logprobs = true;
    request.sampling.top_logprobs = 5;
    request.arrival = absl::UnixEpoch();
    request.wants_text = false;
    request.sink = ticket.sink;
    request.cancel = ticket.cancel;
    return request;
  }
  absl::Status TrySubmit(const Ticket& ticket, int32_t max_tokens, std::optional<CapacityPolicy> capacity,
                         const Edit& edit = nullptr) const {
    Request request = MakeRequest(ticket, max_tokens);
    request.capacity = capacity;
    if (edit) edit(request);
    return engine->Submit(std::move(request));
  }
  Ticket Submit(std::vector<int32_t> prompt, int32_t max_tokens, std::optional<CapacityPolicy> capacity = {},
                const Edit& edit = nullptr) {
    for (int32_t& token : prompt) token %= kSmallVocabSize;
    const Ticket ticket{.prompt = std::move(prompt)};
    const absl::Status status = TrySubmit(ticket, max_tokens, capacity, edit);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return ticket;
  }
  void Run() const {
    while (engine->Step()) ASSERT_TRUE(engine->Audit().ok()) << engine->Audit();
  }

  std::unique_ptr<Device> device;
  std::unique_ptr<Engine> engine;
};

// All that a client is told of what the model computed.
inline void ExpectSameAnswer(const Ticket& got, const Ticket& want, int32_t index = 0) {
  const RecordedSequence left = got.sink->sequences().at(index);
  const RecordedSequence right = want.sink->sequences().at(index);
  ASSERT_FALSE(right.token_ids.empty());
  EXPECT_EQ(left.token_ids, right.token_ids);
  ASSERT_EQ(left.logprobs.size(), right.logprobs.size());
  for (size_t i = 0; i < left.logprobs.size(); ++i) {
    EXPECT_EQ(left.logprobs[i].logprob, right.logprobs[i].logprob) << i;
    ASSERT_EQ(left.logprobs[i].alternatives.size(), right.logprobs[i].alternatives.size());
    for (size_t j = 0; j < left.logprobs[i].alternatives.size(); ++j) {
      EXPECT_EQ(left.logprobs[i].alternatives[j].token_id, right.logprobs[i].alternatives[j].token_id);
      EXPECT_EQ(left.logprobs[i].alternatives[j].logprob, right.logprobs[i].alternatives[j].logprob);
    }
  }
}

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_TRANSFORMER_ENGINE_H_
