#include "server/vllm_answer.h"

#include <utility>

namespace cadre {
namespace {

template <typename Details>
bool HasAlternatives(const Details& details) {
  for (const v1::TokenDetail& detail : details) {
    if (detail.alternatives_size() > 0) return true;
  }
  return false;
}

void FillAlternatives(const v1::TokenDetail& detail, vllm_api::TopLogProbs* top) {
  for (const v1::TokenAlternative& alternative : detail.alternatives()) {
    top->add_values(alternative.logprob());
    top->add_token_ids(static_cast<uint32_t>(alternative.token_id()));
  }
}

void AddDetails(const google::protobuf::RepeatedPtrField<v1::TokenDetail>& details, vllm_api::OutputLogProbs* out) {
  const bool has_alternatives = HasAlternatives(details);
  for (const v1::TokenDetail& detail : details) {
    out->add_token_logprobs(detail.logprob());
    out->add_token_ids(static_cast<uint32_t>(detail.token_id()));
    if (has_alternatives) FillAlternatives(detail, out->add_top_logprobs());
  }
}

const char* FinishReasonName(v1::FinishReason reason) {
  const bool is_cut = reason == v1::FINISH_REASON_LENGTH || reason == v1::FINISH_REASON_TIME_LIMIT;
  return is_cut ? "length" : "stop";
}

}  // namespace

std::vector<vllm_api::GenerateResponse> VllmAnswer::Translate(const v1::GenerateResponse& event) {
  switch (event.event_case()) {
    case v1::GenerateResponse::kStarted:
      Start(event.started());
      return {};
    case v1::GenerateResponse::kDelta:
      // Text that was held back until now comes without tokens.
      if (event.delta().token_ids_size() == 0) return {};
      if (is_streamed_) return {Chunk(event.delta())};
      Collect(event.delta());
      return {};
    case v1::GenerateResponse::kFinished:
      Complete(event.finished());
      return TakeComplete(event.finished().index());
    case v1::GenerateResponse::EVENT_NOT_SET:
      break;
  }
  return {};
}

void VllmAnswer::Start(const v1::StartedEvent& event) {
  prompt_tokens_ = static_cast<uint32_t>(event.prompt_tokens());
  cached_tokens_ = static_cast<uint32_t>(event.cached_prompt_tokens());
  const bool has_alternatives = HasAlternatives(event.prompt_details());
  for (const v1::TokenDetail& detail : event.prompt_details()) {
    vllm_api::InputTokenLogProb* logprob = input_logprobs_.add_token_logprobs();
    if (detail.rank() > 0) logprob->set_value(detail.logprob());
    input_logprobs_.add_token_ids(static_cast<uint32_t>(detail.token_id()));
    if (has_alternatives) FillAlternatives(detail, input_logprobs_.add_top_logprobs());
  }
}

vllm_api::GenerateResponse VllmAnswer::Chunk(const v1::DeltaEvent& event) {
  vllm_api::GenerateResponse response;
  vllm_api::GenerateStreamChunk* chunk = response.mutable_chunk();
  chunk->mutable_token_ids()->Assign(event.token_ids().begin(), event.token_ids().end());
  chunk->set_prompt_tokens(prompt_tokens_);
  chunk->set_completion_tokens(static_cast<uint32_t>(event.token_ids_size()));
  chunk->set_cached_tokens(cached_tokens_);
  chunk->set_index(static_cast<uint32_t>(event.index()));
  if (event.details_size() > 0) AddDetails(event.details(), chunk->mutable_output_logprobs());
  // For each sequence, because servers of this protocol do so and clients read one sequence without the others;
  // admission has charged for all of them.
  const bool had_chunk = std::exchange(sequences_[event.index()].has_chunk, true);
  if (!had_chunk && input_logprobs_.token_ids_size() > 0) {
    *chunk->mutable_input_logprobs() = input_logprobs_;
    if (++num_told_input_ == num_sequences_) input_logprobs_ = {};
  }
  return response;
}

void VllmAnswer::Collect(const v1::DeltaEvent& event) {
  vllm_api::GenerateComplete& complete = sequences_[event.index()].complete;
  complete.mutable_output_ids()->Add(event.token_ids().begin(), event.token_ids().end());
  if (event.details_size() > 0) AddDetails(event.details(), complete.mutable_output_logprobs());
}

void VllmAnswer::Complete(const v1::FinishedEvent& event) {
  sequences_[event.index()].is_complete = true;
  vllm_api::GenerateComplete* complete = &sequences_[event.index()].complete;
  complete->set_finish_reason(FinishReasonName(event.reason()));
  complete->set_prompt_tokens(static_cast<uint32_t>(event.usage().prompt_tokens()));
  complete->set_completion_tokens(static_cast<uint32_t>(event.usage().generated_tokens()));
  complete->set_cached_tokens(static_cast<uint32_t>(event.usage().cached_prompt_tokens()));
  complete->set_index(static_cast<uint32_t>(event.index()));
  // Once: without chunks, messages of all sequences may wait for each other, each with what it has.
  if (!is_streamed_ && event.index() == 0 && input_logprobs_.token_ids_size() > 0) {
    complete->mutable_input_logprobs()->Swap(&input_logprobs_);
  }
  // An end-of-sequence token is nothing that the client asked for.
  if (event.reason() == v1::FINISH_REASON_STOP_TOKEN) {
    complete->set_matched_token_id(static_cast<uint32_t>(event.matched_token_id()));
  } else if (event.reason() == v1::FINISH_REASON_STOP_STRING) {
    complete->set_matched_stop_str(event.matched_stop_string());
  }
}

std::vector<vllm_api::GenerateResponse> VllmAnswer::TakeComplete(int32_t ended) {
  if (is_streamed_) next_index_ = ended;
  std::vector<vllm_api::GenerateResponse> taken;
  for (auto it = sequences_.find(next_index_); it != sequences_.end() && it->second.is_complete;
       it = sequences_.find(next_index_)) {
    *taken.emplace_back().mutable_complete() = std::move(it->second.complete);
    sequences_.erase(it);
    if (is_streamed_) break;
    ++next_index_;
  }
  return taken;
}

}  // namespace cadre
