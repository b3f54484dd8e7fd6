#include "engine/model/simulated_runner.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

// Finalizer of SplitMix64: every bit of the input reaches every bit of the result.
constexpr uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

constexpr uint64_t kEmptyHistory = 0;

constexpr uint64_t Extend(uint64_t history, int32_t token) {
  return Mix(history ^ Mix(static_cast<uint64_t>(static_cast<uint32_t>(token)) + 1));
}

int32_t NextToken(uint64_t history, int32_t vocab_size) {
  return static_cast<int32_t>(Mix(history) % static_cast<uint64_t>(vocab_size));
}

}  // namespace

SimulatedRunner::SimulatedRunner(SimulatedOptions options) : options_(std::move(options)) {
  const RunnerLimits& limits = options_.limits;
  CADRE_CHECK_GE(limits.vocab_size, 1);
  CADRE_CHECK_GE(limits.kv_block_size, 1);
  CADRE_CHECK_GE(limits.num_kv_blocks, 1);
  CADRE_CHECK_LE(limits.top_k, limits.num_experts);
  num_tables_.resize(static_cast<size_t>(limits.num_kv_blocks));
  slots_.resize(static_cast<size_t>(limits.num_kv_blocks) * static_cast<size_t>(limits.kv_block_size));
}

absl::Status SimulatedRunner::Forward(const ForwardBatch& batch, ForwardResult* result) {
  const RunnerLimits& limits = options_.limits;
  const int32_t num_tokens = batch.num_tokens();
  const auto num_cells = static_cast<size_t>(limits.num_moe_layers) * static_cast<size_t>(limits.num_experts);
  const auto vocab_size = static_cast<size_t>(limits.vocab_size);

  result->routing.num_layers = limits.num_moe_layers;
  result->routing.num_experts = limits.num_experts;
  result->routing.top_k = limits.top_k;
  result->routing.num_tokens = num_tokens;
  result->routing.assignments.assign(num_cells, 0);
  result->routing.gate_weight.assign(num_cells, 0.0);
  result->routing.probability.assign(num_cells, 0.0);
  result->routing.squared_log_sum_exp.assign(static_cast<size_t>(limits.num_moe_layers), 0.0);
  result->routing.sequence_assignments.assign(static_cast<size_t>(batch.num_sequences), 0);
  result->routing.sequence_gate_weight.assign(static_cast<size_t>(batch.num_sequences), 0.0);
  const size_t num_choices =
      static_cast<size_t>(limits.num_moe_layers) * static_cast<size_t>(num_tokens) * static_cast<size_t>(limits.top_k);
  result->expert_ids.assign(batch.keep_expert_ids ? num_choices : 0, 0);
  result->chosen_ids.assign(batch.keep_choices ? num_choices : 0, 0);
  result->chosen_weights.assign(result->chosen_ids.size(), 1.0f / static_cast<float>(limits.top_k));

  ++step_;
  CADRE_RETURN_IF_ERROR(CheckSharing(batch));
  // All rows are stored before any is read, as a device does it.
  for (int32_t row = 0; row < num_tokens; ++row) {
    CADRE_RETURN_IF_ERROR(StoreRow(batch, row));
    RouteRow(batch, row, result);
  }
  // The last row of each sequence reads all that the sequence has.
  for (int32_t row = 0; row < num_tokens; ++row) {
    const auto r = static_cast<size_t>(row);
    if (row + 1 < num_tokens && batch.row_sequence[r + 1] == batch.row_sequence[r]) continue;
    CADRE_RETURN_IF_ERROR(ReadHistory(batch, row).status());
  }
  result->logits.assign(batch.logit_rows.size() * vocab_size, 0.0f);
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    const int32_t row = batch.logit_rows[i];
    const int32_t slot =
        SlotOf(batch, batch.row_sequence[static_cast<size_t>(row)], batch.positions[static_cast<size_t>(row)]);
    const uint64_t history = slots_[static_cast<size_t>(slot)].history;
    result->logits[i * vocab_size + static_cast<size_t>(NextToken(history, limits.vocab_size))] = 64.0f;
  }

  const absl::Duration cost = options_.step_cost + num_tokens * options_.token_cost;
  if (options_.pass_time) {
    options_.pass_time(cost);
  } else if (cost > absl::ZeroDuration()) {
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(cost));
  }
  return absl::OkStatus();
}

int32_t SimulatedRunner::SlotOf(const ForwardBatch& batch, int32_t sequence, int32_t position) const {
  const int32_t block_size = options_.limits.kv_block_size;
  CADRE_CHECK_LT(position / block_size, batch.max_blocks);
  const int32_t block = batch.block_tables[static_cast<size_t>(sequence) * static_cast<size_t>(batch.max_blocks) +
                                           static_cast<size_t>(position / block_size)];
  CADRE_CHECK_GE(block, 0);
  CADRE_CHECK_LT(block, options_.limits.num_kv_blocks);
  return block * block_size + position % block_size;
}

void SimulatedRunner::ScrubBlocks(std::span<const int32_t> blocks) {
  const auto block_size = static_cast<size_t>(options_.limits.kv_block_size);
  for (int32_t block : blocks) {
    std::fill_n(slots_.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(block) * block_size), block_size,
                Slot{});
  }
}

