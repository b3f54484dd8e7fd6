#include "server/field_support.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/strings.h"
#include "server/errors.h"

namespace cadre {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr std::string_view kGenerateFields[] = {
    "request_id",
    "model",
    "text",
    "token_ids.ids",
    "chat.messages",
    "chat.add_generation_prompt",
    "chat.tools",
    "chat.documents",
    "chat.template_arguments",
    "chat.continue_final_message",
    "prompt.add_special_tokens",
    "prompt.parse_special",
    "prompt.truncate_prompt_tokens",
    "sampling.temperature",
    "sampling.top_k",
    "sampling.top_p",
    "sampling.min_p",
    "sampling.presence_penalty",
    "sampling.frequency_penalty",
    "sampling.repetition_penalty",
    "sampling.seed",
    "sampling.n",
    "sampling.logit_bias",
    "sampling.allowed_token_ids",
    "stopping.max_tokens",
    "stopping.min_tokens",
    "stopping.stop_strings",
    "stopping.stop_token_ids",
    "stopping.ignore_eos",
    "stopping.include_stop_string",
    "output.skip_special_tokens",
    "output.text",
    "output.logprobs",
    "output.top_logprobs",
    "output.prompt_logprobs",
    "output.echo",
    "output.token_bytes",
    "output.routed_experts",
    "scheduling.priority",
    "scheduling.time_limit",
    "scheduling.tenant",
    "scheduling.cache_salt",
    "scheduling.capacity.scope",
    "scheduling.capacity.overflow",
    "scheduling.capacity.capacity_factor",
    "scheduling.capacity.min_capacity",
    "scheduling.capacity.group_tokens",
    "structured_output.json_schema",
    "structured_output.regex",
    "structured_output.choices.choices",
    "replay_routing.record.first_position",
    "replay_routing.record.num_layers",
    "replay_routing.record.top_k",
    "replay_routing.record.expert_ids",
    "replay_routing.record.weights",
    "replay_routing.weights",
};
constexpr std::string_view kTokenizeFields[] = {
    "model",
    "text",
    "chat.messages",
    "chat.add_generation_prompt",
    "chat.tools",
    "chat.documents",
    "chat.template_arguments",
    "chat.continue_final_message",
    "prompt.add_special_tokens",
    "prompt.parse_special",
    "token_bytes",
};
constexpr std::string_view kDetokenizeFields[] = {"model", "token_ids", "skip_special_tokens"};
constexpr std::string_view kGetExpertStatsFields[] = {"model", "scope", "layers", "include_experts", "as_matrix"};
constexpr std::string_view kWatchExpertStatsFields[] = {
    "model", "scope", "layers", "include_experts", "interval", "delta", "as_matrix",
};
constexpr std::string_view kSetCapacityPolicyFields[] = {
    "model", "policy.scope", "policy.overflow", "policy.capacity_factor", "policy.min_capacity", "policy.group_tokens",
};
constexpr std::string_view kExportProfileFields[] = {"model", "max_pairs"};
constexpr std::string_view kImportProfileFields[] = {
    "model",
    "profile.model_fingerprint",
    "profile.tokens",
    "profile.frequency",
    "profile.num_experts",
    "profile.format_version",
    "profile.top_k",
    "profile.layers",
    "profile.assignments",
    "profile.sampled_tokens",
    "profile.co_activation",
    "profile.transitions",
    "profile.token_classes",
};
constexpr std::string_view kPinExpertsFields[] = {"model", "experts"};
constexpr std::string_view kModelOnly[] = {"model"};

struct RequestFields {
  std::string_view request;
  std::span<const std::string_view> supported;
};
constexpr RequestFields kRequests[] = {
    {"GenerateRequest", kGenerateFields},
    {"GenerateTextRequest", kGenerateFields},
    {"TokenizeRequest", kTokenizeFields},
    {"DetokenizeRequest", kDetokenizeFields},
    {"GetExpertStatsRequest", kGetExpertStatsFields},
    {"WatchExpertStatsRequest", kWatchExpertStatsFields},
    {"GetTenantStatsRequest", kModelOnly},
    {"GetPlacementRequest", kModelOnly},
    {"GetWhatIfRequest", kModelOnly},
    {"ResetStatsRequest", kModelOnly},
    {"ResetRouterBiasRequest", kModelOnly},
    {"SetCapacityPolicyRequest", kSetCapacityPolicyFields},
    {"PinExpertsRequest", kPinExpertsFields},
    {"ExportProfileRequest", kExportProfileFields},
    {"ImportProfileRequest", kImportProfileFields},
    {"GetModelRequest", kModelOnly},
    {"GetLoadRequest", kModelOnly},
};

std::span<const std::string_view> SupportedFieldsOf(const Message& request) {
  for (const RequestFields& entry : kRequests) {
    if (entry.request == request.GetDescriptor()->name()) return entry.supported;
  }
  return {};
}

// Whether `path` is a message that holds supported fields, so that an empty one asks for nothing.
bool IsGroup(std::string_view path, std::span<const std::string_view> supported) {
  const std::string prefix = absl::StrCat(ToAbsl(path), ".");
  return std::any_of(supported.begin(), supported.end(), [&](auto field) { return field.starts_with(prefix); });
}

bool IsOurMessage(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_repeated() &&
         field.message_type()->file()->package() == "cadre.v1";
}

void CollectUnsupported(const Message& message, const std::string& prefix, std::span<const std::string_view> supported,
                        std::vector<std::string>* unsupported) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = prefix + field->name();
    if (std::find(supported.begin(), supported.end(), path) != supported.end()) continue;
    if (IsOurMessage(*field)) {
      const Message& child = message.GetReflection()->GetMessage(message, field);
      std::vector<const FieldDescriptor*> child_fields;
      child.GetReflection()->ListFields(child, &child_fields);
      if (!child_fields.empty() || IsGroup(path, supported)) {
        CollectUnsupported(child, path + ".", supported, unsupported);
        continue;
      }
    }
    unsupported->push_back(path);
  }
}

}  // namespace

absl::Status RefuseUnsupportedFields(const Message& request) {
  std::vector<std::string> unsupported;
  CollectUnsupported(request, "", SupportedFieldsOf(request), &unsupported);
  return unsupported.empty() ? absl::OkStatus() : UnsupportedFields(std::move(unsupported));
}

absl::Status UnsupportedFields(std::vector<std::string> fields, bool has_more) {
  ErrorSpec spec{.code = absl::StatusCode::kUnimplemented, .reason = reason::kUnsupportedField};
  spec.message = absl::StrCat("not supported by this release: ", absl::StrJoin(fields, ", "),
                              has_more ? ", and more" : "", "; GetModel lists what is");
  spec.metadata.emplace_back("field", fields.front());
  for (std::string& path : fields) {
    spec.violations.push_back({std::move(path), "not supported by this release"});
  }
  return MakeError(std::move(spec));
}

std::vector<std::string> SupportedGenerateFields() { return {std::begin(kGenerateFields), std::end(kGenerateFields)}; }

}  // namespace cadre
