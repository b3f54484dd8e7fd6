#include "server/model_loader.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <numeric>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/model/simulated_runner.h"
#include "engine/model/weights.h"
#include "engine/text/builtin_chat_formats.h"
#include "engine/text/chat_template.h"
#include "server/simulated_tokenizer.h"

namespace cadre {
namespace {

std::string Gib(int64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / static_cast<double>(int64_t{1} << 30));
}

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
  options.max_queue_wait = config.max_queue_wait;
  options.stats_window_tokens = config.stats_window_tokens;
  return options;
}

RunnerOptions MakeRunnerOptions(const ServerConfig& config) {
  RunnerOptions options;
  options.max_model_len = config.max_model_len;
  options.max_num_seqs = config.max_num_seqs;
  options.max_num_batched_tokens = config.max_num_batched_tokens;
  options.kv_block_size = config.kv_block_size;
  options.kv_dtype = config.kv_cache_dtype;
  if (config.kv_cache_gb > 0) {
    options.kv_cache_bytes = static_cast<int64_t>(config.kv_cache_gb * static_cast<double>(int64_t{1} << 30));
  }
  options.record_steps = !config.enforce_eager;
  return options;
}

void LogPlan(const MemoryPlan& plan) {
  spdlog::info("memory plan: weights {} + experts {} + KV cache {} ({} blocks of {} tokens) + workspace {} = {} of {}",
               Gib(plan.dense_weight_bytes), Gib(plan.expert_weight_bytes), Gib(plan.kv_cache_bytes),
               plan.num_kv_blocks, plan.kv_block_size, Gib(plan.workspace_bytes), Gib(plan.total_bytes()),
               Gib(plan.available_bytes));
}

ModelCard MakeCard(const ServerConfig& config, const ModelConfig& model, const MemoryPlan& plan, const Device& device) {
  ModelCard card;
  card.name = config.served_model_name;
  card.family = std::string(ModelFamilyName(model.family));
  card.device = device.name();
  card.kernels = device.kernels();
  card.weight_dtype = std::string(DTypeName(plan.weight_dtype));
  card.kv_dtype = std::string(DTypeName(plan.kv_dtype));
  card.num_layers = static_cast<int32_t>(model.num_layers);
  for (size_t i = 0; i < model.is_moe_layer.size(); ++i) {
    if (model.is_moe_layer[i]) card.moe_layers.push_back(static_cast<int32_t>(i));
  }
  card.hidden_size = static_cast<int32_t>(model.hidden_size);
  card.has_shared_expert = model.shared_expert_ffn_size > 0;
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
  CADRE_ASSIGN_OR_RETURN(const ModelConfig model_config, LoadModelConfig(folder));
  CADRE_ASSIGN_OR_RETURN(GenerationDefaults defaults, LoadGenerationDefaults(folder));
  CADRE_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(folder));
  if (tokenizer->vocab_size() > model_config.vocab_size) {
    spdlog::warn("the tokenizer has {} tokens, the model {}: prompts with tokens beyond are refused",
                 tokenizer->vocab_size(), model_config.vocab_size);
  }
  CADRE_ASSIGN_OR_RETURN(ChatSupport chat, LoadChatSupport(config, folder, *tokenizer));

  WeightsOptions weights_options;
  weights_options.dtype = config.dtype;
  weights_options.on_progress = [&on_progress](int64_t done, int64_t total) {
    on_progress(total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0);
  };
  CADRE_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(folder, model_config, weights_options));
  const RunnerOptions runner_options = MakeRunnerOptions(config);
  CADRE_ASSIGN_OR_RETURN(const MemoryPlan plan,
                         PlanMemory(model_config, checkpoint->summary(), runner_options, *device, device->ops()));
  LogPlan(plan);
  CADRE_ASSIGN_OR_RETURN(Weights weights, checkpoint->Load(*device));

  LoadedModel loaded;
  loaded.card = MakeCard(config, model_config, plan, *device);
  CADRE_ASSIGN_OR_RETURN(loaded.runner,
                         CreateTransformerRunner(model_config, std::move(weights), plan, runner_options, device.get()));
  CADRE_RETURN_IF_ERROR(device->CommitMemory());
  loaded.card.limits = loaded.runner->limits();
  loaded.card.engine = MakeEngineOptions(config);
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
  if (config.max_model_len > 0) options.limits.max_model_len = config.max_model_len;
  LoadedModel loaded;
  CADRE_ASSIGN_OR_RETURN(loaded.tokenizer, MakeSimulatedTokenizer(options.limits.vocab_size));
  CADRE_ASSIGN_OR_RETURN(loaded.chat, MakeSimulatedChat(config));
  ModelCard& card = loaded.card;
  card.name = config.served_model_name;
  card.family = "simulated";
  card.device = "sim";
  card.kernels = "none";
  card.weight_dtype = "none";
  card.kv_dtype = "none";
  card.limits = options.limits;
  card.num_layers = options.limits.num_moe_layers;
  card.moe_layers.resize(static_cast<size_t>(card.num_layers));
  std::iota(card.moe_layers.begin(), card.moe_layers.end(), 0);
  card.engine = MakeEngineOptions(config);
  loaded.runner = std::make_unique<SimulatedRunner>(std::move(options));
  return loaded;
}

}  // namespace

bool IsSimulated(const ServerConfig& config) { return IsSimulatedSpec(config.model); }

absl::StatusOr<LoadedModel> LoadModel(const ServerConfig& config, std::unique_ptr<Device> device,
                                      const std::function<void(double)>& on_progress) {
  if (IsSimulated(config)) return MakeSimulated(config);
  return LoadCheckpoint(config, std::move(device), on_progress);
}

ServedModel DescribeForMetrics(const ModelCard& card) {
  ServedModel model;
  model.name = card.name;
  model.family = card.family;
  model.dtype = card.weight_dtype;
  model.device = card.device;
  model.kernels = card.kernels;
  model.kv_dtype = card.kv_dtype;
  model.moe_layers = card.moe_layers;
  model.num_experts = card.limits.num_experts;
  model.top_k = card.limits.top_k;
  model.kv_block_size = card.limits.kv_block_size;
  model.num_kv_blocks = card.limits.num_kv_blocks;
  model.max_queue_requests = card.engine.max_queue_requests;
  model.max_running_requests = card.engine.max_num_seqs;
  model.dense_weight_bytes = card.memory.dense_weight_bytes;
  model.expert_weight_bytes = card.memory.expert_weight_bytes;
  model.kv_cache_bytes = card.memory.kv_cache_bytes;
  model.workspace_bytes = card.memory.workspace_bytes;
  return model;
}

}  // namespace cadre
