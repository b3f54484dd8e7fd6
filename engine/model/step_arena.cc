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

// Zeros for sequences without one.
void FillSeeds(const View& to, const ForwardBatch& batch) {
  if (to.num_elements() == 0) return;
  CADRE_CHECK_GE(to.dim(0), static_cast<int64_t>(batch.seeds.size()));
  auto* const words = to.data<int32_t>();
  std::fill(words, words + to.num_elements(), 0);
  for (size_t s = 0; s < batch.seeds.size(); ++s) {
    words[2 * s] = static_cast<int32_t>(static_cast<uint32_t>(batch.seeds[s]));
    words[2 * s + 1] = static_cast<int32_t>(static_cast<uint32_t>(batch.seeds[s] >> 32));
  }
}

// Sequences of padding have no rows.
void FillCapacity(const View& to, const ForwardBatch& batch) {
  if (to.num_elements() == 0) return;
  CADRE_CHECK_GE(to.dim(0), static_cast<int64_t>(batch.capacity.size()));
  auto* const rows = reinterpret_cast<SequenceCapacity*>(to.raw());
  std::fill(std::ranges::copy(batch.capacity, rows).out, rows + to.dim(0), SequenceCapacity());
}

// As they are in the batch: such steps are not padded.
template <typename T>
void FillExactly(const View& to, const std::vector<T>& from) {
  CADRE_CHECK_EQ(to.num_elements(), static_cast<int64_t>(from.size()));
  if (!from.empty()) std::memcpy(to.raw(), from.data(), from.size() * sizeof(T));
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

RecordedChoices StepInputs::RecordedLayer(int64_t moe_layer) const {
  if (recorded_modes.num_elements() == 0) return {};
  const Shape of_layer = {recorded_expert_ids.dim(1), recorded_expert_ids.dim(2)};
  return {.modes = recorded_modes,
          .expert_ids = recorded_expert_ids.Rows(moe_layer, 1).Reshape(of_layer),
          .weights = recorded_weights.Rows(moe_layer, 1).Reshape(of_layer)};
}

RoutingTally StepTallies::Layer(int64_t moe_layer) const {
  const Shape per_expert = {assignments.dim(1)};
  return {.assignments = assignments.Rows(moe_layer, 1).Reshape(per_expert),
          .gate_weight = gate_weight.Rows(moe_layer, 1).Reshape(per_expert),
          .probability = probability.Rows(moe_layer, 1).Reshape(per_expert),
          .squared_log_sum_exp = squared_log_sum_exp.Rows(moe_layer, 1),
          .sequence_assignments = sequence_assignments,
          .row_assignments = row_assignments.Rows(moe_layer, 1),
          .sequence_gate_weight = sequence_gate_weight};
}

CapacityTally StepTallies::LimitedLayer(int64_t moe_layer) const {
  const int64_t num_experts = states.dim(2);
  return {.states = states.Rows(moe_layer, 1).Reshape({kNumAssignmentStates, num_experts}),
          .lost_gate_weight = lost_gate_weight.Rows(moe_layer, 1).Reshape({num_experts}),
          .sequence_states = sequence_states,
          .sequence_lost_gate_weight = sequence_lost_gate_weight};
}

StepShape ShapeOf(const ForwardBatch& batch) {
  return {.num_tokens = batch.num_tokens(),
          .num_sequences = batch.num_sequences,
          .max_blocks = batch.max_blocks,
          .num_logit_rows = static_cast<int64_t>(batch.logit_rows.size()),
          .samples = !batch.sample_rows.empty(),
          .is_limited = !batch.capacity.empty(),
          .is_replayed = !batch.recorded.modes.empty()};
}

StepArena::Sizes StepArena::SizesOf(const ModelConfig& config, const StepLimits& limits) {
  return {.num_moe_layers = config.num_moe_layers(),
          .num_experts = config.num_experts,
          .top_k = config.router.top_k,
          .num_extras = limits.max_sample_extras,
          .max_sample_rows = limits.max_sample_rows};
}

StepArena::Image StepArena::LayOut(std::byte* base, const StepShape& shape, const Sizes& sizes) {
  const auto [num_moe_layers, num_experts, top_k, num_extras, max_sample_rows] = sizes;
  ArenaLayout layout(base);
  Image image;
  const int64_t num_sampled = shape.samples ? shape.num_logit_rows : 0;
  const View tokens = layout.Take(DType::kI32, {max_sample_rows});
  if (num_sampled > 0 && !tokens.empty()) image.sampled.tokens = tokens.Rows(0, num_sampled);
  image.inputs_begin = layout.offset();
  image.inputs.token_ids = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.positions = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.row_sequence = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.kv_slots = layout.Take(DType::kI32, {shape.num_tokens});
  image.inputs.block_tables = layout.Take(DType::kI32, {shape.num_sequences, shape.max_blocks});
  image.inputs.logit_rows = layout.Take(DType::kI32, {shape.num_logit_rows});
  image.inputs.prompt_lengths = layout.Take(DType::kI32, {shape.num_sequences});
  image.inputs.seeds = layout.Take(DType::kI32, {shape.num_sequences, 2});
  image.inputs.sample_rows = layout.Take(DType::kI32, {num_sampled, kSampleRowWords});
  const int64_t num_limited = shape.is_limited ? shape.num_sequences : 0;
  image.inputs.capacity = layout.Take(DType::kI32, {num_limited, kSequenceCapacityWords});
  const int64_t num_recorded = shape.is_replayed ? shape.num_tokens : 0;
  image.inputs.recorded_modes = layout.Take(DType::kI32, {num_recorded});
  image.inputs.recorded_expert_ids = layout.Take(DType::kI32, {num_moe_layers, num_recorded, top_k});
  image.inputs.recorded_weights = layout.Take(DType::kF32, {num_moe_layers, num_recorded, top_k});
  image.tallies_begin = layout.offset();
  const Shape layer_experts = {num_moe_layers, num_experts};
  image.tallies.assignments = layout.Take(DType::kI64, layer_experts);
  image.tallies.gate_weight = layout.Take(DType::kF64, layer_experts);
  image.tallies.probability = layout.Take(DType::kF64, layer_experts);
  image.tallies.squared_log_sum_exp = layout.Take(DType::kF64, {num_moe_layers});
  image.tallies.sequence_assignments = layout.Take(DType::kI64, {shape.num_sequences});
  image.tallies.row_assignments = layout.Take(DType::kI64, {num_moe_layers});
  image.tallies.sequence_gate_weight = layout.Take(DType::kF64, {shape.num_sequences});
  const int64_t num_limited_layers = shape.is_limited ? num_moe_layers : 0;
  image.tallies.states = layout.Take(DType::kI64, {num_limited_layers, kNumAssignmentStates, num_experts});
  image.tallies.lost_gate_weight = layout.Take(DType::kF64, {num_limited_layers, num_experts});
  image.tallies.sequence_states = layout.Take(DType::kI64, {num_limited, kNumAssignmentStates});
  image.tallies.sequence_lost_gate_weight = layout.Take(DType::kF64, {num_limited});
  image.tallies_end = layout.offset();
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
                     .num_logit_rows = limits.max_tokens,
                     .samples = false,
                     .is_limited = limits.max_capacity_slots > 0,
                     .is_replayed = true};
  const auto bytes = [&] { return LayOut(nullptr, shape, SizesOf(config, limits)).end; };
  const int64_t without_sampling = bytes();
  // Steps that sample want fewer rows of logits.
  shape.num_logit_rows = limits.max_sample_rows;
  shape.samples = limits.max_sample_rows > 0;
  return std::max(without_sampling, bytes());
}

