#include "engine/model/memory_plan.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/model/byte_count.h"
#include "engine/model/expert_predictor.h"
#include "engine/model/kv_cache.h"
#include "engine/model/workspace.h"

namespace cadre {
namespace {

// More than any server runs; products of these fit into int64 with any model's dimensions.
constexpr int32_t kLargestMaxNumSeqs = 1 << 16;
constexpr int32_t kLargestMaxNumBatchedTokens = 1 << 20;
constexpr int32_t kLargestKvBlockSize = 1 << 10;
// Share of the available memory that an automatic KV cache leaves to the rest of the process (1/10).
constexpr int64_t kReserveDivisor = 10;
// And of what is left for experts and KV blocks where not all experts fit, so much for KV blocks.
constexpr int64_t kKvDivisor = 4;

// "1.50 GiB (1610612736 bytes)": people read the first, scripts the second.
std::string FormatBytes(int64_t bytes) {
  const bool is_large = bytes >= (int64_t{1} << 30);
  const int64_t unit = is_large ? int64_t{1} << 30 : int64_t{1} << 20;
  const int64_t hundredths = bytes % unit * 100 / unit;
  return absl::StrCat(bytes / unit, hundredths < 10 ? ".0" : ".", hundredths, is_large ? " GiB (" : " MiB (", bytes,
                      " bytes)");
}

absl::Status CheckRange(const char* flag, int32_t value, int32_t largest) {
  if (value >= 1 && value <= largest) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(flag, " is ", value, ", must be 1 to ", largest));
}

// Where experts choose among groups of a prompt, the first prompt in line must be able to go on in every step.
absl::Status CheckPromptGroup(const ModelConfig& config, const RunnerOptions& options) {
  const int64_t group = config.routing.expert_choice.group;
  const int64_t most = int64_t{options.max_num_batched_tokens} - options.max_num_seqs;
  if (group == 0 || group <= most) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(config.routing.origin, ": group is ", group,
                                            ", must be at most --max-num-batched-tokens less --max-num-seqs, ", most));
}

absl::Status CheckOptions(const RunnerOptions& options) {
  CADRE_RETURN_IF_ERROR(CheckRange("--max-num-seqs", options.max_num_seqs, kLargestMaxNumSeqs));
  CADRE_RETURN_IF_ERROR(
      CheckRange("--max-num-batched-tokens", options.max_num_batched_tokens, kLargestMaxNumBatchedTokens));
  CADRE_RETURN_IF_ERROR(CheckRange("--kv-block-size", options.kv_block_size, kLargestKvBlockSize));
  if (options.kv_cache_bytes.has_value() && *options.kv_cache_bytes <= 0) {
    return absl::OutOfRangeError(
        absl::StrCat("--kv-cache-gb asks for ", *options.kv_cache_bytes, " bytes, must be more than 0"));
  }
  const DType dtype = options.kv_dtype.value_or(DType::kBF16);
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
    return absl::OutOfRangeError(
        absl::StrCat("--kv-cache-dtype is ", std::string(DTypeName(dtype)), ", must be float32, bfloat16 or float16"));
  }
  return absl::OkStatus();
}

absl::Status CheckTypes(const CheckpointSummary& checkpoint, const Device& device, const Ops& ops) {
  for (const DType dtype : {checkpoint.expert_dtype, checkpoint.matrix_dtype, checkpoint.head_dtype}) {
    if (ops.can_multiply(dtype)) continue;
    return absl::OutOfRangeError(absl::StrCat("--quantize: ", device.name(), " does not compute with weights of type ",
                                              std::string(DTypeName(dtype)), "; --device cpu does"));
  }
  return absl::OkStatus();
}

// Assignments of tokens to experts are numbered in int32.
absl::Status CheckAssignments(const ModelConfig& config, const RunnerOptions& options) {
  const int64_t assignments = options.max_num_batched_tokens * config.router.top_k;
  if (assignments <= std::numeric_limits<int32_t>::max()) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("--max-num-batched-tokens is ", options.max_num_batched_tokens,
                                            ", times num_experts_per_tok of the model, ", config.router.top_k,
                                            ", it must be at most ", std::numeric_limits<int32_t>::max()));
}

