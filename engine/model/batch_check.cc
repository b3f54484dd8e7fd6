#include "engine/model/batch_check.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/base/check.h"

namespace cadre {
namespace {

void CheckSizes(const ForwardBatch& batch) {
  const size_t num_tokens = batch.token_ids.size();
  CADRE_CHECK_GT(num_tokens, size_t{0});
  CADRE_CHECK_GT(batch.num_sequences, 0);
  CADRE_CHECK_GT(batch.max_blocks, 0);
  CADRE_CHECK_EQ(batch.positions.size(), num_tokens);
  CADRE_CHECK_EQ(batch.row_sequence.size(), num_tokens);
  CADRE_CHECK_EQ(batch.kv_slots.size(), num_tokens);
  CADRE_CHECK_EQ(batch.block_tables.size(),
                 static_cast<size_t>(batch.num_sequences) * static_cast<size_t>(batch.max_blocks));
}

void CheckRow(const ForwardBatch& batch, const RunnerLimits& limits, size_t row) {
  const int32_t token = batch.token_ids[row];
  const int32_t position = batch.positions[row];
  const int32_t sequence = batch.row_sequence[row];
  CADRE_CHECK_GE(token, limits.can_order_ahead ? SampledAt(limits.max_sample_rows - 1) : 0);
  CADRE_CHECK_LT(token, limits.vocab_size);
  CADRE_CHECK_GE(position, 0);
  CADRE_CHECK_LT(position, limits.max_model_len);
  CADRE_CHECK_GE(sequence, 0);
  CADRE_CHECK_LT(sequence, batch.num_sequences);

  const int32_t column = position / limits.kv_block_size;
  CADRE_CHECK_LT(column, batch.max_blocks);
  const size_t entry =
      static_cast<size_t>(sequence) * static_cast<size_t>(batch.max_blocks) + static_cast<size_t>(column);
  CADRE_CHECK_EQ(batch.kv_slots[row],
                 batch.block_tables[entry] * limits.kv_block_size + position % limits.kv_block_size);
  if (row == 0) return;
  const int32_t sequence_before = batch.row_sequence[row - 1];
  CADRE_CHECK_GE(sequence, sequence_before);
  if (sequence == sequence_before) CADRE_CHECK_EQ(position, batch.positions[row - 1] + 1);
}

void CheckSampleRow(const SampleRow& row, const RunnerLimits& limits, int64_t num_extras) {
  if (row.is_wanted == 0) return;
  constexpr int64_t kEditWords = sizeof(SampleEdit) / sizeof(int32_t);
  for (const int32_t count : {row.num_forbidden, row.num_biased, row.num_seen}) CADRE_CHECK_GE(count, 0);
  const int64_t num_edits = int64_t{row.num_forbidden} + row.num_biased + row.num_seen;
  CADRE_CHECK_GE(row.edits, 0);
  CADRE_CHECK_LE(row.edits + num_edits * kEditWords, num_extras);
  CADRE_CHECK_LE(row.mask < 0 ? 0 : row.mask + (limits.vocab_size + int64_t{31}) / 32, num_extras);
  CADRE_CHECK_LE(int64_t{row.num_alternatives}, kMaxAlternatives);
}

void CheckSampling(const ForwardBatch& batch, const RunnerLimits& limits) {
  if (batch.sample_rows.empty()) return;
  CADRE_CHECK_EQ(batch.sample_rows.size(), batch.logit_rows.size());
  CADRE_CHECK_LE(static_cast<int64_t>(batch.sample_rows.size()), int64_t{limits.max_sample_rows});
  const auto num_extras = static_cast<int64_t>(batch.sample_extras.size());
  CADRE_CHECK_LE(num_extras, limits.max_sample_extras);
  for (const SampleRow& row : batch.sample_rows) CheckSampleRow(row, limits, num_extras);
}

void CheckSeeds(const ForwardBatch& batch, const RunnerLimits& limits) {
  if (batch.seeds.empty() && !limits.needs_seeds) return;
  CADRE_CHECK_EQ(batch.seeds.size(), static_cast<size_t>(batch.num_sequences));
}

// Groups of prompts come whole.
void CheckPromptGroups(const ForwardBatch& batch, const RunnerLimits& limits) {
  if (batch.prompt_lengths.empty() && limits.prompt_group == 0) return;
  CADRE_CHECK_EQ(batch.prompt_lengths.size(), static_cast<size_t>(batch.num_sequences));
  if (limits.prompt_group == 0) return;
  for (size_t row = 0; row < batch.positions.size(); ++row) {
    const int32_t position = batch.positions[row];
    const int32_t length = batch.prompt_lengths[static_cast<size_t>(batch.row_sequence[row])];
    if (position >= length) continue;
    const bool is_first = row == 0 || batch.row_sequence[row - 1] != batch.row_sequence[row];
    const bool is_last = row + 1 == batch.positions.size() || batch.row_sequence[row + 1] != batch.row_sequence[row];
    if (is_first) CADRE_CHECK_EQ(position % limits.prompt_group, 0);
    if (is_last && position + 1 < length) CADRE_CHECK_EQ((position + 1) % limits.prompt_group, 0);
  }
}

// What the experts are, the device checks.
void CheckRecorded(const ForwardBatch& batch, const RunnerLimits& limits) {
  const RecordedRows& recorded = batch.recorded;
  const size_t num_rows = recorded.modes.size();
  const size_t num_choices = num_rows * static_cast<size_t>(limits.num_moe_layers) * static_cast<size_t>(limits.top_k);
  CADRE_CHECK_EQ(recorded.expert_ids.size(), num_choices);
  CADRE_CHECK_EQ(recorded.weights.size(), num_choices);
  if (num_rows == 0) return;
  CADRE_CHECK(limits.can_replay_routing);
  CADRE_CHECK_EQ(num_rows, batch.token_ids.size());
}

void CheckCapacity(const ForwardBatch& batch, const RunnerLimits& limits) {
  if (batch.capacity.empty()) return;
  CADRE_CHECK_EQ(batch.capacity.size(), static_cast<size_t>(batch.num_sequences));
  CADRE_CHECK_GT(limits.max_capacity_slots, 0);
  std::vector<bool> is_taken(static_cast<size_t>(limits.max_capacity_slots));
  for (const SequenceCapacity& capacity : batch.capacity) {
    CADRE_CHECK_GE(capacity.places, 0);
    if (capacity.scope != CapacityScope::kRequest) continue;
    CADRE_CHECK_GE(capacity.group, 1);
    CADRE_CHECK_GE(capacity.slot, 0);
    CADRE_CHECK_LT(capacity.slot, limits.max_capacity_slots);
    CADRE_CHECK(!is_taken[static_cast<size_t>(capacity.slot)]);
    is_taken[static_cast<size_t>(capacity.slot)] = true;
  }
}

}  // namespace

void CheckBatch(const ForwardBatch& batch, const RunnerLimits& limits) {
  CheckSizes(batch);
  for (int32_t block : batch.block_tables) {
    CADRE_CHECK_GE(block, 0);
    CADRE_CHECK_LT(block, limits.num_kv_blocks);
  }
  for (size_t row = 0; row < batch.token_ids.size(); ++row) CheckRow(batch, limits, row);
  int32_t row_before = -1;
  for (int32_t row : batch.logit_rows) {
    CADRE_CHECK_GT(row, row_before);
    CADRE_CHECK_LT(row, batch.num_tokens());
    row_before = row;
  }
  CheckSampling(batch, limits);
  CheckCapacity(batch, limits);
  CheckRecorded(batch, limits);
  CheckSeeds(batch, limits);
  CheckPromptGroups(batch, limits);
}

}  // namespace cadre
