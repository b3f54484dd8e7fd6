#include "engine/batch_builder.h"

#include <algorithm>

#include "engine/base/check.h"

namespace cadre {

void BuildForwardBatch(const StepPlan& plan, std::span<const Sequence* const> sequences, int32_t block_size,
                       ForwardBatch* batch) {
  CADRE_CHECK_EQ(plan.chunks.size(), sequences.size());
  batch->token_ids.clear();
  batch->positions.clear();
  batch->row_sequence.clear();
  batch->kv_slots.clear();
  batch->logit_rows.clear();
  batch->num_sequences = static_cast<int32_t>(sequences.size());
  batch->max_blocks = 0;
  for (const Sequence* sequence : sequences) {
    batch->max_blocks = std::max(batch->max_blocks, static_cast<int32_t>(sequence->block_table().size()));
  }
  const auto row_size = static_cast<size_t>(batch->max_blocks);
  batch->block_tables.assign(sequences.size() * row_size, 0);

  for (size_t s = 0; s < sequences.size(); ++s) {
    const ScheduledChunk& chunk = plan.chunks[s];
    const Sequence& sequence = *sequences[s];
    CADRE_CHECK_EQ(sequence.id(), chunk.sequence);
    CADRE_CHECK_EQ(sequence.num_scheduled_tokens(), chunk.count);
    const std::vector<int32_t>& blocks = sequence.block_table();
    std::copy(blocks.begin(), blocks.end(), batch->block_tables.begin() + static_cast<std::ptrdiff_t>(s * row_size));
    for (int32_t position = chunk.begin; position < chunk.begin + chunk.count; ++position) {
      const int32_t block = blocks[static_cast<size_t>(position / block_size)];
      batch->token_ids.push_back(sequence.tokens()[static_cast<size_t>(position)]);
      batch->positions.push_back(position);
      batch->row_sequence.push_back(static_cast<int32_t>(s));
      batch->kv_slots.push_back(block * block_size + position % block_size);
    }
    for (int32_t i = chunk.num_logit_rows(); i > 0; --i) batch->logit_rows.push_back(batch->num_tokens() - i);
  }
}

}  // namespace cadre
