// Batches for benchmarks of a model runner.
#ifndef CADRE_TESTS_BENCH_BATCH_MAKER_H_
#define CADRE_TESTS_BENCH_BATCH_MAKER_H_

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/forward_batch.h"
#include "engine/model/model_runner.h"

namespace cadre {

// Each sequence owns a contiguous run of KV blocks. Tokens are random, and different ones in each sequence: equal
// tokens would all choose the same experts and flatter every MoE engine.
class BatchMaker {
 public:
  // Tokens are drawn by rank ^ -skew, the ranks being a random order of the vocabulary: 0 is uniform, and about 1 what
  // natural language is like (Zipf). RESOURCE_EXHAUSTED if the KV cache has no room for so many positions.
  static absl::StatusOr<BatchMaker> Create(const RunnerLimits& limits, int num_sequences, int positions_per_sequence,
                                           uint64_t seed, double skew = 0.0);

  // Rows [begin, begin + count) of every sequence; logits of the last.
  ForwardBatch Rows(int begin, int count);

 private:
  BatchMaker(const RunnerLimits& limits, int num_sequences, int blocks_per_sequence, uint64_t seed, double skew);

  int32_t AnyToken();

  RunnerLimits limits_;
  int num_sequences_;
  int blocks_per_sequence_;
  std::mt19937_64 random_;
  std::vector<int32_t> by_rank_;                  // empty where tokens are uniform
  std::discrete_distribution<int32_t> any_rank_;  // of by_rank_
  std::uniform_int_distribution<int32_t> any_token_;
};

}  // namespace cadre

#endif  // CADRE_TESTS_BENCH_BATCH_MAKER_H_
