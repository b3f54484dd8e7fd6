#include "server/model_loader.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/experts/routing_profile.h"
#include "engine/experts/token_experts.h"
#include "engine/model/routing_scheme.h"
#include "engine/model/simulated_runner.h"
#include "engine/model/weights.h"
#include "engine/text/builtin_chat_formats.h"
#include "engine/text/chat_template.h"
#include "engine/text/token_class.h"
#include "server/expert_startup.h"
#include "server/request_limits.h"
#include "server/simulated_tokenizer.h"

namespace cadre {
namespace {

std::string Gib(int64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / static_cast<double>(int64_t{1} << 30));
}

int64_t ToBytes(double gib) { return static_cast<int64_t>(gib * static_cast<double>(int64_t{1} << 30)); }

EngineOptions MakeEngineOptions(const ServerConfig& config) {
  EngineOptions options;
  options.max_num_seqs = config.max_num_seqs;
  options.max_num_batched_tokens = config.max_num_batched_tokens;
  options.max_prefill_chunk = config.max_prefill_chunk;
  options.priority_tokens = config.priority_tokens;
  options.prefix_cache = config.prefix_cache;
  options.prefix_cache_seed = absl::Uniform<uint64_t>(absl::BitGen());
  options.max_queue_requests = config.max_queue_requests;
  options.max_queue_tokens = config.max_queue_prompt_tokens;
  options.max_queue_total_tokens = config.max_queue_total_tokens;
  options.max_tenant_share = config.max_tenant_queue_share;
  options.deadline_admission = config.deadline_admission;
  options.overlap_steps = config.overlap_steps;
  options.max_queue_wait = config.max_queue_wait;
  options.bias_balancing = config.bias_balancing;
  options.stats_window_tokens = config.stats_window_tokens;
  options.allow_capacity_override = config.allow_capacity_override;
  options.tolerate_missing_experts = config.expert_cache.tolerates_missing;
  options.expert_aware_scheduling = config.expert_cache.is_scheduling_aware;
  return options;
}

RunnerOptions MakeRunnerOptions(const ServerConfig& config) {
  RunnerOptions options;
  options.max_model_len = config.max_model_len;
  options.max_num_seqs = config.max_num_seqs;
  options.max_num_batched_tokens = config.max_num_batched_tokens;
  options.kv_block_size = config.kv_block_size;
  options.kv_dtype = config.weights.kv_cache_dtype;
  if (config.kv_cache_gb > 0) options.kv_cache_bytes = ToBytes(config.kv_cache_gb);
  if (config.expert_cache.gib.has_value()) options.expert_cache_bytes = ToBytes(*config.expert_cache.gib);
  if (config.expert_cache.host_gib.has_value()) options.expert_host_bytes = ToBytes(*config.expert_cache.host_gib);
  options.moves_memory = config.expert_cache.moves_memory;
  options.expert_policy = config.expert_cache.policy;
  options.expert_read_threads = config.expert_cache.read_threads;
  options.expert_ahead_threads = config.expert_cache.prefetches ? config.expert_cache.read_threads : 0;
  options.record_steps = !config.enforce_eager;
  options.order_ahead = config.overlap_steps;
  return options;
}

// One step in so many costs a CPU nothing that can be measured.
constexpr int32_t kDefaultSampleSteps = 16;

// A step whose choices are wanted is ordered op by op: where steps are recorded, nobody pays for that unasked.
int32_t SampleSteps(const ServerConfig& config, const Device& device) {
  if (config.routing_sample_steps >= 0) return config.routing_sample_steps;
  const bool is_asked = config.expert_cache.is_scheduling_aware;
  return device.can_record() && !config.enforce_eager && !is_asked ? 0 : kDefaultSampleSteps;
}

int64_t ProfileBytes(const ModelConfig& model, const ServerConfig& config, const Device& device) {
  const ProfileShape shape = {.num_layers = static_cast<int32_t>(model.num_moe_layers()),
                              .num_experts = static_cast<int32_t>(model.num_experts),
                              .num_classes = kNumTokenClasses};
  const int64_t bytes = RoutingProfile::Bytes(shape, {.sample_steps = SampleSteps(config, device)});
  if (!config.expert_cache.is_scheduling_aware) return bytes;
  return bytes + TokenExperts::Bytes({.vocab_size = static_cast<int32_t>(model.vocab_size),
                                      .num_layers = shape.num_layers,
                                      .num_experts = shape.num_experts,
                                      .top_k = static_cast<int32_t>(model.router.top_k)});
}

void LogPlan(const MemoryPlan& plan) {
  spdlog::info(
      "memory plan: weights {} + experts {} + KV cache {} ({} blocks of {} tokens) + workspace {} = {} of {}",
      Gib(plan.dense_weight_bytes), Gib(plan.expert_weight_bytes), Gib(plan.kv_cache_bytes), plan.num_kv_blocks,
      plan.kv_block_size, Gib(plan.workspace_bytes), Gib(plan.total_bytes()),
      plan.available_bytes == std::numeric_limits<int64_t>::max() ? "an unknown amount" : Gib(plan.available_bytes));
}

// Before anything is loaded that takes long.
absl::Status CheckCapacity(const CapacityPolicy& policy, bool can_limit, std::string_view device,
                           std::string_view routing_scheme) {
  if (can_limit || !policy.is_on()) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("--capacity-factor: the device ", ToAbsl(device),
                                            " with the routing scheme ", ToAbsl(routing_scheme),
                                            " does not limit the capacity of experts"));
}

