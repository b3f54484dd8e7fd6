// Sequences as a test drives them through a runner, without a scheduler.
#ifndef CADRE_TESTS_SUPPORT_TEST_SEQUENCE_H_
#define CADRE_TESTS_SUPPORT_TEST_SEQUENCE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/forward_batch.h"
#include "engine/model/model_runner.h"

namespace cadre {

struct TestSequence {
  std::vector<int32_t> tokens;
  std::vector<int32_t> blocks;  // enough physical blocks for all tokens
  int32_t num_computed = 0;     // tokens that the runner has seen
  uint64_t seed = 0;
  int32_t prompt_length = 0;  // as the router asks for it
};

// The next `num_tokens` tokens of a sequence.
struct Chunk {
  TestSequence* sequence = nullptr;
  int32_t num_tokens = 0;
};

// One step of these chunks, which asks for the logits of every row and for the expert ids. Counts the tokens as
// computed.
ForwardBatch NextBatch(std::span<const Chunk> chunks, int32_t block_size);

// What a runner said of every token of one sequence.
struct SequenceOutput {
  std::vector<float> logits;        // [n, V]
  std::vector<int32_t> expert_ids;  // [MoE layers, n, K]
};

// Feeds `tokens` to `runner` in chunks of the given sizes (whose sum is the number of tokens), alone, in the blocks 0,
// 1, 2... Fails the test when a step fails.
SequenceOutput RunAlone(ModelRunner& runner, const std::vector<int32_t>& tokens, std::span<const int32_t> chunk_sizes,
                        uint64_t seed = 0, int32_t prompt_length = 0);
// The same in one step.
SequenceOutput RunAlone(ModelRunner& runner, const std::vector<int32_t>& tokens, uint64_t seed = 0,
                        int32_t prompt_length = 0);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_TEST_SEQUENCE_H_
