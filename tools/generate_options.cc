#include "tools/generate_options.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/duration_option.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr const char* kGroups[] = {"prompt", "sampling", "stopping", "output", "scheduling"};
constexpr size_t kMaxSchemaBytes = 1 << 20;

const FieldDescriptor* GroupField(const char* group) {
  return v1::GenerateRequest::descriptor()->FindFieldByName(group);
}

bool IsSettable(const FieldDescriptor& field) {
  const bool is_duration = field.message_type() != nullptr && field.message_type()->name() == "Duration";
  return !field.is_repeated() && (field.message_type() == nullptr || is_duration);
}

// Sets a scalar field from text. False when the text is no value of its type.
bool SetScalar(const FieldDescriptor& field, const std::string& text, Message* message) {
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  int32_t integer = 0;
  uint64_t natural = 0;
  float real = 0.0F;
  bool flag = false;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      if (!absl::SimpleAtob(text, &flag)) return false;
      reflection.SetBool(message, &field, flag);
      return true;
    case FieldDescriptor::CPPTYPE_INT32:
      if (!absl::SimpleAtoi(text, &integer)) return false;
      reflection.SetInt32(message, &field, integer);
      return true;
    case FieldDescriptor::CPPTYPE_UINT64:
      if (!absl::SimpleAtoi(text, &natural)) return false;
      reflection.SetUInt64(message, &field, natural);
      return true;
    case FieldDescriptor::CPPTYPE_FLOAT:
      if (!absl::SimpleAtof(text, &real)) return false;
      reflection.SetFloat(message, &field, real);
      return true;
    case FieldDescriptor::CPPTYPE_STRING:
      reflection.SetString(message, &field, text);
      return true;
    default:
      return false;
  }
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* wire) {
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(duration);
  wire->set_seconds(nanoseconds / 1'000'000'000);
  wire->set_nanos(static_cast<int32_t>(nanoseconds % 1'000'000'000));
}

// A flag that sets the field `field` of the request's options `group`.
CLI::Option* AddField(CLI::App& command, GenerateOptions& options, const std::string& flags, const char* group,
                      const char* field, const std::string& description) {
  const FieldDescriptor* const descriptor = GroupField(group)->message_type()->FindFieldByName(field);
  const bool is_bool = descriptor->cpp_type() == FieldDescriptor::CPPTYPE_BOOL;
  auto set = [&options, flags, group, descriptor](const std::string& text) {
    Message* message = options.request.GetReflection()->MutableMessage(&options.request, GroupField(group));
    if (!SetScalar(*descriptor, text, message)) {
      throw CLI::ValidationError(flags, absl::StrCat("\"", text, "\" is not of type ", descriptor->type_name()));
    }
  };
  if (is_bool) {
    return command.add_flag_function(
        flags, [set](int64_t count) { set(count > 0 ? "true" : "false"); }, description);
  }
  const char* const type = descriptor->cpp_type() == FieldDescriptor::CPPTYPE_STRING  ? "TEXT"
                           : descriptor->cpp_type() == FieldDescriptor::CPPTYPE_FLOAT ? "FLOAT"
                                                                                      : "INT";
  return command.add_option_function<std::string>(flags, set, description)->type_name(type);
}

// A flag that may be given again; each adds a value to `*values`.
template <typename Value, typename Values>
CLI::Option* AddRepeated(CLI::App& command, const std::string& flags, Values* values, const std::string& description) {
  return command
      .add_option_function<std::vector<Value>>(
          flags,
          [values](const std::vector<Value>& given) {
            for (const Value& value : given) *values->Add() = value;
          },
          description)
      ->take_all()
      ->allow_extra_args(false);
}

void AddBias(const std::string& text, v1::SamplingParams* sampling) {
  const size_t equals = text.find('=');
  int32_t token = 0;
  float bias = 0.0F;
  if (equals == std::string::npos || !absl::SimpleAtoi(text.substr(0, equals), &token) ||
      !absl::SimpleAtof(text.substr(equals + 1), &bias)) {
    throw CLI::ValidationError("--logit-bias", absl::StrCat("\"", text, "\" is no bias; try 123=-5"));
  }
  (*sampling->mutable_logit_bias())[token] = bias;
}

void AddSamplingOptions(CLI::App& command, GenerateOptions& options) {
  const auto add = [&](const char* flags, const char* field, const char* description) {
    AddField(command, options, flags, "sampling", field, description);
  };
  add("-t,--temperature", "temperature", "0 always takes the most likely token");
  add("--top-k", "top_k", "Choose among the k most likely tokens; 0 for all");
  add("--top-p", "top_p", "Choose among the most likely tokens that reach this probability");
  add("--min-p", "min_p", "Drop tokens less likely than this share of the most likely one");
  add("--presence-penalty", "presence_penalty", "Subtracted from the logits of tokens that were generated");
  add("--frequency-penalty", "frequency_penalty", "Subtracted for each time that a token was generated");
  add("--repetition-penalty", "repetition_penalty", "Divides the logits of tokens of the prompt and the output");
  add("--seed", "seed", "The same seed gives the same text");
  v1::SamplingParams* const sampling = options.request.mutable_sampling();
  command
      .add_option_function<std::vector<std::string>>(
          "--logit-bias",
          [sampling](const std::vector<std::string>& biases) {
            for (const std::string& bias : biases) AddBias(bias, sampling);
          },
          "Added to the logit of a token, such as 123=-5; may be given again")
      ->type_name("ID=BIAS")
      ->delimiter(',')
      ->take_all()
      ->allow_extra_args(false);
  AddRepeated<int32_t>(command, "--allowed-token-ids", sampling->mutable_allowed_token_ids(),
                       "Only these tokens may be generated, such as 5,6,7")
      ->delimiter(',');
}

void AddStoppingOptions(CLI::App& command, GenerateOptions& options) {
  const auto add = [&](const char* flags, const char* field, const char* description) {
    AddField(command, options, flags, "stopping", field, description);
  };
  add("-n,--max-tokens", "max_tokens", "The most tokens to generate");
  add("--min-tokens", "min_tokens", "No end before so many tokens");
  add("--ignore-eos", "ignore_eos", "Go on behind the model's own end of text");
  add("--include-stop-string", "include_stop_string", "Keep the stop string in the text");
  v1::StopConditions* const stopping = options.request.mutable_stopping();
  AddRepeated<std::string>(command, "--stop", stopping->mutable_stop_strings(),
                           "End where this text appears; may be given again");
  AddRepeated<int32_t>(command, "--stop-token-id", stopping->mutable_stop_token_ids(),
                       "End with this token; may be given again");
}

void AddStructureOptions(CLI::App& command, GenerateOptions& options) {
  CLI::Option* schema =
      command.add_option("--json-schema", options.json_schema_file, "The text is JSON by the JSON Schema in this file");
  v1::GenerateRequest* const request = &options.request;
  CLI::Option* regex = command.add_option_function<std::string>(
      "--regex", [request](const std::string& text) { request->mutable_structured_output()->set_regex(text); },
      "The text matches this regular expression");
  CLI::Option* choice = command.add_option_function<std::vector<std::string>>(
      "--choice",
      [request](const std::vector<std::string>& texts) {
        auto* choices = request->mutable_structured_output()->mutable_choices();
        for (const std::string& text : texts) choices->add_choices(text);
      },
      "The text is one of these; may be given again");
  choice->take_all()->allow_extra_args(false);
  schema->excludes(regex, choice);
  regex->excludes(choice);
}

void AddSchedulingOptions(CLI::App& command, GenerateOptions& options) {
  AddField(command, options, "--priority", "scheduling", "priority", "Higher runs earlier");
  AddField(command, options, "--tenant", "scheduling", "tenant", "Who is served: the unit of fair sharing");
  AddField(command, options, "--cache-salt", "scheduling", "cache_salt", "Share cached prompts with this salt only");
  v1::GenerateRequest* const request = &options.request;
  command.add_flag_function(
      "--dropless",
      [request](int64_t) { request->mutable_scheduling()->mutable_capacity()->set_scope(v1::CAPACITY_SCOPE_OFF); },
      "No expert may turn a token away, whatever the server's limits are");
  command
      .add_option_function<std::string>(
          "--time-limit",
          [request](const std::string& text) {
            absl::Duration limit;
            if (!ParseTimeout(text, &limit)) {
              throw CLI::ValidationError("--time-limit", "\"" + text + "\" is no duration; try 30s, 500ms or 1.5");
            }
            SetDuration(limit, request->mutable_scheduling()->mutable_time_limit());
          },
          "End with the text so far after so long")
      ->type_name("DURATION");
  command.add_option_function<std::string>(
      "--model", [request](const std::string& name) { request->set_model(name); },
      "Model name; default: the one that is served");
  command.add_option_function<std::string>(
      "--request-id", [request](const std::string& id) { request->set_request_id(id); }, "Appears in the server's log");
  AddTimeoutOption(command, &options.timeout);
}

}  // namespace

void AddGenerateOptions(CLI::App& command, GenerateOptions& options) {
  AddSamplingOptions(command, options);
  AddStoppingOptions(command, options);
  AddStructureOptions(command, options);
  AddSchedulingOptions(command, options);
  AddField(command, options, "--truncate-prompt-tokens", "prompt", "truncate_prompt_tokens",
           "Keep only the last so many tokens of the prompt");
  v1::GenerateRequest* const request = &options.request;
  command.add_flag_callback(
      "--keep-special-tokens", [request] { request->mutable_output()->set_skip_special_tokens(false); },
      "Show special tokens");
}

absl::Status CompleteGenerateOptions(GenerateOptions& options) {
  if (options.json_schema_file.empty()) return absl::OkStatus();
  auto schema = ReadFile(options.json_schema_file, kMaxSchemaBytes);
  if (!schema.ok()) return schema.status();
  if (!IsValidUtf8(*schema)) {
    return absl::InvalidArgumentError(absl::StrCat(options.json_schema_file, ": is not valid UTF-8"));
  }
  options.request.mutable_structured_output()->set_json_schema(*std::move(schema));
  return absl::OkStatus();
}

absl::Status SetRequestField(const std::string& name, const std::string& value, v1::GenerateRequest* request) {
  for (const char* group : kGroups) {
    const FieldDescriptor* const field = GroupField(group)->message_type()->FindFieldByName(name);
    if (field == nullptr || !IsSettable(*field)) continue;
    Message* const message = request->GetReflection()->MutableMessage(request, GroupField(group));
    if (value.empty()) {
      message->GetReflection()->ClearField(message, field);
      return absl::OkStatus();
    }
    if (field->message_type() != nullptr) {
      absl::Duration duration;
      if (!ParseTimeout(value, &duration)) {
        return absl::InvalidArgumentError(absl::StrCat(name, ": \"", value, "\" is no duration; try 30s"));
      }
      SetDuration(duration, request->mutable_scheduling()->mutable_time_limit());
      return absl::OkStatus();
    }
    if (!SetScalar(*field, value, message)) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": \"", value, "\" is not of type ", field->type_name()));
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("there is no setting \"", name, "\""));
}

std::vector<std::string> RequestFieldNames() {
  std::vector<std::string> names;
  for (const char* group : kGroups) {
    const auto* type = GroupField(group)->message_type();
    for (int i = 0; i < type->field_count(); ++i) {
      if (IsSettable(*type->field(i))) names.push_back(type->field(i)->name());
    }
  }
  return names;
}

std::vector<std::string> DescribeRequestFields(const v1::GenerateRequest& request) {
  std::vector<std::string> lines;
  for (const char* group : kGroups) {
    if (!request.GetReflection()->HasField(request, GroupField(group))) continue;
    const Message& message = request.GetReflection()->GetMessage(request, GroupField(group));
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      std::string value;
      if (field->is_repeated()) {
        value = absl::StrCat(message.GetReflection()->FieldSize(message, field), " values");
      } else if (field->message_type() != nullptr) {
        value = message.GetReflection()->GetMessage(message, field).ShortDebugString();
      } else {
        google::protobuf::TextFormat::PrintFieldValueToString(message, field, -1, &value);
      }
      lines.push_back(absl::StrCat(field->name(), " = ", value));
    }
  }
  return lines;
}

}  // namespace cadre
