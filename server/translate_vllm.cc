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

// The first fields that are not supported: a request may have millions, an error names kMaxUnsupportedNames.
struct UnsupportedNames {
  void Add(std::string name) {
    has_more = names.size() == kMaxUnsupportedNames;
    if (!has_more) names.push_back(std::move(name));
  }

  std::vector<std::string> names;
  bool has_more = false;
};

// One pass at most, each field against the few numbers that are named already.
void CollectUnknown(const google::protobuf::Message& message, const char* prefix, UnsupportedNames* found) {
  const google::protobuf::UnknownFieldSet& unknown = message.GetReflection()->GetUnknownFields(message);
  std::vector<int> numbers;
  for (int i = 0; i < unknown.field_count() && !found->has_more; ++i) {
    const int number = unknown.field(i).number();
    if (std::find(numbers.begin(), numbers.end(), number) != numbers.end()) continue;
    numbers.push_back(number);
    found->Add(absl::StrCat(prefix, number));
  }
}

absl::Status RefuseUnsupported(const vllm_api::GenerateRequest& wire) {
  const vllm_api::SamplingParams& params = wire.sampling_params();
  UnsupportedNames found;
  if (wire.has_kv_transfer_params()) found.Add("kv_transfer_params");
  if (wire.has_mm_inputs()) found.Add("mm_inputs");
  if (wire.has_kv_transfer_params_json()) found.Add("kv_transfer_params_json");
  if (wire.has_media_refs()) found.Add("media_refs");
  if (wire.extra_mm_inputs_size() > 0) found.Add("extra_mm_inputs");
  if (params.has_grammar()) found.Add("sampling_params.grammar");
  if (params.has_structural_tag()) found.Add("sampling_params.structural_tag");
  CollectUnknown(wire, "", &found);
  CollectUnknown(wire.tokenized(), "tokenized.", &found);
  CollectUnknown(params, "sampling_params.", &found);
  CollectUnknown(params.choice(), "sampling_params.choice.", &found);
  if (!found.names.empty()) return UnsupportedFields(std::move(found.names), found.has_more);
  if (wire.data_parallel_rank() == 0) return absl::OkStatus();
  return InvalidField("data_parallel_rank", absl::StrCat(wire.data_parallel_rank(), " is not in [0, 0]"));
}

absl::Status NotAnInt32(std::string field, uint32_t value) {
  return InvalidField(std::move(field), absl::StrCat(value, " is not in [0, ", kMaxInt32, "]"));
}

// A count.
absl::Status CheckInt32(const char* field, uint32_t value) {
  return value <= kMaxInt32 ? absl::OkStatus() : NotAnInt32(field, value);
}

// A prompt may have a million: a name is made for the one that is wrong.
absl::Status CopyIds(const char* field, const google::protobuf::RepeatedField<uint32_t>& wire,
                     google::protobuf::RepeatedField<int32_t>* ids) {
  ids->Reserve(wire.size());
  for (int i = 0; i < wire.size(); ++i) {
    if (wire[i] > kMaxInt32) return NotAnInt32(absl::StrCat(field, "[", i, "]"), wire[i]);
    ids->Add(static_cast<int32_t>(wire[i]));
  }
  return absl::OkStatus();
}

absl::Status TranslateInput(vllm_api::GenerateRequest& wire, v1::GenerateRequest* request) {
  if (wire.has_text()) {
    request->set_text(std::move(*wire.mutable_text()));
    return absl::OkStatus();
  }
  if (!wire.has_tokenized()) return InvalidField("input", "no prompt: set tokenized or text");
  return CopyIds("tokenized.input_ids", wire.tokenized().input_ids(), request->mutable_token_ids()->mutable_ids());
}

absl::Status TranslateSampling(vllm_api::SamplingParams& wire, v1::SamplingParams* sampling) {
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
  sampling->mutable_logit_bias()->swap(*wire.mutable_logit_bias());
  return absl::OkStatus();
}

absl::Status TranslateStopping(vllm_api::SamplingParams& wire, v1::StopConditions* stopping) {
  if (wire.has_max_tokens()) {
    CADRE_RETURN_IF_ERROR(CheckInt32("sampling_params.max_tokens", wire.max_tokens()));
    stopping->set_max_tokens(static_cast<int32_t>(wire.max_tokens()));
  }
  CADRE_RETURN_IF_ERROR(CheckInt32("sampling_params.min_tokens", wire.min_tokens()));
  stopping->set_min_tokens(static_cast<int32_t>(wire.min_tokens()));
  stopping->mutable_stop_strings()->Swap(wire.mutable_stop());
  CADRE_RETURN_IF_ERROR(
      CopyIds("sampling_params.stop_token_ids", wire.stop_token_ids(), stopping->mutable_stop_token_ids()));
  stopping->set_ignore_eos(wire.ignore_eos());
  return absl::OkStatus();
}

void TranslateOutput(const vllm_api::SamplingParams& wire, v1::OutputOptions* output) {
  output->set_skip_special_tokens(wire.skip_special_tokens());
  if (wire.has_logprobs()) {
    output->set_logprobs(true);
    output->set_top_logprobs(wire.logprobs());
  }
  if (wire.has_prompt_logprobs()) output->set_prompt_logprobs(wire.prompt_logprobs());
}

void TranslateConstraint(vllm_api::SamplingParams& wire, v1::GenerateRequest* request) {
  if (wire.has_json_schema()) {
    request->mutable_structured_output()->set_json_schema(std::move(*wire.mutable_json_schema()));
  } else if (wire.has_regex()) {
    request->mutable_structured_output()->set_regex(std::move(*wire.mutable_regex()));
  } else if (wire.has_choice()) {
    request->mutable_structured_output()->mutable_choices()->mutable_choices()->Swap(
        wire.mutable_choice()->mutable_choices());
  } else if (wire.json_object()) {
    request->mutable_structured_output()->set_json_schema(kAnyObject);
  }
}

}  // namespace

absl::Status TranslateVllmRequest(vllm_api::GenerateRequest wire, v1::GenerateRequest* request) {
  request->set_request_id(std::move(*wire.mutable_request_id()));
  CADRE_RETURN_IF_ERROR(RefuseUnsupported(wire));
  vllm_api::SamplingParams& params = *wire.mutable_sampling_params();
  CADRE_RETURN_IF_ERROR(TranslateInput(wire, request));
  CADRE_RETURN_IF_ERROR(TranslateSampling(params, request->mutable_sampling()));
  CADRE_RETURN_IF_ERROR(TranslateStopping(params, request->mutable_stopping()));
  TranslateOutput(params, request->mutable_output());
  // Nobody is told the text: it is made where stop strings are looked for in it.
  request->mutable_output()->set_text(request->stopping().stop_strings_size() > 0);
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