absl::Status SimulatedRunner::CheckSharing(const ForwardBatch& batch) {
  const int32_t block_size = options_.limits.kv_block_size;
  // Calls `visit` with each block of each sequence's table.
  const auto for_each_block = [&](const auto& visit) {
    for (int32_t row = 0; row < batch.num_tokens(); ++row) {
      const auto r = static_cast<size_t>(row);
      if (row + 1 < batch.num_tokens() && batch.row_sequence[r + 1] == batch.row_sequence[r]) continue;
      for (int32_t position = 0; position <= batch.positions[r]; position += block_size) {
        visit(static_cast<size_t>(SlotOf(batch, batch.row_sequence[r], position) / block_size));
      }
    }
  };
  for_each_block([this](size_t block) { ++num_tables_[block]; });
  absl::Status status;
  for (int32_t slot : batch.kv_slots) {
    const int32_t block = slot / block_size;
    if (block < 0 || block >= options_.limits.num_kv_blocks) continue;  // StoreRow refuses it
    if (const int32_t holders = num_tables_[static_cast<size_t>(block)]; holders > 1) {
      status = absl::InternalError(absl::StrCat("a row writes block ", block, ", which ", holders, " sequences hold"));
    }
  }
  for_each_block([this](size_t block) { num_tables_[block] = 0; });
  return status;
}

absl::Status SimulatedRunner::StoreRow(const ForwardBatch& batch, int32_t row) {
  const auto r = static_cast<size_t>(row);
  const int32_t sequence = batch.row_sequence[r];
  const int32_t position = batch.positions[r];
  const int32_t token = batch.token_ids[r];
  const int32_t slot = SlotOf(batch, sequence, position);
  if (slot != batch.kv_slots[r]) {
    return absl::InternalError(absl::StrCat("row ", row, " of sequence ", sequence, " writes slot ", batch.kv_slots[r],
                                            ", its block table says ", slot));
  }
  if (token < 0 || token >= options_.limits.vocab_size) {
    return absl::InternalError(
        absl::StrCat("row ", row, " has token ", token, ", vocabulary is ", options_.limits.vocab_size));
  }
  uint64_t history = kEmptyHistory;
  if (position > 0) {
    const int32_t before = SlotOf(batch, sequence, position - 1);
    const Slot& previous = slots_[static_cast<size_t>(before)];
    if (previous.position != position - 1) {
      return absl::InternalError(absl::StrCat("sequence ", sequence, ", position ", position, ": slot ", before,
                                              " before it holds position ", previous.position));
    }
    history = previous.history;
  }
  Slot& written = slots_[static_cast<size_t>(slot)];
  if (written.step == step_) return absl::InternalError(absl::StrCat("two rows of one step write slot ", slot));
  written = {.token = token, .position = position, .history = Extend(history, token), .step = step_};
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SimulatedRunner::ReadHistory(const ForwardBatch& batch, int32_t row) const {
  const int32_t sequence = batch.row_sequence[static_cast<size_t>(row)];
  const int32_t last = batch.positions[static_cast<size_t>(row)];
  uint64_t history = kEmptyHistory;
  for (int32_t position = 0; position <= last; ++position) {
    const int32_t i = SlotOf(batch, sequence, position);
    const Slot& slot = slots_[static_cast<size_t>(i)];
    history = Extend(history, slot.token);
    if (slot.position != position || slot.history != history) {
      return absl::InternalError(absl::StrCat("sequence ", sequence, ", position ", position, ": slot ", i,
                                              " holds position ", slot.position, " of ",
                                              slot.position == position ? "another history" : "something else"));
    }
  }
  return history;
}

void SimulatedRunner::RouteRow(const ForwardBatch& batch, int32_t row, ForwardResult* result) const {
  const auto r = static_cast<size_t>(row);
  const auto num_experts = static_cast<size_t>(options_.limits.num_experts);
  const auto top_k = static_cast<size_t>(options_.limits.top_k);
  const auto num_layers = static_cast<size_t>(options_.limits.num_moe_layers);
  StepRouting& routing = result->routing;
  const uint64_t row_hash = Extend(static_cast<uint64_t>(batch.positions[r]), batch.token_ids[r]);
  for (size_t layer = 0; layer < num_layers; ++layer) {
    const uint64_t first = Mix(row_hash + layer);
    for (size_t k = 0; k < top_k; ++k) {
      const size_t expert = (first + k) % num_experts;
      const size_t cell = layer * num_experts + expert;
      ++routing.assignments[cell];
      routing.gate_weight[cell] += 1.0 / static_cast<double>(top_k);
      routing.probability[cell] += 1.0 / static_cast<double>(top_k);
      const size_t place = layer * static_cast<size_t>(batch.num_tokens()) + r;
      if (batch.keep_expert_ids) result->expert_ids[place * top_k + k] = static_cast<int32_t>(expert);
      if (batch.keep_choices) result->chosen_ids[place * top_k + k] = static_cast<int32_t>(expert);
    }
    routing.squared_log_sum_exp[layer] += 1.0;
  }
  const auto sequence = static_cast<size_t>(batch.row_sequence[r]);
  routing.sequence_assignments[sequence] += static_cast<int64_t>(num_layers * top_k);
  routing.sequence_gate_weight[sequence] += static_cast<double>(num_layers);
}

std::vector<int32_t> SimulatedRunner::ExpectedTokens(std::span<const int32_t> prompt, int32_t count,
                                                     int32_t vocab_size) {
  uint64_t history = kEmptyHistory;
  for (int32_t token : prompt) history = Extend(history, token);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) {
    tokens.push_back(NextToken(history, vocab_size));
    history = Extend(history, tokens.back());
  }
  return tokens;
}

}  // namespace cadre
