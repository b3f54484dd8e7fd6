#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cadre/v1/model_service.grpc.pb.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/field_support.h"
#include "server/guarded_service.h"
#include "server/proto_time.h"
#include "server/request_limits.h"
#include "server/services.h"
#include "server/translate_capacity.h"
#include "server/version.h"

namespace cadre {
namespace {

v1::ModelState ToWire(ModelHost::State state) {
  switch (state) {
    case ModelHost::State::kLoading:
      return v1::MODEL_STATE_LOADING;
    case ModelHost::State::kReady:
      return v1::MODEL_STATE_READY;
    case ModelHost::State::kDraining:
    case ModelHost::State::kStopped:
      break;
  }
  return v1::MODEL_STATE_DRAINING;
}

void FillArchitecture(const ModelCard& card, v1::ModelArchitecture* wire) {
  wire->set_family(card.family);
  wire->set_num_layers(card.num_layers);
  wire->mutable_moe_layers()->Assign(card.moe_layers.begin(), card.moe_layers.end());
  wire->set_num_experts(card.limits.num_experts);
  wire->set_top_k(card.limits.top_k);
  wire->set_hidden_size(card.hidden_size);
  wire->set_vocab_size(card.limits.vocab_size);
  wire->set_has_shared_expert(card.has_shared_expert);
  wire->mutable_routing()->set_name(card.routing_scheme);
  wire->mutable_routing()->set_description(card.routing_description);
  wire->mutable_routing()->set_min_k(card.limits.min_k == kAlwaysTopK ? card.limits.top_k : card.limits.min_k);
  wire->mutable_routing()->set_origin(card.routing_origin);
}

void FillMemory(const ModelCard& card, const std::optional<JointBudgetReport>& budget, v1::MemoryPlan* wire) {
  MemoryPlan plan = card.memory;
  if (!plan.split) plan.num_kv_blocks = card.limits.num_kv_blocks;  // of a simulated model, too, which has no plan
  if (budget) {
    plan.num_expert_slots = budget->shares.slots;
    plan.expert_weight_bytes = budget->shares.slots * budget->limits.slot_bytes;
    plan.num_kv_blocks = static_cast<int32_t>(budget->shares.blocks);
    plan.kv_cache_bytes = budget->shares.blocks * budget->limits.block_bytes;
  }
  wire->set_dense_weight_bytes(plan.dense_weight_bytes);
  wire->set_expert_weight_bytes(plan.expert_weight_bytes);
  wire->set_kv_cache_bytes(plan.kv_cache_bytes);
  wire->set_workspace_bytes(plan.workspace_bytes);
  wire->set_total_bytes(plan.total_bytes());
  wire->set_available_bytes(plan.available_bytes);
  wire->set_num_expert_slots(plan.num_expert_slots);
  wire->set_all_expert_bytes(plan.all_expert_bytes);
  wire->set_host_expert_bytes(plan.host_expert_bytes);
  wire->set_resident_experts(plan.num_resident_experts);
  wire->set_num_kv_blocks(plan.num_kv_blocks);
  wire->set_kv_block_size(card.limits.kv_block_size);
}

void FillLimits(const ModelCard& card, v1::ModelLimits* wire) {
  wire->set_max_model_len(card.max_sequence_tokens());
  wire->set_max_num_seqs(card.engine.max_num_seqs);
  wire->set_max_num_batched_tokens(card.engine.max_num_batched_tokens);
  wire->set_max_queue_requests(card.engine.max_queue_requests);
  wire->set_max_prompt_bytes(kMaxPromptBytes);
  wire->set_max_stop_strings(kMaxStopStrings);
  wire->set_max_stop_string_bytes(kMaxStopStringBytes);
  wire->set_max_stop_token_ids(kMaxStopTokenIds);
  wire->set_max_temperature(kMaxTemperature);
  wire->set_max_request_bytes(kMaxRequestBytes);
  wire->set_max_chat_messages(kMaxChatMessages);
  wire->set_max_chat_tools(kMaxChatTools);
}

void FillModel(const ServedText& model, const EngineSnapshot& snapshot, v1::Model* wire) {
  const ModelCard& card = model.card;
  *wire->mutable_ready_time() = ToProto(model.ready_time);
  FillArchitecture(card, wire->mutable_architecture());
  wire->mutable_execution()->set_device(card.device);
  wire->mutable_execution()->set_kernels(card.kernels);
  wire->mutable_execution()->set_weight_dtype(card.weight_dtype);
  wire->mutable_execution()->set_expert_dtype(card.expert_dtype);
  wire->mutable_execution()->set_kv_cache_dtype(card.kv_dtype);
  FillMemory(card, snapshot.joint_budget, wire->mutable_memory_plan());
  FillLimits(card, wire->mutable_limits());
  v1::SamplingParams* sampling = wire->mutable_default_sampling();
  sampling->set_temperature(card.defaults.temperature);
  sampling->set_top_k(card.defaults.top_k);
  sampling->set_top_p(card.defaults.top_p);
  sampling->set_min_p(card.defaults.min_p);
  sampling->set_repetition_penalty(card.defaults.repetition_penalty);
  if (card.defaults.max_new_tokens.has_value()) {
    wire->mutable_default_stopping()->set_max_tokens(*card.defaults.max_new_tokens);
  }
  wire->mutable_eos_token_ids()->Assign(card.engine.eos_token_ids.begin(), card.engine.eos_token_ids.end());
  wire->mutable_capacity()->set_allows_override(card.engine.allow_capacity_override);
  wire->mutable_capacity()->set_is_supported(card.limits.max_capacity_slots > 0);
  for (std::string& field : SupportedGenerateFields()) wire->add_supported_fields(std::move(field));
  if (model.chat.chat_template != nullptr) {
    wire->mutable_chat_template()->set_source(model.chat.chat_template->source());
  } else {
    wire->mutable_chat_template()->set_error(model.chat.error);
  }
}

void FillCounts(const EngineSnapshot& snapshot, v1::ModelLoad* wire) {
  wire->set_running_requests(snapshot.running_requests);
  wire->set_waiting_requests(snapshot.waiting_requests);
  wire->set_waiting_tokens(snapshot.waiting_tokens);
  *wire->mutable_oldest_wait() = ToProto(snapshot.oldest_wait);
  wire->set_kv_blocks_free(snapshot.kv_blocks_free);
  wire->set_kv_blocks_in_use(snapshot.kv_blocks_in_use);
  wire->set_kv_blocks_cached(snapshot.kv_blocks_cached);
  wire->set_kv_blocks_total(snapshot.kv_blocks_total);
  wire->set_admitted_requests(snapshot.admitted_requests);
  wire->set_finished_requests(snapshot.finished_ok);
  wire->set_cancelled_requests(snapshot.finished_cancelled);
  wire->set_deadline_exceeded_requests(snapshot.finished_deadline);
  wire->set_failed_requests(snapshot.finished_failed);
  wire->set_prompt_tokens(snapshot.prompt_tokens);
  wire->set_generated_tokens(snapshot.generated_tokens);
  wire->set_prefill_tokens(snapshot.prefill_tokens);
  wire->set_decode_tokens(snapshot.decode_tokens);
  wire->set_preemptions(snapshot.preemptions);
  wire->set_steps(snapshot.steps);
  wire->set_prefix_cache_query_tokens(snapshot.prefix_lookup_tokens);
  wire->set_prefix_cache_hit_tokens(snapshot.prefix_hit_tokens);
}

class ModelService final : public GuardedService<v1::ModelService> {
 public:
  explicit ModelService(const ServiceContext& services) : GuardedService(services), host_(*services.host) {
    HandleNow<v1::GetModelRequest, v1::GetModelResponse>("GetModel",
                                                         [this](const auto& in, auto* out) { return Get(in, out); });
    HandleNow<v1::ListModelsRequest, v1::ListModelsResponse>(
        "ListModels", [this](const auto& in, auto* out) { return List(in, out); });
    HandleNow<v1::GetLoadRequest, v1::GetLoadResponse>("GetLoad",
                                                       [this](const auto& in, auto* out) { return Load(in, out); });
  }

