// Log probabilities over the real transformer: what the engine tells is the log-softmax of the logits that a plain
// forward pass computes, whatever the chunks, the batch and the options.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/sample/log_softmax.h"
#include "kernels/cpu/cpu_device.h"
#include "tests/support/engine_harness.h"
#include "tests/support/random_model.h"

namespace cadre {
namespace {

constexpr int32_t kVocabSize = 101;
constexpr int32_t kBlockSize = 4;

RunnerOptions MakeRunnerOptions(int32_t max_num_seqs, int32_t max_num_batched_tokens, int32_t num_blocks) {
  const ModelConfig config = SmallConfig(ModelFamily::kQwen2Moe);
  const int64_t block_bytes = config.num_layers * 2 * config.num_kv_heads * config.head_dim * kBlockSize * 4;
  return {.max_model_len = 64,
          .max_num_seqs = max_num_seqs,
          .max_num_batched_tokens = max_num_batched_tokens,
          .kv_block_size = kBlockSize,
          .kv_dtype = DType::kF32,
          .kv_cache_bytes = num_blocks * block_bytes};
}

std::unique_ptr<Device> MakeDevice() {
  auto device = CreateCpuDevice({.num_threads = 1});
  CADRE_CHECK(device.ok());
  return *std::move(device);
}

// The logits of every position of `tokens`, in one pass, alone.
std::vector<std::vector<float>> DirectLogits(const std::vector<int32_t>& tokens) {
  const std::unique_ptr<Device> device = MakeDevice();
  const auto runner = MakeRandomRunner(SmallConfig(ModelFamily::kQwen2Moe), DType::kF32, 5,
                                       MakeRunnerOptions(64, 64, 40), device.get());
  const auto size = static_cast<int32_t>(tokens.size());
  ForwardBatch batch;
  batch.num_sequences = 1;
  batch.max_blocks = (size + kBlockSize - 1) / kBlockSize;
  for (int32_t block = 0; block < batch.max_blocks; ++block) batch.block_tables.push_back(block);
  for (int32_t i = 0; i < size; ++i) {
    batch.token_ids.push_back(tokens[static_cast<size_t>(i)]);
    batch.positions.push_back(i);
    batch.row_sequence.push_back(0);
    batch.kv_slots.push_back(i);
    batch.logit_rows.push_back(i);
  }
  ForwardResult result;
  CADRE_CHECK(runner->Forward(batch, &result).ok());
  std::vector<std::vector<float>> rows;
  for (int32_t i = 0; i < size; ++i) {
    const auto begin = result.logits.begin() + static_cast<std::ptrdiff_t>(i) * kVocabSize;
    rows.emplace_back(begin, begin + kVocabSize);
  }
  return rows;
}

struct Company {
  EngineOptions options;
  int32_t num_blocks = 60;
  int32_t num_others = 0;
};

// A request with every option on, served in company.
Ticket Serve(const Company& company) {
  const std::unique_ptr<Device> device = MakeDevice();
  Engine engine(company.options,
                MakeRandomRunner(SmallConfig(ModelFamily::kQwen2Moe), DType::kF32, 5,
                                 MakeRunnerOptions(company.options.max_num_seqs, company.options.max_num_batched_tokens,
                                                   company.num_blocks),
                                 device.get()),
                nullptr, std::make_shared<FakeClock>(), nullptr);
  const auto submit = [&](int32_t salt, int32_t length, auto edit) {
    Ticket ticket{.prompt = MakePrompt(length, salt)};
    for (int32_t& token : ticket.prompt) token %= kVocabSize;
    Request request;
    request.prompt = ticket.prompt;
    request.arrival = absl::UnixEpoch();
    request.wants_text = false;
    request.sink = ticket.sink;
    request.cancel = ticket.cancel;
    request.sampling.max_tokens = 20;
    edit(request);
    EXPECT_TRUE(engine.Submit(std::move(request)).ok());
    return ticket;
  };
  std::vector<Ticket> others;
  for (int32_t i = 0; i < company.num_others; ++i) {
    others.push_back(submit(100 + i, 5 + i * 3, [](Request& request) { request.prompt_logprobs = 1; }));
  }
  const Ticket ticket = submit(1, 27, [](Request& request) {
    request.num_sequences = 3;
    request.prompt_logprobs = 4;
    request.sampling.seed = 9;
    request.sampling.temperature = 1.3f;
    request.sampling.top_p = 0.95f;
    request.sampling.presence_penalty = 0.7f;
    request.sampling.frequency_penalty = 0.2f;
    request.sampling.repetition_penalty = 1.2f;
    request.sampling.logit_bias = {{3, 2.0f}, {50, -4.0f}};
    request.sampling.logprobs = true;
    request.sampling.top_logprobs = 5;
  });
  while (engine.Step()) EXPECT_TRUE(engine.Audit().ok()) << engine.Audit();
  return ticket;
}

void ExpectSame(const TokenLogprob& found, const TokenLogprob& expected) {
  EXPECT_EQ(found.token_id, expected.token_id);
  EXPECT_EQ(found.logprob, expected.logprob);  // bit for bit
  EXPECT_EQ(found.rank, expected.rank);
  ASSERT_EQ(found.alternatives.size(), expected.alternatives.size());
  for (size_t i = 0; i < found.alternatives.size(); ++i) {
    EXPECT_EQ(found.alternatives[i].token_id, expected.alternatives[i].token_id);
    EXPECT_EQ(found.alternatives[i].logprob, expected.alternatives[i].logprob);
  }
}

TEST(EngineLogprobTest, WhatIsToldIsTheSoftmaxOfAPlainForwardPass) {
  const Ticket ticket = Serve({.options = {.max_num_seqs = 16, .max_num_batched_tokens = 64}});
  const size_t prompt_size = ticket.prompt.size();
  const std::vector<TokenLogprob> prompt_logprobs = ticket.sink->start().prompt_logprobs;
  ASSERT_EQ(prompt_logprobs.size(), prompt_size);
  EXPECT_EQ(prompt_logprobs[0].rank, 0);
  EXPECT_EQ(prompt_logprobs[0].token_id, ticket.prompt[0]);
  ASSERT_EQ(ticket.sink->sequences().size(), 3u);
  for (const auto& [index, sequence] : ticket.sink->sequences()) {
    std::vector<int32_t> tokens = ticket.prompt;
    tokens.insert(tokens.end(), sequence.token_ids.begin(), sequence.token_ids.end());
    const std::vector<std::vector<float>> logits = DirectLogits(tokens);
    for (size_t i = 1; i < prompt_size; ++i)
      ExpectSame(prompt_logprobs[i], *DescribeToken(logits[i - 1], tokens[i], 4));
    ASSERT_EQ(sequence.logprobs.size(), sequence.token_ids.size());
    for (size_t i = prompt_size; i < tokens.size(); ++i) {
      ExpectSame(sequence.logprobs[i - prompt_size], *DescribeToken(logits[i - 1], tokens[i], 5));
    }
  }
}

TEST(EngineLogprobTest, ChunksBatchesAndPreemptionChangeNothing) {
  const Ticket alone = Serve({.options = {.max_num_seqs = 16, .max_num_batched_tokens = 64}});
  const Company companies[] = {
      {.options = {.max_num_seqs = 3, .max_num_batched_tokens = 64}},  // three rows of logits in a step
      {.options = {.max_num_seqs = 16, .max_num_batched_tokens = 7}, .num_others = 3},
      {.options = {.max_num_seqs = 16, .max_num_batched_tokens = 64}, .num_blocks = 20, .num_others = 5},
      {.options = {.max_num_seqs = 1, .max_num_batched_tokens = 64}, .num_others = 2},
  };
  for (const Company& company : companies) {
    const Ticket ticket = Serve(company);
    EXPECT_TRUE(ticket.sink->in_order());
    const std::vector<TokenLogprob> expected = alone.sink->start().prompt_logprobs;
    const std::vector<TokenLogprob> found = ticket.sink->start().prompt_logprobs;
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) ExpectSame(found[i], expected[i]);
    const auto expected_sequences = alone.sink->sequences();
    for (const auto& [index, sequence] : ticket.sink->sequences()) {
      EXPECT_EQ(sequence.token_ids, expected_sequences.at(index).token_ids);
      for (size_t i = 0; i < sequence.logprobs.size(); ++i) {
        ExpectSame(sequence.logprobs[i], expected_sequences.at(index).logprobs[i]);
      }
    }
  }
}

}  // namespace
}  // namespace cadre
