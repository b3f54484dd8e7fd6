#include "tests/support/test_sequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "engine/base/check.h"

namespace cadre {

ForwardBatch NextBatch(std::span<const Chunk> chunks, int32_t block_size) {
  ForwardBatch batch;
  batch.num_sequences = static_cast<int32_t>(chunks.size());
  batch.keep_expert_ids = true;
  for (const Chunk& chunk : chunks) {
    batch.max_blocks = std::max(batch.max_blocks, static_cast<int32_t>(chunk.sequence->blocks.size()));
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    TestSequence& sequence = *chunks[i].sequence;
    for (int32_t n = 0; n < chunks[i].num_tokens; ++n) {
      const int32_t position = sequence.num_computed++;
      batch.logit_rows.push_back(batch.num_tokens());
      batch.token_ids.push_back(sequence.tokens.at(static_cast<size_t>(position)));
      batch.positions.push_back(position);
      batch.row_sequence.push_back(static_cast<int32_t>(i));
      batch.kv_slots.push_back(sequence.blocks.at(static_cast<size_t>(position / block_size)) * block_size +
                               position % block_size);
    }
    batch.seeds.push_back(sequence.seed);
    batch.prompt_lengths.push_back(sequence.prompt_length);
    std::vector<int32_t> row = sequence.blocks;
    row.resize(static_cast<size_t>(batch.max_blocks), 0);
    batch.block_tables.insert(batch.block_tables.end(), row.begin(), row.end());
  }
  return batch;
}

SequenceOutput RunAlone(ModelRunner& runner, const std::vector<int32_t>& tokens, std::span<const int32_t> chunk_sizes,
                        uint64_t seed, int32_t prompt_length) {
  const RunnerLimits& limits = runner.limits();
  const size_t num_tokens = tokens.size();
  const auto top_k = static_cast<size_t>(limits.top_k);
  const auto num_layers = static_cast<size_t>(limits.num_moe_layers);
  TestSequence sequence = {
      .tokens = tokens, .blocks = {}, .num_computed = 0, .seed = seed, .prompt_length = prompt_length};
  sequence.blocks.resize((num_tokens + static_cast<size_t>(limits.kv_block_size) - 1) /
                         static_cast<size_t>(limits.kv_block_size));
  std::iota(sequence.blocks.begin(), sequence.blocks.end(), 0);

  SequenceOutput output;
  output.expert_ids.resize(num_layers * num_tokens * top_k);
  ForwardResult result;
  for (int32_t chunk_size : chunk_sizes) {
    const auto begin = static_cast<size_t>(sequence.num_computed);
    const auto count = static_cast<size_t>(chunk_size);
    const Chunk chunk = {.sequence = &sequence, .num_tokens = chunk_size};
    const absl::Status status = runner.Forward(NextBatch({&chunk, 1}, limits.kv_block_size), &result);
    EXPECT_TRUE(status.ok()) << status;
    output.logits.insert(output.logits.end(), result.logits.begin(), result.logits.end());
    for (size_t layer = 0; layer < num_layers; ++layer) {
      std::copy_n(result.expert_ids.begin() + static_cast<std::ptrdiff_t>(layer * count * top_k), count * top_k,
                  output.expert_ids.begin() + static_cast<std::ptrdiff_t>((layer * num_tokens + begin) * top_k));
    }
  }
  CADRE_CHECK_EQ(static_cast<size_t>(sequence.num_computed), num_tokens);
  return output;
}

SequenceOutput RunAlone(ModelRunner& runner, const std::vector<int32_t>& tokens, uint64_t seed, int32_t prompt_length) {
  const auto all = static_cast<int32_t>(tokens.size());
  return RunAlone(runner, tokens, {&all, 1}, seed, prompt_length);
}

}  // namespace cadre