// Where the routers are to be nudged, they need something to be nudged.
absl::Status PrepareBias(const BiasBalancerOptions& options, ModelConfig* model) {
  if (!options.is_on()) return absl::OkStatus();
  if (model->routing.scheme == RoutingScheme::kHash || model->routing.scheme == RoutingScheme::kExpertChoice) {
    return absl::OutOfRangeError(absl::StrCat("--router-bias-rate: the routing scheme ",
                                              ToAbsl(RoutingSchemeName(model->routing.scheme)),
                                              " does not choose experts by a bias"));
  }
  std::vector<float>& bias = model->routing.selection_bias;
  if (bias.empty()) bias.resize(static_cast<size_t>(model->num_moe_layers() * model->num_experts));
  spdlog::warn("router bias: nudged by {} every {} tokens, up to {}: answers depend on what was served before",
               options.rate, options.window_tokens, options.limit);
  return absl::OkStatus();
}

// Cached prompts are found again up to where a group and a block end at once.
void WarnOfRareHits(const char* what, int32_t group, int32_t block_size, PrefixCacheScope prefix_cache) {
  const int64_t hit = std::lcm(int64_t{group}, int64_t{block_size});
  if (prefix_cache == PrefixCacheScope::kOff || hit == std::max(group, block_size)) return;
  spdlog::warn(
      "{} is {}, which --kv-block-size, {}, does not divide: cached prompts are found in multiples of {} tokens", what,
      group, block_size, hit);
}

void LogRouting(const ModelConfig& model, const ServerConfig& config) {
  const std::string& origin = model.routing.origin;
  spdlog::info("routing: {}{}", DescribeRouter(model), origin.empty() ? "" : absl::StrCat(" (", origin, ")"));
  if (const int64_t group = model.routing.expert_choice.group; group > 0) {
    WarnOfRareHits("routing: group", static_cast<int32_t>(group), config.kv_block_size, config.prefix_cache);
  }
}

ModelCard MakeCard(const ServerConfig& config, const ModelConfig& model, const MemoryPlan& plan, const Device& device) {
  ModelCard card;
  card.name = config.served_model_name;
  card.folder = config.model;
  card.family = std::string(ModelFamilyName(model.family));
  card.device = device.name();
  card.kernels = device.kernels();
  card.weight_dtype = std::string(DTypeName(plan.weight_dtype));
  card.expert_dtype = std::string(DTypeName(plan.expert_dtype));
  card.kv_dtype = std::string(DTypeName(plan.kv_dtype));
  card.num_layers = static_cast<int32_t>(model.num_layers);
  for (size_t i = 0; i < model.is_moe_layer.size(); ++i) {
    if (model.is_moe_layer[i]) card.moe_layers.push_back(static_cast<int32_t>(i));
  }
  card.limits.num_experts = static_cast<int32_t>(model.num_experts);
  card.limits.top_k = static_cast<int32_t>(model.router.top_k);
  card.hidden_size = static_cast<int32_t>(model.hidden_size);
  card.has_shared_expert = model.shared_expert_ffn_size > 0;
  card.routing_scheme = std::string(RoutingSchemeName(model.routing.scheme));
  card.routing_description = DescribeRouter(model);
  card.routing_origin = model.routing.origin;
  card.memory = plan;
  return card;
}

