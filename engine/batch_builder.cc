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

namespace {

// The chunk's first and last row that `replay` has choices for, as positions; nothing where first >= end.
struct RecordedRange {
  int64_t begin = 0;
  int64_t end = 0;
};
RecordedRange RangeOf(const ScheduledChunk& chunk, const RoutingReplay* replay) {
  if (replay == nullptr) return {};
  return {.begin = std::max<int64_t>(chunk.begin, replay->first_position),
          .end = std::min<int64_t>(chunk.begin + chunk.count, replay->first_position + replay->num_positions())};
}

}  // namespace

void BuildRecordedRows(const StepPlan& plan, std::span<const RoutingReplay* const> replays, const RunnerLimits& limits,
                       ForwardBatch* batch) {
  CADRE_CHECK_EQ(plan.chunks.size(), replays.size());
  RecordedRows& recorded = batch->recorded;
  recorded.modes.clear();
  recorded.expert_ids.clear();
  recorded.weights.clear();
  bool has_rows = false;
  for (size_t s = 0; s < replays.size(); ++s) {
    const RecordedRange range = RangeOf(plan.chunks[s], replays[s]);
    has_rows |= range.begin < range.end;
  }
  if (!has_rows) return;
  const int64_t num_rows = batch->num_tokens();
  const int64_t num_choices = num_rows * limits.num_moe_layers * limits.top_k;
  recorded.modes.assign(static_cast<size_t>(num_rows), RowReplay::kNone);
  recorded.expert_ids.assign(static_cast<size_t>(num_choices), kPadding);
  recorded.weights.assign(static_cast<size_t>(num_choices), 0.0f);
  int64_t first_row = 0;
  for (size_t s = 0; s < replays.size(); ++s) {
    const ScheduledChunk& chunk = plan.chunks[s];
    const RecordedRange range = RangeOf(chunk, replays[s]);
    for (int64_t position = range.begin; position < range.end; ++position) {
      const RoutingReplay& replay = *replays[s];
      const int64_t row = first_row + position - chunk.begin;
      recorded.modes[static_cast<size_t>(row)] =
          replay.uses_recorded_weights ? RowReplay::kRecordedWeights : RowReplay::kRouterWeights;
      for (int64_t layer = 0; layer < limits.num_moe_layers; ++layer) {
        const int64_t from = ((position - replay.first_position) * limits.num_moe_layers + layer) * limits.top_k;
        const int64_t to = (layer * num_rows + row) * limits.top_k;
        // Clients mark a choice that was not made otherwise than the model does.
        std::transform(replay.record.expert_ids.begin() + from, replay.record.expert_ids.begin() + from + limits.top_k,
                       recorded.expert_ids.begin() + to, [](int32_t id) { return id == kNoExpert ? kPadding : id; });
        if (!replay.uses_recorded_weights) continue;
        std::copy_n(replay.record.weights.begin() + from, limits.top_k, recorded.weights.begin() + to);
      }
    }
    first_row += chunk.count;
  }
}

}  // namespace cadre
