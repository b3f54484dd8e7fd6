#include "engine/model/step_arena.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/model/arena_layout.h"

namespace cadre {
namespace {

// The rest of `to` becomes `padding`.
void Fill(const View& to, const std::vector<int32_t>& from, int32_t padding) {
  CADRE_CHECK_GE(to.num_elements(), static_cast<int64_t>(from.size()));
  if (to.num_elements() == 0) return;
  auto* const values = to.data<int32_t>();
  std::fill(std::copy(from.begin(), from.end(), values), values + to.num_elements(), padding);
}

// What is behind the entries of a sequence is not read.
void FillTables(const View& to, const ForwardBatch& batch) {
  CADRE_CHECK_GE(to.dim(0), int64_t{batch.num_sequences});
  CADRE_CHECK_GE(to.dim(1), int64_t{batch.max_blocks});
  for (int64_t s = 0; s < batch.num_sequences; ++s) {
    const auto from = batch.block_tables.begin() + s * batch.max_blocks;
    std::copy_n(from, batch.max_blocks, to.data<int32_t>() + s * to.dim(1));
  }
}

template <typename T>
void Read(std::vector<T>* to, const View& from) {
  const T* values = from.data<T>();
  to->assign(values, values + from.num_elements());
}

// Bytes [begin, end) of an arena, as a tensor that a copy accepts.
View ByteRange(const DeviceBuffer& buffer, int64_t begin, int64_t end) {
  const auto word_bytes = static_cast<int64_t>(DTypeBytes(DType::kI32));
  return buffer.view(DType::kI32, {(end - begin) / word_bytes}, static_cast<size_t>(begin));
}

}  // namespace

RoutingTally StepTallies::Layer(int64_t moe_layer) const {
  const Shape per_expert = {assignments.dim(1)};
  return {.assignments = assignments.Rows(moe_layer, 1).Reshape(per_expert),
          .gate_weight = gate_weight.Rows(moe_layer, 1).Reshape(per_expert),
          .probability = probability.Rows(moe_layer, 1).Reshape(per_expert),
          .squared_log_sum_exp = squared_log_sum_exp.Rows(moe_layer, 1),
          .sequence_assignments = sequence_assignments};
}

StepShape ShapeOf(const ForwardBatch& batch) {
  return {.num_tokens = batch.num_tokens(),
          .num_sequences = batch.num_sequences,
          .max_blocks = batch.max_blocks,
          .num_logit_rows = static_cast<int64_t>(batch.logit_rows.size()),
          .samples = !batch.sample_rows.empty()};
}

StepArena::Image StepArena::LayOut(std::byte* base, const StepShape& shape, int64_t num_moe_layers, int64_t num_experts,
                                   int64_t num_extras) {
  ArenaLayout layout(base);
  Image image;
  image.inputs.token_ids = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.positions = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.row_sequence = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.kv_slots = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.block_tables = layout.Take(DType::kI32, {shape.num_sequences, shape.max_blocks});
  image.inputs.logit_rows = layout.Take(DType::kI32, {shape.num_logit_rows});
  const int64_t num_sampled = shape.samples ? shape.num_logit_rows : 0;
  image.inputs.sample_rows = layout.Take(DType::kI32, {num_sampled, kSampleRowWords});
  image.tallies_begin = layout.offset();
  const Shape layer_experts = {num_moe_layers, num_experts};
  image.tallies.assignments = layout.Take(DType::kI64, layer_experts);
  image.tallies.gate_weight = layout.Take(DType::kF64, layer_experts);
  image.tallies.probability = layout.Take(DType::kF64, layer_experts);
  image.tallies.squared_log_sum_exp = layout.Take(DType::kF64, {num_moe_layers});
  image.tallies.sequence_assignments = layout.Take(DType::kI64, {shape.num_sequences});
  image.tallies_end = layout.offset();
  image.sampled.tokens = layout.Take(DType::kI32, {num_sampled});
  image.sampled.ranks = layout.Take(DType::kI32, {num_sampled});
  image.sampled.logprobs = layout.Take(DType::kF32, {num_sampled, 1 + kMaxAlternatives});
  image.sampled.alternatives = layout.Take(DType::kI32, {num_sampled, kMaxAlternatives});
  image.sampled_end = layout.offset();
  image.inputs.sample_extras = layout.Take(DType::kI32, {shape.samples ? num_extras : 0});
  image.end = layout.offset();
  return image;
}

int64_t StepArena::SizeBytes(const ModelConfig& config, const StepLimits& limits) {
  StepShape shape = {.num_tokens = limits.max_tokens,
                     .num_sequences = limits.max_sequences,
                     .max_blocks = limits.max_blocks,
                     .num_logit_rows = limits.max_tokens};
  const auto bytes = [&] {
    return LayOut(nullptr, shape, config.num_moe_layers(), config.num_experts, limits.max_sample_extras).end;
  };
  const int64_t without_sampling = bytes();
  // Steps that sample want fewer rows of logits.
  shape.num_logit_rows = limits.max_sample_rows;
  shape.samples = limits.max_sample_rows > 0;
  return std::max(without_sampling, bytes());
}

absl::StatusOr<StepArena> StepArena::Create(const ModelConfig& config, const StepLimits& limits, Device& device) {
  const auto bytes = static_cast<size_t>(SizeBytes(config, limits));
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer memory, device.Allocate(bytes));
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer staging, device.AllocateStaging(bytes));
  return StepArena(config, limits.max_sample_extras, std::move(memory), std::move(staging));
}