// Without a usable template of its own a model still serves text; one that was asked for by name must be there.
absl::StatusOr<ChatSupport> LoadChatSupport(const ServerConfig& config, const std::filesystem::path& folder,
                                            const Tokenizer& tokenizer) {
  ChatSupport chat;
  absl::StatusOr<ChatTemplate> loaded = ChatTemplate::Load(folder, tokenizer, config.chat_template);
  if (loaded.ok()) {
    spdlog::info("chat template: {}", loaded->source());
    chat.chat_template = std::make_shared<const ChatTemplate>(*std::move(loaded));
    return chat;
  }
  const std::string error(loaded.status().message());
  if (config.chat_template != "auto") {
    const std::string message = absl::StrCat("--chat-template: ", error);
    return absl::IsNotFound(loaded.status()) ? absl::NotFoundError(message) : absl::InvalidArgumentError(message);
  }
  chat.error = absl::IsNotFound(loaded.status()) ? error : absl::StrCat("the chat template cannot be used: ", error);
  if (absl::IsNotFound(loaded.status())) {
    spdlog::info("conversations will be refused: {}", error);
  } else {
    spdlog::warn("conversations will be refused: {}", chat.error);
  }
  return chat;
}

absl::StatusOr<LoadedModel> LoadCheckpoint(const ServerConfig& config, std::unique_ptr<Device> device,
                                           const std::function<void(double)>& on_progress) {
  const std::filesystem::path folder = config.model;
  CADRE_ASSIGN_OR_RETURN(ModelConfig model_config, LoadModelConfig(folder, config.routing_override));
  CADRE_RETURN_IF_ERROR(
      CheckCapacity(config.capacity,
                    device->ops().can_limit_capacity() && model_config.routing.scheme != RoutingScheme::kExpertChoice,
                    device->name(), RoutingSchemeName(model_config.routing.scheme)));
  CADRE_ASSIGN_OR_RETURN(GenerationDefaults defaults, LoadGenerationDefaults(folder));
  CADRE_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(folder));
  if (tokenizer->vocab_size() > model_config.vocab_size) {
    spdlog::warn("the tokenizer has {} tokens, the model {}: prompts with tokens beyond are refused",
                 tokenizer->vocab_size(), model_config.vocab_size);
  }
  CADRE_ASSIGN_OR_RETURN(ChatSupport chat, LoadChatSupport(config, folder, *tokenizer));

  WeightsOptions weights_options;
  weights_options.dtype = config.weights.dtype;
  weights_options.quantized = config.weights.quantized;
  weights_options.quantized_parts = config.weights.quantized_parts;
  weights_options.reads_experts_directly = config.expert_cache.reads_directly;
  weights_options.on_progress = [&on_progress](int64_t done, int64_t total) {
    on_progress(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0);
  };
  CADRE_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(folder, model_config, weights_options));
  std::vector<float>& selection_bias = model_config.routing.selection_bias;
  if (selection_bias.empty()) selection_bias = checkpoint->selection_bias();
  CADRE_RETURN_IF_ERROR(PrepareBias(config.bias_balancing, &model_config));
  RunnerOptions runner_options = MakeRunnerOptions(config);
  runner_options.profile_bytes = ProfileBytes(model_config, config, *device);
  // Before anything is loaded. A device that does not know says the largest size_t.
  runner_options.replay_bytes = MaxReplayBytes(static_cast<int64_t>(
      std::min<size_t>(device->AvailableBytes(), static_cast<size_t>(std::numeric_limits<int64_t>::max()))));
  CADRE_ASSIGN_OR_RETURN(const MemoryPlan plan,
                         PlanMemory(model_config, checkpoint->summary(), runner_options, *device, device->ops()));
  LogPlan(plan);
  LogExpertCache(plan, checkpoint->summary(), config.expert_cache);
  LoadedModel loaded;
  loaded.card = MakeCard(config, model_config, plan, *device);
  CADRE_ASSIGN_OR_RETURN(loaded.card.config_facts, ReadConfigFacts(folder));
  CADRE_RETURN_IF_ERROR(UseExpertProfile(config.expert_cache, loaded.card, &runner_options));
  LogRouting(model_config, config);
  if (const int64_t group = model_config.routing.expert_choice.group;
      config.max_prefill_chunk > 0 && group > config.max_prefill_chunk) {
    return absl::OutOfRangeError(absl::StrCat(model_config.routing.origin, ": group is ", group,
                                              ", must be at most --max-prefill-chunk, ", config.max_prefill_chunk));
  }
  CADRE_ASSIGN_OR_RETURN(Weights weights, checkpoint->Load(*device, plan.expert_place()));
  if (weights.expert_source != nullptr) LogExpertSpeed(model_config, plan, config.expert_cache, *weights.expert_source);
  if (plan.num_resident_experts > 0) {
    spdlog::info("reading {} experts into the device's memory", plan.num_resident_experts);
  }
  CADRE_ASSIGN_OR_RETURN(loaded.runner,
                         CreateTransformerRunner(model_config, std::move(weights), plan, runner_options, device.get()));
  LogLinkSpeed(model_config, plan, *loaded.runner);
  LogShadows(*loaded.runner);
  CADRE_RETURN_IF_ERROR(device->CommitMemory());
  loaded.card.limits = loaded.runner->limits();
  loaded.card.engine = MakeEngineOptions(config);
  loaded.card.engine.routing_sample_steps = SampleSteps(config, *device);
  loaded.card.engine.max_replay_bytes = runner_options.replay_bytes;
  loaded.card.engine.eos_token_ids = defaults.eos_token_ids;
  loaded.card.defaults = std::move(defaults);
  loaded.device = std::move(device);
  loaded.tokenizer = std::move(tokenizer);
  loaded.chat = std::move(chat);
  return loaded;
}