absl::StatusOr<StepArena> StepArena::Create(const ModelConfig& config, const StepLimits& limits, Device& device) {
  const auto bytes = static_cast<size_t>(SizeBytes(config, limits));
  CADRE_ASSIGN_OR_RETURN(DeviceBuffer memory, device.Allocate(bytes));
  StepArena arena(SizesOf(config, limits), FewestExperts(config), std::move(memory));
  arena.mirrors_.resize(device.can_mark() ? 2 : 1);
  for (Mirror& mirror : arena.mirrors_) {
    CADRE_ASSIGN_OR_RETURN(mirror.memory, device.AllocateStaging(bytes));
  }
  return arena;
}

View StepArena::last_tokens() const { return device_memory_.view(DType::kI32, {sizes_.max_sample_rows}); }

void StepArena::Upload(const ForwardBatch& batch, const StepShape& shape, Device& device) {
  CADRE_CHECK_LT(num_steps(), max_steps());
  Mirror& mirror = mirrors_[MirrorOf(num_uploaded_++)];
  mirror.num_tokens = batch.num_tokens();
  mirror.num_sequences = batch.num_sequences;
  mirror.num_sampled = static_cast<int64_t>(batch.sample_rows.size());
  on_device_ = LayOut(device_memory_.data(), shape, sizes_);
  mirror.image = LayOut(mirror.memory.data(), shape, sizes_);
  CADRE_CHECK_LE(on_device_.end, static_cast<int64_t>(device_memory_.size_bytes()));

  const Image& image = mirror.image;
  Fill(image.inputs.token_ids, batch.token_ids, kPadding);
  Fill(image.inputs.positions, batch.positions, 0);
  Fill(image.inputs.row_sequence, batch.row_sequence, kPadding);
  Fill(image.inputs.kv_slots, batch.kv_slots, kPadding);
  FillTables(image.inputs.block_tables, batch);
  Fill(image.inputs.logit_rows, batch.logit_rows, kPadding);
  Fill(image.inputs.prompt_lengths, batch.prompt_lengths, 0);
  FillSeeds(image.inputs.seeds, batch);
  FillCapacity(image.inputs.capacity, batch);
  FillExactly(image.inputs.recorded_modes, batch.recorded.modes);
  FillExactly(image.inputs.recorded_expert_ids, batch.recorded.expert_ids);
  FillExactly(image.inputs.recorded_weights, batch.recorded.weights);
  std::memset(mirror.memory.data() + image.tallies_begin, 0,
              static_cast<size_t>(image.tallies_end - image.tallies_begin));
  const int64_t end = shape.samples ? FillSampling(batch, mirror) : image.tallies_end;
  device.CopyToDevice(ByteRange(device_memory_, image.inputs_begin, end), mirror.memory.data() + image.inputs_begin);
}