StepArena::StepArena(const ModelConfig& config, int64_t num_extras, DeviceBuffer device_memory,
                     DeviceBuffer host_memory)
    : num_moe_layers_(config.num_moe_layers()),
      num_experts_(config.num_experts),
      top_k_(config.router.top_k),
      num_extras_(num_extras),
      device_memory_(std::move(device_memory)),
      host_memory_(std::move(host_memory)) {}

void StepArena::Upload(const ForwardBatch& batch, const StepShape& shape, Device& device) {
  num_tokens_ = batch.num_tokens();
  num_sequences_ = batch.num_sequences;
  num_sampled_ = static_cast<int64_t>(batch.sample_rows.size());
  on_device_ = LayOut(device_memory_, shape);
  on_host_ = LayOut(host_memory_, shape);
  CADRE_CHECK_LE(on_device_.end, static_cast<int64_t>(device_memory_.size_bytes()));

  Fill(on_host_.inputs.token_ids, batch.token_ids, kPadding);
  Fill(on_host_.inputs.positions, batch.positions, 0);
  Fill(on_host_.inputs.row_sequence, batch.row_sequence, kPadding);
  Fill(on_host_.inputs.kv_slots, batch.kv_slots, kPadding);
  FillTables(on_host_.inputs.block_tables, batch);
  Fill(on_host_.inputs.logit_rows, batch.logit_rows, kPadding);
  std::memset(host_memory_.data() + on_host_.tallies_begin, 0,
              static_cast<size_t>(on_host_.tallies_end - on_host_.tallies_begin));
  const int64_t end = shape.samples ? FillSampling(batch) : on_host_.tallies_end;
  device.CopyToDevice(ByteRange(device_memory_, 0, end), host_memory_.data());
}

int64_t StepArena::FillSampling(const ForwardBatch& batch) {
  const StepInputs& inputs = on_host_.inputs;
  CADRE_CHECK_GE(inputs.sample_rows.dim(0), num_sampled_);
  CADRE_CHECK_GE(inputs.sample_extras.dim(0), static_cast<int64_t>(batch.sample_extras.size()));
  auto* const rows = reinterpret_cast<SampleRow*>(inputs.sample_rows.raw());
  std::fill(std::copy(batch.sample_rows.begin(), batch.sample_rows.end(), rows), rows + inputs.sample_rows.dim(0),
            SampleRow());
  std::ranges::copy(batch.sample_extras, inputs.sample_extras.data<int32_t>());
  return on_host_.sampled_end + static_cast<int64_t>(batch.sample_extras.size() * sizeof(int32_t));
}

void StepArena::Download(Device& device) {
  device.CopyToHost(host_memory_.data() + on_host_.tallies_begin,
                    ByteRange(device_memory_, on_device_.tallies_begin, on_device_.sampled_end));
}

void StepArena::ReadRouting(StepRouting* routing) const {
  routing->num_layers = static_cast<int32_t>(num_moe_layers_);
  routing->num_experts = static_cast<int32_t>(num_experts_);
  routing->top_k = static_cast<int32_t>(top_k_);
  routing->num_tokens = num_tokens_;
  Read(&routing->assignments, on_host_.tallies.assignments);
  Read(&routing->gate_weight, on_host_.tallies.gate_weight);
  Read(&routing->probability, on_host_.tallies.probability);
  Read(&routing->squared_log_sum_exp, on_host_.tallies.squared_log_sum_exp);
  Read(&routing->sequence_assignments, on_host_.tallies.sequence_assignments.Rows(0, num_sequences_));
}

void StepArena::ReadSampled(SampledRows* rows) const {
  const SampleOutputs& sampled = on_host_.sampled;
  Read(&rows->tokens, sampled.tokens.Rows(0, num_sampled_));
  Read(&rows->ranks, sampled.ranks.Rows(0, num_sampled_));
  Read(&rows->logprobs, sampled.logprobs.Rows(0, num_sampled_));
  Read(&rows->alternatives, sampled.alternatives.Rows(0, num_sampled_));
}

}  // namespace cadre