// A simulated model has no vocabulary to recognize a format by: it takes chatml.
absl::StatusOr<ChatSupport> MakeSimulatedChat(const ServerConfig& config) {
  const BuiltinChatFormat* builtin =
      FindBuiltinChatFormat(config.chat_template == "auto" ? "chatml" : config.chat_template);
  TemplateSource source;
  if (builtin != nullptr) {
    source = {std::string(builtin->source), absl::StrCat("built-in ", ToAbsl(builtin->name))};
  } else {
    CADRE_ASSIGN_OR_RETURN(source, ReadTemplateFile(config.chat_template, config.chat_template));
  }
  CADRE_ASSIGN_OR_RETURN(ChatTemplate chat_template, ChatTemplate::Parse(source, {}));
  ChatSupport chat;
  chat.chat_template = std::make_shared<const ChatTemplate>(std::move(chat_template));
  return chat;
}

absl::StatusOr<LoadedModel> MakeSimulated(const ServerConfig& config) {
  CADRE_ASSIGN_OR_RETURN(SimulatedOptions options, ParseSimulatedSpec(config.model));
  if (!config.routing_override.empty()) {
    return absl::InvalidArgumentError("--routing-override: a simulated model has no router");
  }
  if (config.bias_balancing.is_on()) {
    return absl::InvalidArgumentError("--router-bias-rate: a simulated model has no router");
  }
  if (config.weights.quantized.has_value()) {
    return absl::InvalidArgumentError("--quantize: a simulated model has no weights");
  }
  if (!config.expert_cache.cache_only_flags.empty() || config.expert_cache.gib.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.expert_cache.gib.has_value() ? "--expert-cache-gb" : config.expert_cache.cache_only_flags,
                     ": a simulated model has no experts that could be read"));
  }
  if (config.max_model_len > 0) options.limits.max_model_len = config.max_model_len;
  LoadedModel loaded;
  CADRE_ASSIGN_OR_RETURN(loaded.tokenizer, MakeSimulatedTokenizer(options.limits.vocab_size));
  CADRE_ASSIGN_OR_RETURN(loaded.chat, MakeSimulatedChat(config));
  ModelCard& card = loaded.card;
  card.name = config.served_model_name;
  card.family = "simulated";
  card.routing_scheme = "simulated";
  card.routing_description = "simulated: no router";
  card.device = "sim";
  card.kernels = "none";
  card.weight_dtype = "none";
  card.expert_dtype = "none";
  card.kv_dtype = "none";
  card.limits = options.limits;
  card.num_layers = options.limits.num_moe_layers;
  card.moe_layers.resize(static_cast<size_t>(card.num_layers));
  std::iota(card.moe_layers.begin(), card.moe_layers.end(), 0);
  card.engine = MakeEngineOptions(config);
  card.engine.routing_sample_steps =
      config.routing_sample_steps < 0 ? kDefaultSampleSteps : config.routing_sample_steps;
  loaded.runner = std::make_unique<SimulatedRunner>(std::move(options));
  return loaded;
}

