#include "server/vllm_info.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

double Share(int64_t part, int64_t all) { return all > 0 ? static_cast<double>(part) / static_cast<double>(all) : 0; }

}  // namespace

std::string SamplingDefaultsJson(const GenerationDefaults& defaults) {
  std::string json;
  const auto add = [&json](absl::string_view name, const auto& value) {
    absl::StrAppend(&json, json.empty() ? "{\"" : ",\"", name, "\":", value);
  };
  if (defaults.temperature != 1.0f) add("temperature", defaults.temperature);
  if (defaults.top_p != 1.0f) add("top_p", defaults.top_p);
  if (defaults.top_k > 0) add("top_k", defaults.top_k);
  if (defaults.min_p != 0.0f) add("min_p", defaults.min_p);
  if (defaults.repetition_penalty != 1.0f) add("repetition_penalty", defaults.repetition_penalty);
  return json.empty() ? json : absl::StrCat(json, "}");
}

void FillModelInfo(const ModelCard& card, vllm_api::GetModelInfoResponse* info) {
  info->set_model_path(card.name);
  info->set_is_generation(true);
  info->set_max_context_length(static_cast<uint32_t>(card.max_sequence_tokens()));
  info->set_vocab_size(static_cast<uint32_t>(card.limits.vocab_size));
  info->set_served_model_name(card.name);
  info->set_model_type(card.family);
  for (const std::string& name : card.config_facts.architectures) info->add_architectures(name);
  info->mutable_eos_token_ids()->Assign(card.engine.eos_token_ids.begin(), card.engine.eos_token_ids.end());
  info->set_pad_token_id(card.config_facts.pad_token_id.value_or(0));
  info->set_bos_token_id(card.config_facts.bos_token_id.value_or(0));
  info->set_max_req_input_len(card.max_sequence_tokens() - 1);
  info->set_default_sampling_params_json(SamplingDefaultsJson(card.defaults));
}

void FillServerInfo(const ModelCard& card, vllm_api::GetServerInfoResponse* info) {
  info->set_server_type("cadre");
  info->set_data_parallel_size(1);
  info->set_kv_cache_dtype(card.kv_dtype);
  info->set_block_size(card.limits.kv_block_size);
  info->set_model_dtype(card.weight_dtype);
  info->set_max_num_seqs(card.engine.max_num_seqs);
  info->set_constrained_decoding_start("first_token");
}

void FillLoad(const EngineSnapshot& snapshot, const ModelCard& card, vllm_api::SchedulerLoad* load) {
  const double kv_share = Share(snapshot.kv_blocks_in_use, snapshot.kv_blocks_total);
  load->set_num_running_reqs(static_cast<int32_t>(snapshot.running_requests));
  load->set_num_waiting_reqs(static_cast<int32_t>(snapshot.waiting_requests));
  load->set_num_total_reqs(static_cast<int32_t>(snapshot.running_requests + snapshot.waiting_requests));
  load->set_num_used_tokens(snapshot.kv_blocks_in_use * card.limits.kv_block_size);
  load->set_max_total_num_tokens(snapshot.kv_blocks_total * card.limits.kv_block_size);
  load->set_token_usage(kv_share);
  load->set_cache_hit_rate(Share(snapshot.prefix_hit_tokens, snapshot.prefix_lookup_tokens));
  load->set_utilization(kv_share);
  load->set_max_running_requests(card.engine.max_num_seqs);
  load->set_num_waiting_uncached_tokens(static_cast<int32_t>(snapshot.waiting_tokens));
}

double CounterRate::Observe(int64_t count, absl::Time now) {
  const std::lock_guard lock(mutex_);
  const absl::Duration span = now - since_;
  if (span < kMinSpan) return rate_;
  if (since_ != absl::InfinitePast()) rate_ = static_cast<double>(count - count_) / absl::ToDoubleSeconds(span);
  since_ = now;
  count_ = count;
  return rate_;
}

}  // namespace cadre
