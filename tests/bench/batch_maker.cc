#include "tests/bench/batch_maker.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace cadre {

absl::StatusOr<BatchMaker> BatchMaker::Create(const RunnerLimits& limits, int num_sequences, int positions_per_sequence,
                                              uint64_t seed, double skew) {
  const int blocks_per_sequence = (positions_per_sequence + limits.kv_block_size - 1) / limits.kv_block_size;
  if (int64_t{num_sequences} * blocks_per_sequence > limits.num_kv_blocks) {
    return absl::ResourceExhaustedError(absl::StrCat(num_sequences, " sequences of ", positions_per_sequence,
                                                     " positions need ", num_sequences * blocks_per_sequence,
                                                     " KV blocks, and ", limits.num_kv_blocks, " fit"));
  }
  return BatchMaker(limits, num_sequences, blocks_per_sequence, seed, skew);
}

BatchMaker::BatchMaker(const RunnerLimits& limits, int num_sequences, int blocks_per_sequence, uint64_t seed,
                       double skew)
    : limits_(limits),
      num_sequences_(num_sequences),
      blocks_per_sequence_(blocks_per_sequence),
      random_(seed),
      any_token_(0, limits.vocab_size - 1) {
  if (skew == 0.0) return;
  // The same order for every seed: it is the language, and not the text.
  std::mt19937_64 order(1);
  by_rank_.resize(static_cast<size_t>(limits.vocab_size));
  std::iota(by_rank_.begin(), by_rank_.end(), 0);
  std::ranges::shuffle(by_rank_, order);
  std::vector<double> weights(by_rank_.size());
  for (size_t rank = 0; rank < weights.size(); ++rank) weights[rank] = std::pow(static_cast<double>(rank + 1), -skew);
  any_rank_ = std::discrete_distribution<int32_t>(weights.begin(), weights.end());
}

int32_t BatchMaker::AnyToken() {
  return by_rank_.empty() ? any_token_(random_) : by_rank_[static_cast<size_t>(any_rank_(random_))];
}

ForwardBatch BatchMaker::Rows(int begin, int count) {
  ForwardBatch batch;
  batch.num_sequences = num_sequences_;
  batch.max_blocks = blocks_per_sequence_;
  for (int s = 0; s < num_sequences_; ++s) {
    const int first_block = s * blocks_per_sequence_;
    for (int b = 0; b < blocks_per_sequence_; ++b) batch.block_tables.push_back(first_block + b);
    for (int position = begin; position < begin + count; ++position) {
      batch.token_ids.push_back(AnyToken());
      batch.positions.push_back(position);
      batch.row_sequence.push_back(s);
      batch.kv_slots.push_back(first_block * limits_.kv_block_size + position);
    }
    batch.logit_rows.push_back(batch.num_tokens() - 1);
  }
  return batch;
}

}  // namespace cadre