// Takes the policy over where the model can follow it.
absl::Status SetCapacity(const CapacityPolicy& policy, PrefixCacheScope prefix_cache, ModelCard* card) {
  card->capacity = policy;
  if (!policy.is_on()) return absl::OkStatus();
  CADRE_RETURN_IF_ERROR(CheckCapacity(policy, card->limits.max_capacity_slots > 0, card->device, card->routing_scheme));
  spdlog::info("capacity of experts: {}", DescribeCapacityPolicy(policy));
  if (policy.scope == CapacityScope::kBatch) {
    spdlog::warn("capacity scope batch: what a request loses depends on the requests beside it");
  } else {
    WarnOfRareHits("--capacity-group", policy.group_tokens, card->limits.kv_block_size, prefix_cache);
  }
  return absl::OkStatus();
}

}  // namespace

bool IsSimulated(const ServerConfig& config) { return IsSimulatedSpec(config.model); }

absl::StatusOr<LoadedModel> LoadModel(const ServerConfig& config, std::unique_ptr<Device> device,
                                      const std::function<void(double)>& on_progress) {
  absl::StatusOr<LoadedModel> loaded =
      IsSimulated(config) ? MakeSimulated(config) : LoadCheckpoint(config, std::move(device), on_progress);
  if (loaded.ok()) CADRE_RETURN_IF_ERROR(SetCapacity(config.capacity, config.prefix_cache, &loaded->card));
  return loaded;
}

int64_t MaxReplayBytes(int64_t available_bytes) {
  constexpr int64_t kPart = 64;
  constexpr int64_t kMost = int64_t{256} << 20;
  constexpr int64_t kOneRecord = kMaxRoutedChoices * int64_t{sizeof(int32_t) + sizeof(float)};
  return std::clamp(available_bytes / kPart, kOneRecord, kMost);
}

ServedModel DescribeForMetrics(const ModelCard& card) {
  ServedModel model;
  model.name = card.name;
  model.family = card.family;
  model.dtype = card.weight_dtype;
  model.expert_dtype = card.expert_dtype;
  model.device = card.device;
  model.kernels = card.kernels;
  model.kv_dtype = card.kv_dtype;
  model.moe_layers = card.moe_layers;
  model.num_experts = card.limits.num_experts;
  model.top_k = card.limits.top_k;
  model.kv_block_size = card.limits.kv_block_size;
  model.num_kv_blocks = card.memory.split ? card.memory.num_kv_blocks : card.limits.num_kv_blocks;
  model.max_queue_requests = card.engine.max_queue_requests;
  model.max_running_requests = card.engine.max_num_seqs;
  model.dense_weight_bytes = card.memory.dense_weight_bytes;
  model.expert_weight_bytes = card.memory.expert_weight_bytes;
  model.kv_cache_bytes = card.memory.kv_cache_bytes;
  model.workspace_bytes = card.memory.workspace_bytes;
  return model;
}

}  // namespace cadre