absl::StatusOr<int32_t> ChooseMaxModelLen(const ModelConfig& config, const RunnerOptions& options) {
  const int64_t trained = config.max_position_embeddings;
  const int64_t scaled = config.rope.scaled_positions;
  const int64_t largest = std::max(trained, scaled);
  const int64_t wanted = options.max_model_len == 0 ? trained : options.max_model_len;
  if (wanted < 1 || wanted > largest) {
    return absl::OutOfRangeError(
        absl::StrCat("--max-model-len is ", wanted, ", must be 1 to ",
                     scaled > trained ? "factor * original_max_position_embeddings" : "max_position_embeddings",
                     " of the model, ", largest));
  }
  if (wanted > std::numeric_limits<int32_t>::max()) {
    return absl::OutOfRangeError(absl::StrCat("max_position_embeddings of the model is ", wanted,
                                              ", more than cadre can count (", std::numeric_limits<int32_t>::max(),
                                              "); set --max-model-len"));
  }
  return static_cast<int32_t>(wanted);
}

// The counters, and the choices of a step.
int64_t ProfileBytes(const ModelConfig& config, const RunnerOptions& options) {
  if (options.profile_bytes == 0) return 0;
  const int64_t choices = SaturatingMultiply(config.num_moe_layers() * config.router.top_k,
                                             int64_t{sizeof(int32_t)} * options.max_num_batched_tokens);
  return SaturatingAdd(options.profile_bytes, choices);
}

// The records of requests in flight, and the rows of them that the largest step replays: experts and weights.
int64_t ReplayBytes(const ModelConfig& config, const RunnerOptions& options) {
  if (options.replay_bytes == 0) return 0;
  const int64_t rows = SaturatingMultiply(config.num_moe_layers() * config.router.top_k,
                                          int64_t{sizeof(int32_t) + sizeof(float)} * options.max_num_batched_tokens);
  return SaturatingAdd(options.replay_bytes, rows);
}

// Beside the runner's tensors a step needs memory of the host, which on a CPU is the same: the mirror of the step
// arena, the logits of all sequences, and the sampler's scratch.
int64_t HostBytes(const ModelConfig& config, const RunnerOptions& options, const StepLimits& limits) {
  const int64_t logit_bytes = static_cast<int64_t>(sizeof(float)) * HeadRows(options);
  return SaturatingAdd(SaturatingAdd(ProfileBytes(config, options), ReplayBytes(config, options)),
                       SaturatingAdd(StepArena::SizeBytes(config, limits),
                                     SaturatingMultiply(config.vocab_size, logit_bytes + kSamplerBytesPerLogit)));
}

// Slots are numbered in int32.
int64_t LargestNumBlocks(const RunnerOptions& options) {
  return std::numeric_limits<int32_t>::max() / options.kv_block_size;
}

std::string NeedsBeforeKv(const MemoryPlan& plan) {
  return absl::StrCat("weights need ", FormatBytes(SaturatingAdd(plan.dense_weight_bytes, plan.expert_weight_bytes)),
                      ", workspace ", FormatBytes(plan.workspace_bytes), "; the device has ",
                      FormatBytes(plan.available_bytes));
}

absl::Status NoRoomForAnExpert(const MemoryPlan& plan, const RunnerOptions& options, int64_t kv_bytes,
                               int64_t slot_bytes) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "without experts the model needs ", FormatBytes(SaturatingAdd(plan.dense_weight_bytes, plan.workspace_bytes)),
      ", and a KV cache of ", FormatBytes(kv_bytes),
      options.kv_cache_bytes.has_value() ? " (--kv-cache-gb)" : " for one sequence (--max-model-len)",
      "; the device has ", FormatBytes(plan.available_bytes), ", which leaves no room for a single expert of ",
      FormatBytes(slot_bytes)));
}

