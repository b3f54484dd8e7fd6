#include "server/translate_vllm.h"

#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "server/errors.h"
#include "server/field_support.h"

namespace cadre {
namespace {

constexpr char kAnyObject[] = R"({"type":"object"})";
constexpr uint32_t kMaxInt32 = std::numeric_limits<int32_t>::max();

void CollectUnknown(const google::protobuf::Message& message, const std::string& prefix,
                    std::vector<std::string>* fields) {
  const google::protobuf::UnknownFieldSet& unknown = message.GetReflection()->GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count(); ++i) {
    std::string name = absl::StrCat(prefix, unknown.field(i).number());
    if (std::find(fields->begin(), fields->end(), name) == fields->end()) fields->push_back(std::move(name));
  }
}

absl::Status RefuseUnsupported(const vllm_api::GenerateRequest& wire) {
  const vllm_api::SamplingParams& params = wire.sampling_params();
  std::vector<std::string> fields;
  if (wire.has_kv_transfer_params()) fields.emplace_back("kv_transfer_params");
  if (wire.has_mm_inputs()) fields.emplace_back("mm_inputs");
  if (wire.has_kv_transfer_params_json()) fields.emplace_back("kv_transfer_params_json");
  if (wire.has_media_refs()) fields.emplace_back("media_refs");
  if (wire.extra_mm_inputs_size() > 0) fields.emplace_back("extra_mm_inputs");
  if (params.has_grammar()) fields.emplace_back("sampling_params.grammar");
  if (params.has_structural_tag()) fields.emplace_back("sampling_params.structural_tag");
  CollectUnknown(wire, "", &fields);
  CollectUnknown(wire.tokenized(), "tokenized.", &fields);
  CollectUnknown(params, "sampling_params.", &fields);
  CollectUnknown(params.choice(), "sampling_params.choice.", &fields);
  if (!fields.empty()) return UnsupportedFields(std::move(fields));
  if (wire.data_parallel_rank() == 0) return absl::OkStatus();
  return InvalidField("data_parallel_rank", absl::StrCat(wire.data_parallel_rank(), " is not in [0, 0]"));
}

// A count or a token id.
absl::Status CheckInt32(std::string field, uint32_t value) {
  if (value <= kMaxInt32) return absl::OkStatus();
  return InvalidField(std::move(field), absl::StrCat(value, " is not in [0, ", kMaxInt32, "]"));
}

template <typename Wire>
absl::Status CopyIds(const std::string& field, const Wire& wire, google::protobuf::RepeatedField<int32_t>* ids) {
  ids->Reserve(wire.size());
  for (int i = 0; i < wire.size(); ++i) {
    CADRE_RETURN_IF_ERROR(CheckInt32(absl::StrCat(field, "[", i, "]"), wire[i]));
    ids->Add(static_cast<int32_t>(wire[i]));
  }
  return absl::OkStatus();
}

absl::Status TranslateInput(const vllm_api::GenerateRequest& wire, v1::GenerateRequest* request) {
  if (wire.has_text()) {
    request->set_text(wire.text());
    return absl::OkStatus();
  }
  if (!wire.has_tokenized()) return InvalidField("input", "no prompt: set tokenized or text");
  return CopyIds("tokenized.input_ids", wire.tokenized().input_ids(), request->mutable_token_ids()->mutable_ids());
}

absl::Status TranslateSampling(const vllm_api::SamplingParams& wire, v1::SamplingParams* sampling) {
  sampling->set_temperature(wire.has_temperature() ? wire.temperature() : 1.0f);
  sampling->set_top_p(wire.top_p() == 0.0f ? 1.0f : wire.top_p());
  // More than there are tokens is all of them, as it is.
  sampling->set_top_k(static_cast<int32_t>(std::min(wire.top_k(), kMaxInt32)));
  sampling->set_min_p(wire.min_p());
  sampling->set_frequency_penalty(wire.frequency_penalty());
  sampling->set_presence_penalty(wire.presence_penalty());
  sampling->set_repetition_penalty(wire.repetition_penalty() == 0.0f ? 1.0f : wire.repetition_penalty());
  if (wire.has_seed() && wire.seed() != -1) sampling->set_seed(static_cast<uint64_t>(int64_t{wire.seed()}));
  CADRE_RETURN_IF_ERROR(CheckInt32("sampling_params.n", wire.n()));
  sampling->set_n(wire.n() == 0 ? 1 : static_cast<int32_t>(wire.n()));
  sampling->mutable_logit_bias()->insert(wire.logit_bias().begin(), wire.logit_bias().end());
  return absl::OkStatus();
}

absl::Status TranslateStopping(const vllm_api::SamplingParams& wire, v1::StopConditions* stopping) {
  if (wire.has_max_tokens()) {
    CADRE_RETURN_IF_ERROR(CheckInt32("sampling_params.max_tokens", wire.max_tokens()));
    stopping->set_max_tokens(static_cast<int32_t>(wire.max_tokens()));
  }
  CADRE_RETURN_IF_ERROR(CheckInt32("sampling_params.min_tokens", wire.min_tokens()));
  stopping->set_min_tokens(static_cast<int32_t>(wire.min_tokens()));
  *stopping->mutable_stop_strings() = wire.stop();
  CADRE_RETURN_IF_ERROR(
      CopyIds("sampling_params.stop_token_ids", wire.stop_token_ids(), stopping->mutable_stop_token_ids()));
  stopping->set_ignore_eos(wire.ignore_eos());
  return absl::OkStatus();
}

void TranslateOutput(const vllm_api::SamplingParams& wire, v1::OutputOptions* output) {
  // Nobody is told the text: it is made where stop strings are looked for in it.
  output->set_text(wire.stop_size() > 0);
  output->set_skip_special_tokens(wire.skip_special_tokens());
  if (wire.has_logprobs()) {
    output->set_logprobs(true);
    output->set_top_logprobs(wire.logprobs());
  }
  if (wire.has_prompt_logprobs()) output->set_prompt_logprobs(wire.prompt_logprobs());
}

void TranslateConstraint(const vllm_api::SamplingParams& wire, v1::GenerateRequest* request) {
  if (wire.has_json_schema()) {
    request->mutable_structured_output()->set_json_schema(wire.json_schema());
  } else if (wire.has_regex()) {
    request->mutable_structured_output()->set_regex(wire.regex());
  } else if (wire.has_choice()) {
    *request->mutable_structured_output()->mutable_choices()->mutable_choices() = wire.choice().choices();
  } else if (wire.json_object()) {
    request->mutable_structured_output()->set_json_schema(kAnyObject);
  }
}

}  // namespace