 private:
  absl::Status Get(const v1::GetModelRequest& request, v1::GetModelResponse* response) const {
    CADRE_RETURN_IF_ERROR(host_.CheckName(request.model()));
    CADRE_RETURN_IF_ERROR(RefuseUnsupportedFields(request));
    Describe(response->mutable_model());
    response->set_server_version(absl::StrCat(ServerVersion(), "+", ServerRevision()));
    return absl::OkStatus();
  }

  absl::Status List(const v1::ListModelsRequest& request, v1::ListModelsResponse* response) const {
    if (request.page_size() < 0) {
      return InvalidField("page_size", absl::StrCat(request.page_size(), " is less than 0"));
    }
    if (!request.page_token().empty()) {
      return InvalidField("page_token", absl::StrCat(Excerpt(request.page_token()), " is not from a previous answer"));
    }
    Describe(response->add_models());
    return absl::OkStatus();
  }

  absl::Status Load(const v1::GetLoadRequest& request, v1::GetLoadResponse* response) const {
    CADRE_RETURN_IF_ERROR(host_.CheckName(request.model()));
    CADRE_RETURN_IF_ERROR(RefuseUnsupportedFields(request));
    v1::ModelLoad* load = response->mutable_load();
    load->set_state(ToWire(host_.state()));
    FillCounts(host_.Snapshot(), load);
    *load->mutable_time() = ToProto(host_.clock().Now());
    if (const auto model = host_.Text(); model.ok()) {
      load->set_max_running_requests((*model)->card.engine.max_num_seqs);
      load->set_max_waiting_requests((*model)->card.engine.max_queue_requests);
    }
    return absl::OkStatus();
  }

  // Works while the model is loading, too: then there is a name, a state and a progress.
  void Describe(v1::Model* wire) const {
    wire->set_name(host_.served_name());
    wire->set_state(ToWire(host_.state()));
    wire->set_load_progress(host_.load_progress());
    if (const auto model = host_.Text(); model.ok()) {
      FillModel(**model, host_.Snapshot(), wire);
      FillCapacity(host_.capacity_policy(), wire->mutable_capacity()->mutable_policy());
    }
  }

  ModelHost& host_;
};

}  // namespace

std::unique_ptr<grpc::Service> CreateModelService(const ServiceContext& context) {
  return std::make_unique<ModelService>(context);
}

}  // namespace cadre