// Of the host's memory, for experts that the device does not hold.
struct HostMemory {
  int64_t available = 0;
  int64_t usable = 0;  // as --expert-host-gb says, or all but a reserve
};

HostMemory MeasureHost(const RunnerOptions& options, const Device& device) {
  const auto available = static_cast<int64_t>(
      std::min<size_t>(device.AvailableMappedBytes(), static_cast<size_t>(std::numeric_limits<int64_t>::max())));
  const int64_t wanted = options.expert_host_bytes.value_or(available - available / kReserveDivisor);
  return {.available = available, .usable = std::min(wanted, available)};
}

// Where not all experts fit into a device with memory of its own, all of them lie in the host's. Where they do not fit
// there either, the device holds those for which it has slots, and slots of the host take turns with the others.
absl::Status PlanHostExperts(const CheckpointSummary& checkpoint, const HostMemory& host, const Device& device,
                             MemoryPlan* plan) {
  if (checkpoint.expert_bytes <= host.usable) {
    plan->host_expert_bytes = checkpoint.expert_bytes;
    return absl::OkStatus();
  }
  const int64_t slot_bytes = checkpoint.one_expert_bytes;
  plan->num_resident_experts = plan->num_expert_slots;
  plan->num_expert_slots = std::min(host.usable, checkpoint.expert_bytes - plan->expert_weight_bytes) / slot_bytes;
  plan->host_expert_bytes = plan->num_expert_slots * slot_bytes;
  if (plan->num_expert_slots >= 1) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "not all experts go into ", device.name(), ", so that the host's memory must hold at least one, which takes ",
      FormatBytes(slot_bytes), "; ", FormatBytes(host.usable), " may be used, which --expert-host-gb can change, and ",
      FormatBytes(host.available), " are available"));
}

// All experts where they fit, or are allowed to; else slots for some. `sequence_bytes`: of the KV blocks of one
// sequence.
absl::Status PlanExperts(const ModelConfig& config, const CheckpointSummary& checkpoint, const RunnerOptions& options,
                         const Device& device, int64_t sequence_bytes, MemoryPlan* plan) {
  const int64_t slot_bytes = checkpoint.one_expert_bytes;
  CADRE_CHECK_GT(slot_bytes, int64_t{0});
  // A KV cache of a given size is taken as it is, and what it leaves is the experts'.
  const bool is_kv_given = options.kv_cache_bytes.has_value();
  const int64_t reserve = is_kv_given ? 0 : plan->available_bytes / kReserveDivisor;
  const int64_t kv_bytes = options.kv_cache_bytes.value_or(sequence_bytes);
  int64_t left = plan->available_bytes - reserve -
                 SaturatingAdd(SaturatingAdd(plan->dense_weight_bytes, plan->workspace_bytes), kv_bytes);
  plan->expert_weight_bytes = checkpoint.expert_bytes;
  const bool is_given = options.expert_cache_bytes.has_value();
  if (is_given ? *options.expert_cache_bytes >= checkpoint.expert_bytes : left >= checkpoint.expert_bytes) {
    return absl::OkStatus();
  }
  const bool is_host_memory = device.shares_host_memory();
  const HostMemory host = MeasureHost(options, device);
  if (!is_host_memory && host.available == 0) {
    if (!is_given) return absl::OkStatus();
    return absl::OutOfRangeError(absl::StrCat("--expert-cache-gb asks for ", FormatBytes(*options.expert_cache_bytes),
                                              ", and ", device.name(), " must hold all experts, which take ",
                                              FormatBytes(checkpoint.expert_bytes)));
  }
  const bool reads_files = is_host_memory || checkpoint.expert_bytes > host.usable;
  if (reads_files && options.expert_ahead_threads > 0) {
    const int64_t predictor_bytes = ExpertPredictor::SizeBytes(config);
    plan->workspace_bytes = SaturatingAdd(plan->workspace_bytes, predictor_bytes);
    left -= predictor_bytes;
  }
  if (!is_given && left < slot_bytes) return NoRoomForAnExpert(*plan, options, kv_bytes, slot_bytes);
  // What is not known to be needed for experts is left to KV blocks, which make batches larger.
  const int64_t share = is_kv_given ? left : std::max(left / kKvDivisor * (kKvDivisor - 1), slot_bytes);
  plan->num_expert_slots = options.expert_cache_bytes.value_or(share) / slot_bytes;
  plan->expert_weight_bytes = plan->num_expert_slots * slot_bytes;
  if (plan->num_expert_slots >= 1) {
    return is_host_memory ? absl::OkStatus() : PlanHostExperts(checkpoint, host, device, plan);
  }
  return absl::OutOfRangeError(absl::StrCat("--expert-cache-gb asks for ", FormatBytes(*options.expert_cache_bytes),
                                            ", and one expert takes ", FormatBytes(slot_bytes)));
}

