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
using google::protobuf::Reflection;

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
    "scheduling.priority",
    "scheduling.time_limit",
    "scheduling.tenant",
    "scheduling.cache_salt",
    "structured_output.json_schema",
    "structured_output.regex",
    "structured_output.choices.choices",
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
constexpr std::string_view kGetExpertStatsFields[] = {"model", "scope", "layers", "include_experts"};
constexpr std::string_view kWatchExpertStatsFields[] = {"model",           "scope",    "layers",
                                                        "include_experts", "interval", "delta"};
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
    {"ResetStatsRequest", kModelOnly},
    {"GetModelRequest", kModelOnly},
    {"GetLoadRequest", kModelOnly},
};

// Values of unsupported fields that ask for nothing.
struct NeutralValue {
  std::string_view path;
  double value;
};
constexpr NeutralValue kNeutralValues[] = {
    {"output.routed_experts", 0},
};

std::span<const std::string_view> SupportedFieldsOf(const Message& request) {
  for (const RequestFields& entry : kRequests) {
    if (entry.request == request.GetDescriptor()->name()) return entry.supported;
  }
  return {};
}

double ScalarValue(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? 1 : 0;
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection.GetFloat(message, &field);
    default:
      return reflection.GetDouble(message, &field);
  }
}

bool IsNeutral(const Message& message, const FieldDescriptor& field, std::string_view path) {
  for (const NeutralValue& neutral : kNeutralValues) {
    if (neutral.path == path) return ScalarValue(message, field) == neutral.value;
  }
  return false;
}

// Whether `path` is a message that holds supported or neutral fields, so that an empty one asks for nothing.
bool IsGroup(std::string_view path, std::span<const std::string_view> supported) {
  const std::string prefix = absl::StrCat(ToAbsl(path), ".");
  return std::any_of(supported.begin(), supported.end(), [&](auto field) { return field.starts_with(prefix); }) ||
         std::any_of(std::begin(kNeutralValues), std::end(kNeutralValues),
                     [&](const NeutralValue& neutral) { return neutral.path.starts_with(prefix); });
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
    if (!IsNeutral(message, *field, path)) unsupported->push_back(path);
  }
}

}  // namespace

absl::Status RefuseUnsupportedFields(const Message& request) {
  std::vector<std::string> unsupported;
  CollectUnsupported(request, "", SupportedFieldsOf(request), &unsupported);
  if (unsupported.empty()) return absl::OkStatus();
  ErrorSpec spec{.code = absl::StatusCode::kUnimplemented, .reason = reason::kUnsupportedField};
  spec.message =
      absl::StrCat("not supported by this release: ", absl::StrJoin(unsupported, ", "), "; GetModel lists what is");
  spec.metadata.emplace_back("field", unsupported.front());
  for (std::string& path : unsupported) {
    spec.violations.push_back({std::move(path), "not supported by this release"});
  }
  return MakeError(std::move(spec));
}

std::vector<std::string> SupportedGenerateFields() { return {std::begin(kGenerateFields), std::end(kGenerateFields)}; }

}  // namespace cadre