absl::Status TranslateVllmRequest(const vllm_api::GenerateRequest& wire, v1::GenerateRequest* request) {
  const vllm_api::SamplingParams& params = wire.sampling_params();
  request->set_request_id(wire.request_id());
  CADRE_RETURN_IF_ERROR(RefuseUnsupported(wire));
  CADRE_RETURN_IF_ERROR(TranslateInput(wire, request));
  CADRE_RETURN_IF_ERROR(TranslateSampling(params, request->mutable_sampling()));
  CADRE_RETURN_IF_ERROR(TranslateStopping(params, request->mutable_stopping()));
  TranslateOutput(params, request->mutable_output());
  TranslateConstraint(params, request);
  if (params.has_truncate_prompt_tokens()) {
    request->mutable_prompt()->set_truncate_prompt_tokens(params.truncate_prompt_tokens());
  }
  return absl::OkStatus();
}

std::string VllmFieldName(std::string_view field) {
  // The first that fits; what follows it stays.
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kPrefixes = {{
      {"token_ids.ids", "tokenized.input_ids"},
      {"stopping.stop_strings", "sampling_params.stop"},
      {"structured_output.choices", "sampling_params.choice"},
      {"output.top_logprobs", "sampling_params.logprobs"},
      {"stopping.", "sampling_params."},
      {"sampling.", "sampling_params."},
      {"output.", "sampling_params."},
      {"structured_output.", "sampling_params."},
      {"prompt.", "sampling_params."},
  }};
  for (const auto& [ours, theirs] : kPrefixes) {
    if (field.starts_with(ours)) return absl::StrCat(ToAbsl(theirs), ToAbsl(field.substr(ours.size())));
  }
  return std::string(field);
}

}  // namespace cadre