int64_t StepArena::FillSampling(const ForwardBatch& batch, const Mirror& mirror) {
  const StepInputs& inputs = mirror.image.inputs;
  CADRE_CHECK_GE(inputs.sample_rows.dim(0), mirror.num_sampled);
  CADRE_CHECK_GE(inputs.sample_extras.dim(0), static_cast<int64_t>(batch.sample_extras.size()));
  auto* const rows = reinterpret_cast<SampleRow*>(inputs.sample_rows.raw());
  std::fill(std::copy(batch.sample_rows.begin(), batch.sample_rows.end(), rows), rows + inputs.sample_rows.dim(0),
            SampleRow());
  std::ranges::copy(batch.sample_extras, inputs.sample_extras.data<int32_t>());
  return mirror.image.sampled_end + static_cast<int64_t>(batch.sample_extras.size() * sizeof(int32_t));
}

void StepArena::Download(Device& device) {
  const Mirror& mirror = mirrors_[MirrorOf(num_uploaded_ - 1)];
  device.CopyToHost(mirror.memory.data() + mirror.image.tallies_begin,
                    ByteRange(device_memory_, on_device_.tallies_begin, on_device_.sampled_end));
  // The step behind overwrites them on the device, and it may be ordered before this one is read.
  if (mirror.num_sampled > 0) device.CopyToHost(mirror.image.sampled.tokens.raw(), on_device_.sampled.tokens);
}

const StepArena::Mirror& StepArena::oldest() const {
  CADRE_CHECK_GT(num_steps(), 0);
  return mirrors_[MirrorOf(num_released_)];
}

void StepArena::Release() {
  CADRE_CHECK_GT(num_steps(), 0);
  ++num_released_;
}

void StepArena::ReadRouting(StepRouting* routing) const {
  const StepTallies& tallies = oldest().image.tallies;
  const int64_t num_sequences = oldest().num_sequences;
  routing->num_layers = static_cast<int32_t>(sizes_.num_moe_layers);
  routing->num_experts = static_cast<int32_t>(sizes_.num_experts);
  routing->top_k = static_cast<int32_t>(sizes_.top_k);
  routing->min_k = min_k_;
  routing->num_tokens = oldest().num_tokens;
  Read(&routing->row_assignments, tallies.row_assignments);
  Read(&routing->assignments, tallies.assignments);
  Read(&routing->gate_weight, tallies.gate_weight);
  Read(&routing->probability, tallies.probability);
  Read(&routing->squared_log_sum_exp, tallies.squared_log_sum_exp);
  Read(&routing->sequence_assignments, tallies.sequence_assignments.Rows(0, num_sequences));
  Read(&routing->sequence_gate_weight, tallies.sequence_gate_weight.Rows(0, num_sequences));
  const int64_t num_limited = tallies.sequence_states.dim(0) == 0 ? 0 : num_sequences;
  Read(&routing->states, tallies.states);
  Read(&routing->lost_gate_weight, tallies.lost_gate_weight);
  Read(&routing->sequence_states, tallies.sequence_states.Rows(0, num_limited));
  Read(&routing->sequence_lost_gate_weight, tallies.sequence_lost_gate_weight.Rows(0, num_limited));
}

void StepArena::ReadSampled(SampledRows* rows) const {
  const int64_t num_sampled = oldest().num_sampled;
  const SampleOutputs& sampled = oldest().image.sampled;
  if (num_sampled == 0) {
    *rows = {};
    return;
  }
  Read(&rows->tokens, sampled.tokens.Rows(0, num_sampled));
  Read(&rows->ranks, sampled.ranks.Rows(0, num_sampled));
  Read(&rows->logprobs, sampled.logprobs.Rows(0, num_sampled));
  Read(&rows->alternatives, sampled.alternatives.Rows(0, num_sampled));
}

}  // namespace cadre