// All the blocks that max_num_seqs sequences could use, or as many as fit.
absl::StatusOr<int64_t> ChooseNumBlocks(const MemoryPlan& plan, const RunnerOptions& options, int64_t left_bytes,
                                        int64_t block_bytes, int64_t blocks_per_sequence) {
  const int64_t useful = SaturatingMultiply(blocks_per_sequence, options.max_num_seqs);
  const int64_t reserve = plan.available_bytes / kReserveDivisor;
  const int64_t fitting = std::max<int64_t>(left_bytes - reserve, 0) / block_bytes;
  const int64_t num_blocks = std::min({useful, fitting, LargestNumBlocks(options)});
  if (num_blocks >= blocks_per_sequence) return num_blocks;
  return absl::ResourceExhaustedError(
      absl::StrCat(NeedsBeforeKv(plan), "; what is left, less a reserve of ", FormatBytes(reserve),
                   ", holds a KV cache of ", num_blocks * options.kv_block_size, " tokens, and one sequence may have ",
                   plan.max_model_len, ": lower --max-model-len or --max-num-batched-tokens, or set --kv-cache-gb"));
}

// What either side may have at least and at most of what both have at the start. The blocks always hold the longest
// sequence.
std::optional<MemorySplitOptions> PlanSplit(const CheckpointSummary& checkpoint, const RunnerOptions& options,
                                            const Device& device, int64_t block_bytes, int64_t blocks_per_sequence,
                                            const MemoryPlan& plan) {
  if (!options.moves_memory || options.kv_cache_bytes.has_value() || options.expert_cache_bytes.has_value() ||
      plan.expert_place() != ExpertPlace::kCheckpoint || !device.shares_host_memory()) {
    return std::nullopt;
  }
  constexpr int64_t kLeastPart = 8;  // of the slots at the start stays, whatever blocks are worth
  constexpr int64_t kSteps = 32;     // from nothing to all
  constexpr int64_t kLargestStepBytes = int64_t{256} << 20;  // which takes some 0.1 s to commit
  MemorySplitOptions split;
  split.slot_bytes = checkpoint.one_expert_bytes;
  split.block_bytes = block_bytes;
  split.budget_bytes = plan.expert_weight_bytes + plan.kv_cache_bytes;
  split.min_slots = std::max<int64_t>(plan.num_expert_slots / kLeastPart, 1);
  split.min_blocks = blocks_per_sequence;
  split.max_slots = std::min(checkpoint.expert_bytes / split.slot_bytes,
                             (split.budget_bytes - split.min_blocks * block_bytes) / split.slot_bytes);
  split.max_blocks = std::min({SaturatingMultiply(blocks_per_sequence, options.max_num_seqs), LargestNumBlocks(options),
                               (split.budget_bytes - split.min_slots * split.slot_bytes) / block_bytes});
  split.step_slots = std::max<int64_t>(std::min(split.budget_bytes / kSteps, kLargestStepBytes) / split.slot_bytes, 1);
  return split;
}

// A size given by hand is taken as it is: requests that never fit into it are refused one by one.
absl::StatusOr<int64_t> CheckNumBlocks(const MemoryPlan& plan, const RunnerOptions& options, int64_t left_bytes,
                                       int64_t block_bytes) {
  const int64_t wanted = *options.kv_cache_bytes;
  const int64_t num_blocks = wanted / block_bytes;
  if (num_blocks < 1) {
    return absl::ResourceExhaustedError(absl::StrCat("--kv-cache-gb asks for ", FormatBytes(wanted),
                                                     ", and one block of ", options.kv_block_size, " tokens takes ",
                                                     FormatBytes(block_bytes)));
  }
  if (wanted > left_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("--kv-cache-gb asks for ", FormatBytes(wanted), ", ",
                                                     FormatBytes(wanted - left_bytes),
                                                     " more than is left: ", NeedsBeforeKv(plan)));
  }
  if (num_blocks > LargestNumBlocks(options)) {
    return absl::OutOfRangeError(absl::StrCat("--kv-cache-gb asks for ", num_blocks, " blocks of ",
                                              options.kv_block_size, " tokens, at most ", LargestNumBlocks(options),
                                              " can be numbered"));
  }
  return num_blocks;
}

// Words of a row: a mask, and edits enough for all but long texts with penalties. All rows share them, so that many
// rows need no more than some.
constexpr int64_t kMostRowsWithExtras = 256;
int64_t SampleExtrasOfRow(int64_t vocab_size) {
  constexpr int64_t kEdits = 1024;
  return (vocab_size + 31) / 32 + kEdits * static_cast<int64_t>(sizeof(SampleEdit) / sizeof(int32_t));
}

}  // namespace

OpsLimits MakeOpsLimits(const ModelConfig& config, const RunnerOptions& options, int32_t max_model_len) {
  const int64_t q_width = config.num_heads * config.head_dim;
  return {.max_tokens = options.max_num_batched_tokens,
          .hidden_size = config.hidden_size,
          .max_linear_inputs = std::max(config.hidden_size, q_width),
          .num_heads = config.num_heads,
          .head_dim = config.head_dim,
          .max_positions = max_model_len,
          .num_experts = config.num_experts,
          .top_k = config.router.top_k,
          .max_ffn_size = std::max({config.expert_ffn_size, config.shared_expert_ffn_size, config.dense_ffn_size})};
}

StepLimits MakeStepLimits(const ModelConfig& config, const RunnerOptions& options, int32_t max_model_len,
                          const Ops& ops) {
  const bool samples = options.sample_on_device && ops.can_sample(config.vocab_size);
  const int64_t sample_rows = samples ? HeadRows(options) : 0;
  return {.max_tokens = options.max_num_batched_tokens,
          .max_sequences = options.max_num_seqs,
          .max_blocks = (int64_t{max_model_len} + options.kv_block_size - 1) / options.kv_block_size,
          .max_sample_rows = sample_rows,
          .max_sample_extras = std::min(sample_rows, kMostRowsWithExtras) * SampleExtrasOfRow(config.vocab_size),
          .max_capacity_slots =
              ops.can_limit_capacity() && config.routing.expert_choice.group == 0 ? options.max_num_seqs : 0};
}

int64_t CapacityCountBytes(const ModelConfig& config, const StepLimits& limits) {
  const int64_t counts = SaturatingMultiply(config.num_moe_layers() * limits.max_capacity_slots, config.num_experts);
  return SaturatingMultiply(counts, static_cast<int64_t>(sizeof(int32_t)));
}

int64_t HeadRows(const RunnerOptions& options) {
  return std::min(options.max_num_seqs, options.max_num_batched_tokens);
}

absl::StatusOr<MemoryPlan> PlanMemory(const ModelConfig& config, const CheckpointSummary& checkpoint,
                                      const RunnerOptions& options, const Device& device, const Ops& ops) {
  CADRE_RETURN_IF_ERROR(CheckOptions(options));
  CADRE_RETURN_IF_ERROR(CheckTypes(checkpoint, device, ops));
  CADRE_RETURN_IF_ERROR(CheckAssignments(config, options));
  CADRE_RETURN_IF_ERROR(CheckPromptGroup(config, options));
  if (options.expert_host_bytes.has_value() && device.shares_host_memory()) {
    return absl::OutOfRangeError(absl::StrCat("--expert-host-gb is for devices with memory of their own, and ",
                                              device.name(), " computes in the host's: set --expert-cache-gb"));
  }
  MemoryPlan plan;
  CADRE_ASSIGN_OR_RETURN(plan.max_model_len, ChooseMaxModelLen(config, options));
  plan.weight_dtype = checkpoint.matrix_dtype;
  plan.expert_dtype = checkpoint.expert_dtype;
  plan.kv_dtype = options.kv_dtype.value_or(checkpoint.dtype);
  plan.kv_block_size = options.kv_block_size;
  plan.dense_weight_bytes = checkpoint.dense_bytes;
  plan.all_expert_bytes = checkpoint.expert_bytes;
  const StepLimits step_limits = MakeStepLimits(config, options, plan.max_model_len, ops);
  plan.workspace_bytes = Workspace::SizeBytes(config, step_limits.max_tokens, HeadRows(options));
  plan.workspace_bytes = SaturatingAdd(plan.workspace_bytes, StepArena::SizeBytes(config, step_limits));
  plan.workspace_bytes = SaturatingAdd(plan.workspace_bytes, CapacityCountBytes(config, step_limits));
  plan.workspace_bytes = SaturatingAdd(plan.workspace_bytes, HostBytes(config, options, step_limits));
  plan.workspace_bytes = SaturatingAdd(
      plan.workspace_bytes, static_cast<int64_t>(ops.ScratchBytes(MakeOpsLimits(config, options, plan.max_model_len))));
  // A device that does not know says the largest size_t.
  plan.available_bytes = static_cast<int64_t>(
      std::min<size_t>(device.AvailableBytes(), static_cast<size_t>(std::numeric_limits<int64_t>::max())));

  const int64_t block_bytes =
      MakeKvCacheShape(config, /*num_blocks=*/1, options.kv_block_size, plan.kv_dtype).BytesPerBlock();
  CADRE_RETURN_IF_ERROR(
      PlanExperts(config, checkpoint, options, device, SaturatingMultiply(block_bytes, step_limits.max_blocks), &plan));

  const int64_t needed =
      SaturatingAdd(SaturatingAdd(plan.dense_weight_bytes, plan.expert_weight_bytes), plan.workspace_bytes);
  const int64_t left_bytes = plan.available_bytes - needed;
  if (left_bytes < 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        NeedsBeforeKv(plan), ": ", FormatBytes(-left_bytes),
        " too much; a lower --max-num-batched-tokens shrinks the "
        "workspace",
        options.expert_cache_bytes.has_value() ? ", a lower --expert-cache-gb keeps fewer experts in memory" : ""));
  }
  int64_t num_blocks = 0;
  if (options.kv_cache_bytes.has_value()) {
    CADRE_ASSIGN_OR_RETURN(num_blocks, CheckNumBlocks(plan, options, left_bytes, block_bytes));
  } else {
    CADRE_ASSIGN_OR_RETURN(num_blocks, ChooseNumBlocks(plan, options, left_bytes, block_bytes, step_limits.max_blocks));
  }
  plan.num_kv_blocks = static_cast<int32_t>(num_blocks);
  plan.kv_cache_bytes = num_blocks * block_bytes;
  plan.split = PlanSplit(checkpoint, options, device, block_bytes, step_limits.max_blocks, plan);
  return plan;
}

}  // namespace cadre
